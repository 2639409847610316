"""All bonds of a node: when they begin and end, their timers, questions and reports."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zt._fast.bond import bond_clear, bond_flows, bond_samples, bond_set
from zt._fast.tables import TablesFull
from zt.protocol.address import Address
from zt.protocol.inet import InetAddress
from zt.protocol.messages import QosMeasurement, QosRecord
from zt.protocol.messages.node import QOS_MAX_RECORDS
from zt.protocol.packet import MAX_MTU, Verb
from zt.vl1.actions import BOND, Event
from zt.vl1.bond.bond import Bond
from zt.vl1.bond.measure import HOLDING_LIMIT, one_way_ms
from zt.vl1.bond.member import Member
from zt.vl1.bond.settings import ACTIVE_BACKUP
from zt.vl1.bond.status import BondPathStatus, BondStatus
from zt.vl1.packet import DROPPED, Packet, Result
from zt.vl1.path import Path
from zt.vl1.peer import Peer, PeerPath
from zt.vl1.status import LocalSocket
from zt.vl1.waiting import Outgoing

if TYPE_CHECKING:
    from zt.vl1.core import Vl1

NEVER_MS = 1 << 62
FLOW_IDLE_MS = 243_000
REPORT_SPACING_MS = 1_000
SMALLEST_MTU = 68


class Bonds:
    """A bond belongs to this node alone: nothing is negotiated, and the other end need not bond.

    Beside the original the balance policies do not need reports from the other end: a path that
    answers ECHO is eligible. PATH_NEGOTIATION_REQUEST is ignored, as the original does in practice.
    """

    def __init__(self, vl1: Vl1) -> None:
        self._vl1 = vl1
        self._bonded: dict[Address, Peer] = {}
        self._due_ms = NEVER_MS
        vl1.register(Verb.QOS_MEASUREMENT, self._on_report)

    @property
    def in_use(self) -> bool:
        return self._vl1.settings.bonding.in_use

    def configured(self, now_ms: int) -> None:
        """Other settings: bonds begin anew with the next look at their peers."""
        for peer in list(self._bonded.values()):
            self.end(peer)
            self._vl1.contact.reroute(peer, now_ms)

    # Begin and end

    def begin(self, peer: Peer, now_ms: int) -> None:
        """Bonds a peer in use if that is configured and a path of it is alive (9.1)."""
        policy = self._vl1.settings.bonding.policy_for(peer.address)
        if policy is None or peer.bond is not None or self._vl1.is_upstream(peer.address):
            return
        if not any(known.alive(now_ms) for known in peer.paths):
            return
        peer.bond = Bond(policy, now_ms)
        self._bonded[peer.address] = peer
        self._due_ms = min(self._due_ms, now_ms)
        for known in peer.paths:
            self.path_added(peer, known, now_ms)
        self._look(peer, peer.bond, now_ms)

    def end(self, peer: Peer) -> None:
        if self._bonded.pop(peer.address, None) is not None:
            peer.bond = None
            bond_clear(self._vl1.tables, peer.address)

    def path_added(self, peer: Peer, known: PeerPath, now_ms: int) -> None:
        if peer.bond is None:
            return
        link = peer.bond.policy.link(self._socket(known.path).device)
        if link is not None:
            peer.bond.nominate(known, link, now_ms)
            if link.mtu:
                self._limit(known.path, link.mtu)
            peer.bond.due_ms = now_ms
            self._due_ms = min(self._due_ms, now_ms)

    def path_removed(self, peer: Peer, known: PeerPath) -> None:
        """A peer lost a path; a bond ends with the last one. If others are left the bond chooses
        among them when it is due."""
        if peer.bond is not None:
            peer.bond.withdraw(known.path)
            if not peer.paths:
                self.end(peer)

    def _socket(self, path: Path) -> LocalSocket:
        sockets = self._vl1.nat.sockets
        unknown = LocalSocket(path.socket, InetAddress())
        return next((socket for socket in sockets if socket.socket == path.socket), unknown)

    # Time

    def deadline(self) -> int:
        return self._due_ms

    def run(self, now_ms: int) -> None:
        """Looks after the bonds that are due."""
        if now_ms < self._due_ms:
            return
        for peer in list(self._bonded.values()):
            bond = peer.bond
            if bond is None or bond.due_ms > now_ms:
                continue
            if self._vl1.is_upstream(peer.address) or not peer.active(now_ms):
                self.end(peer)
            else:
                self._look(peer, bond, now_ms)
            self._vl1.contact.reroute(peer, now_ms)
        due = (peer.bond.due_ms for peer in self._bonded.values() if peer.bond is not None)
        self._due_ms = min(due, default=NEVER_MS)

    def _look(self, peer: Peer, bond: Bond, now_ms: int) -> None:
        vl1 = self._vl1
        for member in bond.members:
            known = member.known
            known.refresh(vl1.tables)
            due = now_ms - known.probe_ms >= bond.probe_interval_ms(member)
            if due and member.allowed:
                vl1.contact.probe(peer, known, now_ms)
        self._exchange(peer, bond, now_ms)
        self._decide(peer, bond, now_ms)
        crowded = bond.crowded()
        if crowded is not None:
            self._count_flows(peer, bond, now_ms, away=crowded.slot)

    def _decide(self, peer: Peer, bond: Bond, now_ms: int) -> None:
        before = bond.backup.active
        bond.update(now_ms)
        self._announce(peer, bond, before)
        self._tell(peer, bond)

    def _announce(self, peer: Peer, bond: Bond, before: Member | None) -> None:
        active = bond.backup.active
        if active is before or bond.policy.code != ACTIVE_BACKUP:
            return
        way = f"uses {active.known.path.address}" if active else "has no path left"
        device = f" on {active.link.name}" if active and active.link.name else ""
        self._vl1.emit(Event(BOND, f"{peer.address}: {way}{device}"))

    def _tell(self, peer: Peer, bond: Bond) -> None:
        """Tells the data plane, if there is news."""
        paths, shares = bond.paths(), bond.shares()
        if bond.synced == (paths, shares):
            return
        bond.synced = (paths, shares)
        policy = bond.policy
        try:
            bond_set(
                self._vl1.tables,
                peer.address,
                policy.code,
                paths,
                shares,
                packets=policy.packets_per_link,
            )
        except TablesFull:
            bond_clear(self._vl1.tables, peer.address)  # then everything takes the route

    def _count_flows(self, peer: Peer, bond: Bond, now_ms: int, away: int = -1) -> None:
        counts = bond_flows(self._vl1.tables, peer.address, now_ms, idle_ms=FLOW_IDLE_MS, away=away)
        for member in bond.members:
            member.flows = counts[member.slot] if member.slot < len(counts) else 0

    # Reports (9.4)

    def _exchange(self, peer: Peer, bond: Bond, now_ms: int) -> None:
        """Takes over what the data plane remembered, and reports what came from the peer."""
        samples = dict(enumerate(bond_samples(self._vl1.tables, peer.address)))
        oldest_ms = now_ms - bond.sample_lifetime_ms
        for member in bond.members:
            sent, received = samples.get(member.slot, ([], []))
            member.sent.expire(oldest_ms)
            member.received.expire(oldest_ms)
            member.sent.add(sent)
            member.received.add(received)
            since_ms = now_ms - member.report_ms
            full = len(member.received) >= QOS_MAX_RECORDS and since_ms >= REPORT_SPACING_MS
            if full or (len(member.received) and since_ms >= bond.qos_ms):
                self._report(peer, member, now_ms)
                self._count_flows(peer, bond, now_ms)

    def _report(self, peer: Peer, member: Member, now_ms: int) -> None:
        member.report_ms = now_ms
        records = tuple(
            QosRecord(packet_id, min(max(now_ms - time_ms, 0), HOLDING_LIMIT - 1))
            for packet_id, time_ms in member.received.take_first(QOS_MAX_RECORDS)
        )
        payload = QosMeasurement(records).encode()
        packet = Outgoing(Verb.QOS_MEASUREMENT, payload)
        self._vl1.outbound.send_on(member.known.path, peer, packet, now_ms)

    def _on_report(self, packet: Packet, now_ms: int) -> Result:
        bond = self._vl1.peers[packet.source].bond
        member = bond.member_on(packet.path) if bond is not None else None
        if bond is None or member is None or not bond.qos_gate.take(now_ms):
            return DROPPED
        for packet_id, holding_ms in QosMeasurement.decode(packet.payload).records:
            sent_ms = member.sent.take(packet_id)
            latency_ms = None if sent_ms is None else one_way_ms(sent_ms, holding_ms, now_ms)
            if latency_ms is not None:
                member.latency.add(latency_ms)
        return DROPPED  # no sign of life for anything but the bond

    # Commands and views (9.6)

    def rotate(self, address: Address, now_ms: int) -> bool:
        """Another path of an active-backup bond becomes active; false: no such bond."""
        peer = self._bonded.get(address)
        if peer is None or peer.bond is None:
            return False
        before = peer.bond.backup.active
        if not peer.bond.rotate(now_ms):
            return False
        self._announce(peer, peer.bond, before)
        self._tell(peer, peer.bond)
        self._vl1.contact.reroute(peer, now_ms)
        return True

    def set_mtu(self, mtu: int, device: str, ip: bytes) -> bool:
        """Limits the datagrams (bytes) on the paths over an interface to an IP, in all bonds;
        false: there are none."""
        found = [
            member.known.path
            for peer in self._bonded.values()
            for member in (peer.bond.members if peer.bond else ())
            if member.link.name == device and member.known.path.address.ip == ip
        ]
        for path in found:
            self._limit(path, mtu)
        return bool(found)

    def _limit(self, path: Path, mtu: int) -> None:
        path.bond_mtu = path.mtu = min(max(mtu, SMALLEST_MTU), MAX_MTU)
        self._vl1.enter_path(path)

    def status(self, peer: Peer, now_ms: int) -> BondStatus | None:
        bond = peer.bond
        if bond is None:
            return None
        self._count_flows(peer, bond, now_ms)
        policy = bond.policy
        return BondStatus(
            policy=policy.code,
            policy_name=policy.base,
            alive_links=len({m.link.name for m in bond.members if m.alive}),
            total_links=len({m.link.name for m in bond.members}),
            failover_interval_ms=policy.failover_interval_ms,
            up_delay_ms=policy.up_delay_ms,
            down_delay_ms=policy.down_delay_ms,
            packets_per_link=policy.packets_per_link,
        )

    def path_status(self, peer: Peer, path: Path) -> BondPathStatus | None:
        if peer.bond is None:
            return None
        socket = self._socket(path)
        member = peer.bond.member_on(path)
        if member is None:  # of an interface that takes no part
            return BondPathStatus(
                socket.device, socket.address.port, 0.0, 0.0, 0.0, 0, 0, False, False
            )
        return BondPathStatus(
            device=member.link.name,
            local_port=socket.address.port,
            latency_mean_ms=member.latency.mean_ms,
            latency_deviation_ms=member.latency.deviation_ms,
            quality=member.quality,
            flows=member.flows,
            capacity=member.link.capacity,
            bonded=member.bonded,
            eligible=member.eligible,
        )
