"""What the parts of VL2 share."""

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from zt._fast.tables import Tables
from zt.protocol.address import Address, NetworkId
from zt.vl1 import Vl1
from zt.vl2.multicast import Groups

if TYPE_CHECKING:
    from zt.vl2.network import Network


class Context:
    """One per node: the layer below, the tables of the data plane, the joined networks."""

    def __init__(self, vl1: Vl1, tables: Tables) -> None:
        self.vl1 = vl1
        self.tables = tables
        self.us: Address = vl1.address
        self.random: Callable[[int], bytes] = vl1.random
        self.networks: dict[NetworkId, Network] = {}
        self.groups = Groups(self.us, self.random)
        self.counters: Counter[str] = Counter()
        """What was dropped, refused or sent, by name."""

    @property
    def low_bandwidth(self) -> bool:
        """Do without what is not needed, and the rest less often."""
        return self.vl1.settings.low_bandwidth

    def random_word(self) -> int:
        """64 random bits, not 0."""
        return int.from_bytes(self.random(8)) | 1
