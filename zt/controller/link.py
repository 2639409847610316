"""What the controller needs of the node it runs in. The service adapts `zt.node.Node` to it."""

from collections.abc import Sequence
from typing import Protocol

from zt.protocol.address import Address, NetworkId
from zt.protocol.credentials import Revocation
from zt.protocol.packet import ErrorCode


class MemberLink(Protocol):
    """Sends to members. Called on the event loop's thread; nothing waits, nothing raises.

    The node itself may be the member (it joined a network of its own): request IDs work the same.
    """

    def send_config(
        self, member: Address, nwid: NetworkId, chunks: Sequence[bytes], request_id: int | None
    ) -> None:
        """A config as signed chunks: in answer to a request, or pushed (None)."""

    def send_config_error(
        self, member: Address, nwid: NetworkId, request_id: int, code: ErrorCode, data: bytes
    ) -> None:
        """Refuse a request; `data` follows the network ID in the packet."""

    def send_revocation(
        self, member: Address, nwid: NetworkId, revocations: Sequence[Revocation]
    ) -> None:
        """Revocations in one NETWORK_CREDENTIALS packet."""
