"""Failures an operator can act on."""


class ServiceError(Exception):
    """One clear line for the operator, never a traceback: the service cannot start or go on."""
