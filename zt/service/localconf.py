"""`local.conf`: every setting with its default, validated (ch. 06, section 5).

`parse` never fails for a value it does not like: the value is left at its default and a warning
names the key. Only a file that is no JSON object, or whose `settings` is no object, is an error.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from zt._fast.pump import OPTIONS
from zt.protocol.address import Address
from zt.protocol.errors import DecodeError
from zt.protocol.inet import InetAddress
from zt.service.bondconf import parse_bonding
from zt.service.errors import ServiceError
from zt.vl1.bond.settings import Bonding
from zt.vl1.status import PhysicalPath, Settings

MAX_PHYSICAL = 32
PATH_MTU_RANGE = (1400, 10324)
DEFAULT_TCP_RELAY = InetAddress(bytes((204, 80, 128, 1)), 443)

SECTIONS = frozenset(("physical", "virtual", "settings", "vault"))
SETTINGS = frozenset(
    (
        "primaryPort", "allowSecondaryPort", "secondaryPort", "tertiaryPort", "portMappingEnabled",
        "bind", "interfacePrefixBlacklist", "allowManagementFrom", "allowTcpFallbackRelay",
        "forceTcpRelay", "tcpFallbackRelay", "lowBandwidthMode", "multicoreEnabled", "concurrency",
        "cpuPinningEnabled", "softwareUpdate", "softwareUpdateChannel", "softwareUpdateDist",
        "controllerDbPath", "ssoRedirectURL", "enableWebServer", "defaultBondingPolicy",
        "policies", "peerSpecificBonds", "vault", "log", "privateKeyFile",
        "cipherSuite", "dataPlane",
    )
)  # fmt: skip
OBSOLETE = frozenset(("multipathMode", "relayPolicy", "role", "homeDir", "listeningOn"))
"""Read without effect and without a warning: old documents name them, `/status` prints them."""


class LocalConfError(ServiceError):
    """The file cannot be used at all."""

    def line(self, program: str) -> str:
        return f"ERROR: {self}"


@dataclass(frozen=True, slots=True)
class LocalConf:
    """One reading of the file. `raw` is the whole content, unknown keys too."""

    raw: Mapping[str, Any] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    node: Settings = field(default_factory=Settings)
    """`physical`, `virtual`, `lowBandwidthMode`, `cipherSuite`, bonding, as the node takes them."""
    data_plane: Mapping[str, bool] = field(default_factory=dict)
    """Features of the pump that are forced off (or left on)."""
    primary_port: int | None = None  # None: -p or 9993; 0: random
    allow_secondary_port: bool = True
    secondary_port: int = 0  # 0: random
    tertiary_port: int = 0
    port_mapping: bool = True
    bind: tuple[bytes, ...] = ()
    interface_prefix_blacklist: tuple[str, ...] = ()
    management: tuple[InetAddress, ...] = ()
    allow_tcp_relay: bool = True
    force_tcp_relay: bool = False
    tcp_relay: InetAddress = DEFAULT_TCP_RELAY
    multicore: bool = False
    concurrency: int = 1
    cpu_pinning: bool = False
    software_update: str = "disable"
    software_update_channel: str = "release"
    controller_db: str | None = None
    sso_redirect_url: str = ""
    web_server: bool = False

    @property
    def bonding(self) -> Bonding:
        return self.node.bonding

    def threads(self, cpus: int) -> int:
        """Data plane threads of each kind, one unless `multicoreEnabled` (ch. 06, 5.3)."""
        if not self.multicore:
            return 1
        if 1 < self.concurrency < cpus:
            return self.concurrency
        return 2 if cpus >= 4 else 1

    @property
    def settings(self) -> Mapping[str, Any]:
        """The `settings` object as written in the file, `{}` if there is none."""
        return self.raw.get("settings") or {}


# --- conversions of the chapter: section 5, table "Value conversion" -------------------------


def to_int(value: Any, default: int = 0) -> int:
    """Numbers as they are, leading decimal digits of strings, booleans as 1 and 0."""
    if isinstance(value, bool | int | float):
        return int(value)
    if isinstance(value, str):
        digits = value.strip()
        end = 0
        while end < len(digits) and digits[end] in "0123456789":
            end += 1
        return int(digits[:end] or 0)
    return default


def to_bool(value: Any, default: bool = False) -> bool:
    """Booleans as they are, numbers above 0, strings that begin with t, T or 1."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        return value > 0
    if isinstance(value, str):
        return value[:1] in ("t", "T", "1")
    return default


