"""The identity proof of work (docs/protocol/01, 4.2)."""

def memory_hard_hash(public64: bytes | bytearray | memoryview) -> bytes:
    """The 64-byte digest of a 64-byte public key.

    Takes 2 MiB of memory and some milliseconds, without the GIL.
    """
