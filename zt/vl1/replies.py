"""Which OKs we wait for (ch. 02, 10.1)."""

from collections import OrderedDict

TIMEOUT_MS = 30_000
LIMIT = 8192


class ExpectedReplies:
    """Packet IDs of sent requests. A request may be answered several times until it times out.

    Bounded: beyond `LIMIT` the oldest request is forgotten.
    """

    def __init__(self) -> None:
        # In order of sending. A plain dict would look for its first entry past all that were
        # removed in front of it.
        self._sent_ms: OrderedDict[int, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sent_ms)

    def add(self, packet_id: int, now_ms: int) -> None:
        """Registers a request by the packet ID that it has on the wire."""
        sent = self._sent_ms
        sent.pop(packet_id, None)
        sent[packet_id] = now_ms
        while True:
            oldest = next(iter(sent))
            if len(sent) <= LIMIT and now_ms - sent[oldest] <= TIMEOUT_MS:
                break
            del sent[oldest]

    def sent_ms(self, packet_id: int, now_ms: int) -> int | None:
        """When the request was sent, or None if no OK to it is expected (any more)."""
        sent_ms = self._sent_ms.get(packet_id)
        if sent_ms is None or now_ms - sent_ms > TIMEOUT_MS:
            return None
        return sent_ms
