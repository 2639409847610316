"""JSON as it comes in request bodies and goes out in answers (ch. 05, 2.3 and 2.5)."""

from typing import Any

import msgspec

ARRAY_LIMIT = 16384
"""Entries accepted of any array in a body."""

_BOM = b"\xef\xbb\xbf"


class BodyError(Exception):
    """A body that is not JSON or holds a value of a type that cannot be read: status 500."""


def parse(body: bytes) -> Any:
    """The JSON value of a request body, which ends at the first NUL; a byte order mark is skipped.

    Raises BodyError.
    """
    text = body.partition(b"\0")[0].removeprefix(_BOM)
    try:
        value = msgspec.json.decode(text)
        if b"\\u" in text:
            msgspec.json.encode(value)  # lone surrogates could not be stored
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise BodyError(f"parse error: {error}") from None
    return value


def dump(value: Any) -> bytes:
    """Compact JSON, keys in ascending byte order, text as raw UTF-8."""
    return msgspec.json.encode(value, order="sorted")


def load(document: bytes) -> Any:
    """A JSON value that `dump` made."""
    return msgspec.json.decode(document)


def type_name(value: Any) -> str:
    """What JSON calls the type of a value."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"
