"""Whole nodes with TAPs, and a controller that says yes, on the simulator."""

from tests.sim import Host
from zt.protocol import netconf
from zt.protocol.address import Mac, NetworkId
from zt.protocol.credentials import Capability, Com, Tag
from zt.protocol.netconf import BROADCAST, NetworkConfig
from zt.protocol.packet import ErrorCode, Verb
from zt.vl1.actions import NetworkChanged

ACCEPT = b"\1\0"
WINDOW_MS = 1800000


class Member(Host):
    """A host on networks."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.changes = 0

    def start(self):
        super().start()
        # Hosts of tests without networks use this verb for their own ends.
        handler = self.node.vl2._inbound._on_multicast_frame
        self.node.vl1.register(Verb.MULTICAST_FRAME, handler)

    @property
    def tap(self):
        """Frames that came out of the TAPs."""
        return [frame for _, frame in self.frames]

    def join(self, nwid):
        self.node.join(nwid, self.net.now_ms)
        self.settle()

    def _carry_out(self, action):
        self.changes += isinstance(action, NetworkChanged)
        super()._carry_out(action)

    def write(self, nwid, frame):
        """A frame that the operating system sends through the TAP."""
        self.switch.frame(nwid, frame, self.net.now_ms)
        self.settle()

    def listen(self, nwid, *groups):
        self.node.groups_changed(nwid, set(groups), self.net.now_ms)
        self.settle()

    def got(self, frame):
        return frame in self.tap


class Controller(Member):
    """Answers every request at once."""

    def start(self):
        super().start()
        self.members = set()
        self.refused = set()
        self.options = {}
        self.special = {}

    def _configure(self, request):
        member = request.identity
        if member.address in self.refused:
            self.node.send_config_error(
                member.address, request.nwid, request.request_id,
                ErrorCode.NETWORK_ACCESS_DENIED, b"", self.net.now_ms,
            )  # fmt: skip
            return
        self.members.add(member.address)
        data = self.config(request.nwid, member).encode()
        update = self.random.getrandbits(64) | 1
        chunks = netconf.split(request.nwid, data, update, self.identity)
        self.node.send_config(
            member.address,
            request.nwid,
            [chunk.encode() for chunk in chunks],
            request.request_id,
            self.net.now_ms,
        )

    def config(self, nwid, member):
        now_ms = self.net.now_ms
        options = {
            "flags": BROADCAST,
            "multicast_limit": 32,
            "rules": ACCEPT,
            **self.options,
            **self.special.get(member.address, {}),
        }
        tags = tuple(
            Tag(nwid, now_ms, id, value, member.address).sign(self.identity)
            for id, value in options.pop("tags", {}).items()
        )
        capabilities = tuple(
            Capability(nwid, now_ms, id, rules).grant(self.identity, member.address)
            for id, rules in options.pop("capabilities", {}).items()
        )
        com = Com.issue(nwid, member, now_ms, WINDOW_MS).sign(self.identity)
        return NetworkConfig(
            nwid=nwid,
            issued_to=member.address,
            timestamp=now_ms,
            window=WINDOW_MS,
            revision=1,
            com=com,
            tags=tags,
            capabilities=capabilities,
            **options,
        )


def make_world(net, count=3, **options):
    net.add_roots()
    controller = add(net, Controller)
    controller.options = options
    nwid = NetworkId(controller.address << 24 | 0xC0FFEE)
    members = [add(net, Member) for _ in range(count)]
    for member in members:
        member.join(nwid)
    net.run_until(lambda: all(m.node.network(nwid).config for m in members), 10_000)
    net.run(2_000)
    return nwid, controller, *members


def add(net, kind):
    host = net.add_host()
    new = kind(net, host.identity, list(host.sockets.values()))
    net.hosts[net.hosts.index(host)] = new
    net._public[next(iter(host.sockets.values())).ip] = new
    host.down = True
    new.start()
    return new


def mac(nwid, host):
    return Mac.of(host.address, nwid)


def unicast(nwid, source, dest, payload=b"E" + bytes(40), ethertype=b"\x08\x00"):
    return mac(nwid, dest).encode() + mac(nwid, source).encode() + ethertype + payload


def talk(net, nwid, source, dest, number):
    frame = unicast(nwid, source, dest, b"E" + bytes(40) + number.to_bytes(4))
    source.write(nwid, frame)
    net.run(700)
    return dest.got(frame)
