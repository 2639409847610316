"""Networks, membership, credentials, multicast, bridging."""

from zt.vl2.core import Vl2
from zt.vl2.status import NetworkStatus

__all__ = ["NetworkStatus", "Vl2"]