def to_str(value: Any, default: str = "") -> str:
    """Strings as they are, numbers as decimal text, booleans as 1 and 0."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int):
        return str(int(value))
    return default


# --- the file --------------------------------------------------------------------------------


def parse(data: bytes) -> LocalConf:
    """Read the bytes of a `local.conf`; empty bytes count as an empty object.

    :raises LocalConfError: not JSON, or an object is missing where one is needed.
    """
    if not data.strip():
        return LocalConf()
    try:
        raw = msgspec.json.decode(data)
    except (ValueError, RecursionError):
        raise LocalConfError("unable to parse local.conf (invalid JSON)") from None
    if not isinstance(raw, dict):
        raise LocalConfError("unable to parse local.conf (root element is not a JSON object)")
    return _Parser(raw).parse()


class _Parser:
    def __init__(self, raw: dict[str, Any]) -> None:
        self.raw = raw
        self.warnings: list[str] = []
        settings = raw.get("settings")
        if settings is None:
            settings = {}
        if not isinstance(settings, dict):
            raise LocalConfError('local.conf: "settings" must be an object')
        self.settings = settings

    def parse(self) -> LocalConf:
        for key in sorted(self.raw.keys() - SECTIONS):
            self.warn(key, "unknown section, kept but without effect")
        for key in sorted(self.settings.keys() - SETTINGS - OBSOLETE):
            self.warn(f"settings.{key}", "unknown setting, kept but without effect")
        hints, blacklist = self.virtual()
        # A port is its low 16 bits whatever was written (recorded case 14).
        ports = {
            key: self.number(key) & 0xFFFF
            for key in ("primaryPort", "secondaryPort", "tertiaryPort")
        }
        if ports["secondaryPort"] or ports["tertiaryPort"]:
            self.warnings.append(
                "WARNING: using manually-specified secondary and/or tertiary ports."
                " This can cause NAT issues."
            )
        bonding, messages = parse_bonding(self.settings)
        self.warnings += messages
        force_tcp = self.boolean("forceTcpRelay", False)
        if force_tcp and bonding.in_use:
            self.warnings.append(
                "Warning: forceTcpRelay cannot be used with multipath. Disabling forceTcpRelay"
            )
            force_tcp = False
        return LocalConf(
            raw=self.raw,
            node=Settings(
                physical=self.physical(),
                hints=hints,
                blacklist=blacklist,
                low_bandwidth=self.boolean("lowBandwidthMode", False),
                aes=self.number("cipherSuite", 3) != 1,
                bonding=bonding,
            ),
            data_plane=self.data_plane(),
            primary_port=ports["primaryPort"] if "primaryPort" in self.settings else None,
            allow_secondary_port=self.boolean("allowSecondaryPort", True),
            secondary_port=ports["secondaryPort"],
            tertiary_port=ports["tertiaryPort"],
            port_mapping=self.boolean("portMappingEnabled", True),
            bind=tuple(address.ip for address in self.addresses("bind")),
            interface_prefix_blacklist=self.strings("interfacePrefixBlacklist"),
            management=tuple(self.addresses("allowManagementFrom")),
            allow_tcp_relay=self.boolean("allowTcpFallbackRelay", True) and not bonding.in_use,
            force_tcp_relay=force_tcp,
            tcp_relay=self.tcp_relay(),
            multicore=self.boolean("multicoreEnabled", False),
            concurrency=self.number("concurrency", 1),
            cpu_pinning=self.boolean("cpuPinningEnabled", False),
            software_update=self.text("softwareUpdate", "disable"),
            software_update_channel=self.text("softwareUpdateChannel", "release"),
            controller_db=self.text("controllerDbPath", "") or None,
            sso_redirect_url=self.text("ssoRedirectURL", ""),
            web_server=self.boolean("enableWebServer", False),
            warnings=tuple(self.warnings),
        )

    def warn(self, key: str, text: str) -> None:
        self.warnings.append(f"WARNING: local.conf: {key}: {text}")

    # --- values of `settings` --------------------------------------------------------------

    def boolean(self, key: str, default: bool) -> bool:
        value = self.scalar(key)
        return to_bool(value, default)

    def number(self, key: str, default: int = 0) -> int:
        return to_int(self.scalar(key), default)

    def text(self, key: str, default: str) -> str:
        return to_str(self.scalar(key), default)

    def scalar(self, key: str) -> Any:
        value = self.settings.get(key)
        if isinstance(value, dict | list):
            self.warn(f"settings.{key}", "must not be an object or an array; default used")
            return None
        return value

    def strings(self, key: str) -> tuple[str, ...]:
        return tuple(text for text in self.array(f"settings.{key}", self.settings) if text)

    def addresses(self, key: str) -> list[InetAddress]:
        return self.inet_array(f"settings.{key}", self.settings)

    def data_plane(self) -> Mapping[str, bool]:
        """`dataPlane`: features of the pump by name; false forces one off."""
        wanted = self.settings.get("dataPlane")
        if wanted is None:
            return {}
        if not isinstance(wanted, dict):
            self.warn("settings.dataPlane", "must be an object; ignored")
            return {}
        found = {}
        for name, value in wanted.items():
            if isinstance(value, bool) and isinstance(OPTIONS.get(name), bool):
                found[name] = value
            else:
                self.warn(f"settings.dataPlane.{name}", "no such feature, or no boolean; ignored")
        return found

    def tcp_relay(self) -> InetAddress:
        text = self.text("tcpFallbackRelay", str(DEFAULT_TCP_RELAY))
        address = parse_inet(text)
        if address is None:
            self.warn("settings.tcpFallbackRelay", f"not an IP/port: {text!r}; default used")
            return DEFAULT_TCP_RELAY
        return address

    # --- `physical` and `virtual` ------------------------------------------------------------

    def physical(self) -> dict[InetAddress, PhysicalPath]:
        found: dict[InetAddress, PhysicalPath] = {}
        for text, entry in sorted(self.section("physical").items()):
            network = parse_inet(text)
            if network is None:
                self.warn(f"physical.{text}", "not an IP/bits; ignored")
                continue
            if not isinstance(entry, dict):
                self.warn(f"physical.{text}", "must be an object; ignored")
                continue
            if len(found) == MAX_PHYSICAL:
                self.warn(f"physical.{text}", f"more than {MAX_PHYSICAL} networks; ignored")
                break
            mtu = to_int(entry.get("mtu"))
            if mtu:
                mtu = min(max(mtu, PATH_MTU_RANGE[0]), PATH_MTU_RANGE[1])
            found[network] = PhysicalPath(
                blacklist=network.bits > 0 and to_bool(entry.get("blacklist")),
                trusted_id=to_int(entry.get("trustedPathId")) & 0xFFFF_FFFF_FFFF_FFFF,
                mtu=mtu,
            )
        return found

    def virtual(
        self,
    ) -> tuple[dict[Address, tuple[InetAddress, ...]], dict[Address, tuple[InetAddress, ...]]]:
        hints: dict[Address, tuple[InetAddress, ...]] = {}
        blacklist: dict[Address, tuple[InetAddress, ...]] = {}
        for text, entry in sorted(self.section("virtual").items()):
            address = _parse_node_address(text)
            if address is None or not isinstance(entry, dict):
                self.warn(f"virtual.{text}", "not a 10-digit address with an object; ignored")
                continue
            if hint := self.inet_array(f"virtual.{text}.try", entry):
                hints[address] = tuple(hint)
            if networks := self.inet_array(f"virtual.{text}.blacklist", entry):
                blacklist[address] = tuple(networks)
        return hints, blacklist

    def section(self, name: str) -> dict[str, Any]:
        section = self.raw.get(name)
        if section is None:
            return {}
        if not isinstance(section, dict):
            self.warn(name, "must be an object; ignored")
            return {}
        return section

    def array(self, name: str, owner: Mapping[str, Any]) -> list[str]:
        value = owner.get(name.rpartition(".")[2])
        if value is None:
            return []
        if not isinstance(value, list):
            self.warn(name, "must be an array; ignored")
            return []
        return [to_str(entry) for entry in value]

    def inet_array(self, name: str, owner: Mapping[str, Any]) -> list[InetAddress]:
        found = []
        for text in self.array(name, owner):
            address = parse_inet(text)
            if address is None:
                self.warn(name, f"not an IP address: {text!r}; ignored")
            else:
                found.append(address)
        return found


def parse_inet(text: str) -> InetAddress | None:
    """`IP` or `IP/number`; None for anything else, nothing at all included."""
    try:
        return InetAddress.parse(text) or None
    except DecodeError:
        return None


def parse_trusted_paths(text: str) -> dict[InetAddress, int]:
    """The legacy file `trustedpaths`: lines `<hex id>=<IP/bits>`, `#` begins a comment."""
    found: dict[InetAddress, int] = {}
    for line in text.splitlines():
        key, equals, value = line.partition("#")[0].partition("=")
        network = parse_inet(value.strip()) if equals else None
        try:
            identifier = int(key.strip(), 16)
        except ValueError:
            continue
        if network is not None and 0 < identifier < 1 << 64:
            found[network] = identifier
    return found


def _parse_node_address(text: str) -> Address | None:
    if len(text) != 10:
        return None
    try:
        return Address(int(text, 16))
    except (ValueError, DecodeError):
        return None
