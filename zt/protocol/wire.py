"""Reading and writing of wire integers: big-endian, unsigned unless the name says otherwise."""

from struct import Struct
from struct import error as StructError
from typing import Any, ClassVar, Self

from zt.protocol.errors import DecodeError


class Reader:
    """A cursor over received bytes. Reading past the end raises `DecodeError`."""

    __slots__ = ("data", "offset")

    def __init__(self, data: bytes | bytearray | memoryview, offset: int = 0) -> None:
        self.data = bytes(data)
        self.offset = offset

    @property
    def remaining(self) -> int:
        """Bytes not read yet."""
        return len(self.data) - self.offset

    def take(self, size: int) -> bytes:
        """The next ``size`` bytes."""
        start = self.offset
        end = start + size
        if end > len(self.data):
            raise DecodeError(
                f"{size} bytes wanted at offset {start}, {len(self.data) - start} left"
            )
        self.offset = end
        return self.data[start:end]

    def rest(self) -> bytes:
        """Everything up to the end."""
        start = self.offset
        self.offset = len(self.data)
        return self.data[start:]

    def skip(self, size: int) -> None:
        """Pass over ``size`` bytes, which must be there."""
        self.take(size)

    def unpack(self, layout: Struct) -> tuple[Any, ...]:
        """The fields of a fixed layout."""
        try:
            fields = layout.unpack_from(self.data, self.offset)
        except StructError:
            raise DecodeError(
                f"{layout.size} bytes wanted at offset {self.offset}, {self.remaining} left"
            ) from None
        self.offset += layout.size
        return fields

    def u8(self) -> int:
        start = self.offset
        if start >= len(self.data):
            raise DecodeError(f"a byte wanted at offset {start}, none left")
        self.offset = start + 1
        return self.data[start]

    def u16(self) -> int:
        return int.from_bytes(self.take(2))

    def u32(self) -> int:
        return int.from_bytes(self.take(4))

    def u40(self) -> int:
        return int.from_bytes(self.take(5))

    def u48(self) -> int:
        return int.from_bytes(self.take(6))

    def u64(self) -> int:
        return int.from_bytes(self.take(8))

    def i64(self) -> int:
        """Two's complement."""
        return int.from_bytes(self.take(8), signed=True)


class Writer:
    """The counterpart of `Reader`. Methods return the writer, so that a layout reads as one line.

    A value that does not fit its field is a mistake of the caller: `OverflowError`.
    """

    __slots__ = ("data",)

    def __init__(self) -> None:
        self.data = bytearray()

    def __bytes__(self) -> bytes:
        return bytes(self.data)

    def raw(self, data: bytes) -> Self:
        self.data += data
        return self

    def u8(self, value: int) -> Self:
        self.data += value.to_bytes(1)
        return self

    def u16(self, value: int) -> Self:
        self.data += value.to_bytes(2)
        return self

    def u32(self, value: int) -> Self:
        self.data += value.to_bytes(4)
        return self

    def u40(self, value: int) -> Self:
        self.data += value.to_bytes(5)
        return self

    def u48(self, value: int) -> Self:
        self.data += value.to_bytes(6)
        return self

    def u64(self, value: int) -> Self:
        self.data += value.to_bytes(8)
        return self

    def i64(self, value: int) -> Self:
        """Two's complement."""
        self.data += value.to_bytes(8, signed=True)
        return self


class Value:
    """What every value with a wire form shares: ``encode``, and ``decode`` built on ``read``.

    ``decode`` ignores bytes behind the value, as every receiver of the protocol does; whoever wants
    to know about them uses ``read`` and looks at `Reader.remaining`.
    """

    __slots__: ClassVar[tuple[str, ...]] = ()

    def encode(self) -> bytes:
        raise NotImplementedError

    @classmethod
    def read(cls, reader: Reader) -> Self:
        raise NotImplementedError

    @classmethod
    def decode(cls, data: bytes | bytearray | memoryview) -> Self:
        """:raises DecodeError: the data is not such a value."""
        return cls.read(Reader(data))
