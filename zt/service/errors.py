"""Failures an operator can act on."""


class ServiceError(Exception):
    """One clear line for the operator, never a traceback: the service cannot start or go on."""

    def line(self, program: str) -> str:
        """What stderr shows; the forms are known to scripts (ch. 06, 1.7)."""
        return f"{program}: fatal error: {self}"
