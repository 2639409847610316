"""What the API shows: node and network values as the JSON objects of ch. 06, 3.5 to 3.9."""

from typing import TYPE_CHECKING, Any

from zt import version
from zt.protocol.inet import ip_text
from zt.protocol.netconf import ACTIVE_BRIDGE, Dns, Route
from zt.service import localconf
from zt.service.clock import wall_ms
from zt.service.networks import Joined
from zt.vl1.status import MoonStatus, PathStatus, PeerStatus

if TYPE_CHECKING:
    from zt.service.daemon import Daemon

JsonObject = dict[str, Any]


def version_fields() -> JsonObject:
    major, minor, revision = version.VERSION
    return {
        "version": version.TEXT,
        "versionMajor": major,
        "versionMinor": minor,
        "versionRev": revision,
        "versionBuild": version.BUILD,
    }


def health(daemon: "Daemon") -> JsonObject:
    return {"clock": wall_ms(), "online": daemon.node.online, **version_fields()}


def status(daemon: "Daemon") -> JsonObject:
    node = daemon.node
    return {
        "address": str(node.identity.address),
        "publicIdentity": node.identity.to_text(),
        "online": node.online,
        "tcpFallbackActive": daemon.tunneled,
        "clock": wall_ms(),
        "planetWorldId": node.planet.id,
        "planetWorldTimestamp": node.planet.timestamp,
        "config": {**daemon.conf.raw, "settings": settings(daemon)},
        **version_fields(),
    }


def settings(daemon: "Daemon") -> JsonObject:
    """`settings` as in the file, completed with the values in use."""
    conf, ports = daemon.conf, daemon.ports
    shown: JsonObject = {
        **conf.settings,
        "allowTcpFallbackRelay": conf.allow_tcp_relay,
        # Shown as written even where bonding overrules it.
        "forceTcpRelay": localconf.to_bool(conf.settings.get("forceTcpRelay")),
        "homeDir": str(daemon.home.path),
        "listeningOn": [str(binding) for _, binding in daemon.sockets.bound()],
        "surfaceAddresses": list(dict.fromkeys(str(a) for a in daemon.node.surface())),
        "portMappingEnabled": conf.port_mapping,
        "softwareUpdate": conf.software_update,
        "softwareUpdateChannel": conf.software_update_channel,
    }
    # A live edit shows the file; what is not in the file shows the socket (Q8, Q26).
    shown["primaryPort"] = _port(conf.primary_port, "primaryPort", conf.settings, ports.primary)
    shown["secondaryPort"] = _port(
        conf.secondary_port, "secondaryPort", conf.settings, ports.secondary
    )
    shown["tertiaryPort"] = _port(conf.tertiary_port, "tertiaryPort", conf.settings, ports.tertiary)
    return shown


def _port(configured: int | None, key: str, written: Any, in_use: int) -> int:
    return configured if key in written and configured is not None else in_use


# --- networks --------------------------------------------------------------------------------


def network(daemon: "Daemon", joined: Joined) -> JsonObject:
    node_view = daemon.node.network(joined.nwid)
    config = node_view.config if node_view is not None else None
    state = node_view.status if node_view is not None else "REQUESTING_CONFIGURATION"
    shown: JsonObject = {
        "id": str(joined.nwid),
        "nwid": str(joined.nwid),
        "mac": str(daemon.mac(joined.nwid)),
        "name": config.name if config else "",
        "status": "PORT_ERROR" if joined.port_error else state,
        "type": "PUBLIC" if config and config.public else "PRIVATE",
        "mtu": config.mtu if config else joined.mtu,
        "dhcp": False,
        "bridge": bool(
            config and daemon.identity.address in config.specialists_with(ACTIVE_BRIDGE)
        ),
        "broadcastEnabled": bool(config and config.broadcast),
        "portError": joined.port_error,
        "netconfRevision": config.revision if config else 0,
        "portDeviceName": joined.tap.name if joined.tap else "",
        "allowManaged": joined.settings.allow_managed,
        "allowGlobal": joined.settings.allow_global,
        "allowDefault": joined.settings.allow_default,
        "allowDNS": joined.settings.allow_dns,
        "assignedAddresses": [str(a) for a in config.static_ips if a] if config else [],
        "routes": [_route(r) for r in config.routes] if config else [],
        "multicastSubscriptions": [
            {"mac": str(group.mac), "adi": group.adi} for group in sorted(joined.groups)
        ],
        "dns": _dns(config.dns) if config else {"domain": "", "servers": []},
    }
    if node_view is not None and config is not None and config.sso.enabled:
        shown["ssoEnabled"] = True
        shown["authenticationURL"] = node_view.authentication_url
        shown["authenticationExpiryTime"] = node_view.authentication_expiry_ms
    return shown


