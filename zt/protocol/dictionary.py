"""Dictionaries: ordered lines ``key=value`` with escapes (chapter 02, 5; chapter 04, 4)."""

from collections.abc import Iterator

from zt.protocol.address import Address
from zt.protocol.text import hex_i64, hex_u64

# Capacities in bytes, the final NUL included.
METADATA_CAPACITY = 1024
ERROR_CAPACITY = 8192
TRACE_CAPACITY = 10000
CONFIG_CAPACITY = 484520

_ESCAPES = ((b"\0", b"\\0"), (b"\r", b"\\r"), (b"\n", b"\\n"), (b"=", b"\\e"))


def escape(value: bytes) -> bytes:
    value = value.replace(b"\\", b"\\\\")
    for plain, escaped in _ESCAPES:
        value = value.replace(plain, escaped)
    return value


def unescape(value: bytes) -> bytes:
    """Backslash and any other byte yields that byte; a last lone backslash yields nothing."""
    if b"\\" not in value:
        return value
    # A run of backslashes pairs up from its start, as split() does. In the pieces between the pairs
    # every backslash therefore begins an escape, and no replacement makes a new one.
    pieces = value.split(b"\\\\")
    for i, piece in enumerate(pieces):
        if b"\\" in piece:
            for plain, escaped in _ESCAPES:
                piece = piece.replace(escaped, plain)
            pieces[i] = piece.replace(b"\\", b"")
    return b"\\".join(pieces)


class Dictionary:
    """A received dictionary. Of several lines with one key the first counts.

    Decoding never fails: what is not an entry is skipped. Numbers are read as the C library does,
    see `zt.protocol.text`; text that is not UTF-8 gets replacement characters.
    """

    __slots__ = ("_entries",)

    def __init__(self, entries: dict[str, bytes]) -> None:
        self._entries = entries

    def __repr__(self) -> str:
        return f"Dictionary({self._entries!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Dictionary):
            return NotImplemented
        return self._entries == other._entries

    __hash__ = None  # type: ignore[assignment]

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def items(self) -> Iterator[tuple[str, bytes]]:
        """Keys and values in order."""
        return iter(self._entries.items())

    def get(self, key: str) -> bytes | None:
        """The value, unescaped; None if there is none."""
        return self._entries.get(key)

    def blob(self, key: str) -> bytes:
        """The value, or nothing."""
        return self._entries.get(key, b"")

    def text(self, key: str, limit: int | None = None) -> str:
        """The value as text, or nothing; cut to ``limit`` bytes before it is decoded."""
        return self.blob(key)[:limit].decode(errors="replace")

    def u64(self, key: str, default: int = 0) -> int:
        """The value as an unsigned number; the default if it is missing or empty."""
        value = self._entries.get(key)
        return hex_u64(value.decode("latin-1")) if value else default

    def i64(self, key: str, default: int = 0) -> int:
        """The value as a signed number; the default if it is missing or empty."""
        value = self._entries.get(key)
        return hex_i64(value.decode("latin-1")) if value else default

    def boolean(self, key: str, default: bool = False) -> bool:
        """True if the value begins with ``1``, ``t`` or ``T``; the default if it is missing."""
        value = self._entries.get(key)
        return default if value is None else value[:1] in (b"1", b"t", b"T")

    def address(self, key: str) -> Address:
        """The low 40 bits of the value; 0 if it is missing."""
        return Address(self.u64(key) & 0xFF_FFFF_FFFF)

    @classmethod
    def decode(cls, data: bytes | bytearray, capacity: int | None = None) -> "Dictionary":
        """Up to the first NUL, and at most ``capacity - 1`` bytes."""
        data = bytes(data)
        if capacity is not None:
            data = data[: capacity - 1]
        end = data.find(b"\0")
        if end >= 0:
            data = data[:end]
        entries: dict[str, bytes] = {}
        for line in data.replace(b"\r", b"\n").split(b"\n"):
            key, separator, value = line.partition(b"=")
            if separator:
                # Keys are bytes; latin-1 maps each to one character and back.
                entries.setdefault(key.decode("latin-1"), unescape(value))
        return cls(entries)


class DictionaryWriter:
    """A dictionary being written. ``bytes()`` of it is what goes onto the wire, without NUL.

    Every method appends one entry, or nothing and returns False if it does not fit the capacity.
    """

    __slots__ = ("_capacity", "_data")

    def __init__(self, capacity: int = CONFIG_CAPACITY) -> None:
        self._capacity = capacity
        self._data = bytearray()

    def __bytes__(self) -> bytes:
        return bytes(self._data)

    def __len__(self) -> int:
        return len(self._data)

    def blob(self, key: str, value: bytes) -> bool:
        return self._put(key, escape(value))

    def _put(self, key: str, escaped: bytes) -> bool:
        entry = key.encode("latin-1") + b"=" + escaped
        if self._data:
            entry = b"\n" + entry
        if len(self._data) + len(entry) >= self._capacity:
            return False
        self._data += entry
        return True

    def text(self, key: str, value: str) -> bool:
        return self.blob(key, value.encode(errors="replace"))

    def u64(self, key: str, value: int) -> bool:
        """16 hex digits."""
        return self._put(key, b"%016x" % value)

    def i64(self, key: str, value: int) -> bool:
        """16 hex digits of the magnitude: the format loses the sign."""
        return self._put(key, b"%016x" % abs(value))

    def boolean(self, key: str, value: bool) -> bool:
        return self._put(key, b"1" if value else b"0")

    def address(self, key: str, value: int) -> bool:
        """10 hex digits, as configurations have it; traces write addresses with `u64`."""
        return self._put(key, b"%010x" % value)
