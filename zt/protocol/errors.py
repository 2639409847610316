"""The one error of this room."""


class DecodeError(ValueError):
    """Bytes or text from outside are not what they claim to be.

    Every decoder of ``zt.protocol`` raises this and nothing else, whatever its input. The message
    says what was wrong; it never contains key material.
    """