def _route(route: Route) -> JsonObject:
    return {
        "target": str(route.target),
        "via": ip_text(route.via.ip) if route.via else None,
        "flags": route.flags,
        "metric": route.metric,
    }


def _dns(dns: Dns) -> JsonObject:
    return {
        "domain": dns.domain,
        "servers": [ip_text(server.ip) for server in dns.servers if server],
    }


# --- peers -----------------------------------------------------------------------------------


def peer(daemon: "Daemon", status: PeerStatus) -> JsonObject:
    major, minor, revision = status.version or (-1, -1, -1)
    shown: JsonObject = {
        "address": str(status.address),
        "versionMajor": major,
        "versionMinor": minor,
        "versionRev": revision,
        "version": f"{major}.{minor}.{revision}",
        "latency": -1 if status.latency_ms is None else status.latency_ms,
        "role": status.role,
        "isBonded": status.bond is not None,
        "tunneled": daemon.tunneled,
        "paths": [_path(path, daemon.clock.now_ms()) for path in status.paths],
    }
    bond = status.bond
    if bond is not None:
        shown |= {
            "bondingPolicyCode": bond.policy,
            "bondingPolicyStr": bond.policy_name,
            "numAliveLinks": bond.alive_links,
            "numTotalLinks": bond.total_links,
            "failoverInterval": bond.failover_interval_ms,
            "upDelay": bond.up_delay_ms,
            "downDelay": bond.down_delay_ms,
            "packetsPerLink": bond.packets_per_link,
        }
    return shown


def _path(path: PathStatus, now_ms: int) -> JsonObject:
    shown: JsonObject = {
        "address": str(path.address),
        "lastSend": path.last_send_ms,
        "lastReceive": path.last_receive_ms,
        "trustedPathId": path.trusted_id,
        "active": True,
        "expired": False,
        "preferred": path.preferred,
        "localSocket": path.socket,
        "localPort": 0,
    }
    bond = path.bond
    if bond is not None:
        shown |= {
            "ifname": bond.device,
            "localPort": bond.local_port,
            "latencyMean": bond.latency_mean_ms,
            "latencyVariance": bond.latency_deviation_ms,
            "packetLossRatio": 0.0,  # as in the original, which does not measure them either
            "packetErrorRatio": 0.0,
            "assignedFlowCount": bond.flows,
            "lastInAge": now_ms - path.last_receive_ms,
            "lastOutAge": now_ms - path.last_send_ms,
            "bonded": int(bond.bonded),
            "eligible": int(bond.eligible),
            "givenLinkSpeed": bond.capacity,
            "relativeQuality": bond.quality,
        }
    return shown


# --- moons -----------------------------------------------------------------------------------


def moon(status: MoonStatus) -> JsonObject:
    world = status.world
    if world is None:
        return {
            "id": f"{status.id:016x}",
            "timestamp": 0,
            "signature": None,
            "updatesMustBeSignedBy": None,
            "roots": [],
            "waiting": True,
        }
    return {
        "id": f"{status.id:016x}",
        "timestamp": world.timestamp,
        "signature": world.signature.hex(),
        "updatesMustBeSignedBy": world.update_key.hex(),
        "roots": [
            {
                "identity": root.identity.to_text(),
                "stableEndpoints": [str(endpoint) for endpoint in root.endpoints],
            }
            for root in world.roots
        ],
        "waiting": False,
    }
