"""A network as the local API shows it."""

from dataclasses import dataclass

from zt.protocol.address import Mac, MulticastGroup, NetworkId
from zt.protocol.netconf import NetworkConfig, Sso

REQUESTING_CONFIGURATION = "REQUESTING_CONFIGURATION"
OK = "OK"
ACCESS_DENIED = "ACCESS_DENIED"
NOT_FOUND = "NOT_FOUND"
AUTHENTICATION_REQUIRED = "AUTHENTICATION_REQUIRED"


@dataclass(frozen=True, slots=True)
class NetworkStatus:
    nwid: NetworkId
    mac: Mac
    status: str
    """One of the constants above. What the port made of it is the driver's to know."""
    config: NetworkConfig | None
    """Stays in force when the controller refuses us later."""
    subscriptions: frozenset[MulticastGroup]
    """Our own; not those of hosts behind us."""
    authentication_url: str = ""
    authentication_expiry_ms: int = 0
    sso: Sso | None = None
    """What the controller last asked for, if it did."""
