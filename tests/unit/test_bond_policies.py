"""The state of a bond under a clock driven by hand: every policy, path states, measurements.

Chapter 03, section 9. Paths are objects without a node behind them; `Rig` plays their answers.
"""

from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import require_cases
from zt.protocol.inet import InetAddress
from zt.protocol.messages.node import QOS_MAX_RECORDS
from zt.service.bondconf import parse_bonding
from zt.vl1.bond import backup
from zt.vl1.bond.bond import QOS_GATE_LIMIT, Bond
from zt.vl1.bond.bonds import FLOW_IDLE_MS
from zt.vl1.bond.measure import (
    MIN_SAMPLES,
    PENDING_LIMIT,
    WINDOW,
    Latency,
    Pending,
    one_way_ms,
    relative_qualities,
)
from zt.vl1.bond.member import TRIAL_MS, Member
from zt.vl1.bond.settings import (
    ALWAYS,
    BETTER,
    FAILURE,
    OPTIMIZE,
    QUALITY_DEFAULTS,
    Link,
    Policy,
)
from zt.vl1.path import Path
from zt.vl1.peer import PeerPath

START_MS = 1_700_000_000_000
F_MS = 5_000
STEP_MS = 50


class Rig:
    """A bond, its paths, and a clock. Paths in `dead` answer nothing; the others do at once."""

    def __init__(self, policy: Policy) -> None:
        self.now_ms = START_MS
        self.bond = Bond(policy, self.now_ms)
        self.dead: set[PeerPath] = set()
        self.deaf: set[PeerPath] = set()  # what we send is lost, what the peer sends arrives

    def add(self, device: str, *, ipv6: bool = False) -> PeerPath:
        number = len(self.bond.members) + 1
        address = InetAddress(
            bytes(15) + bytes((number,)) if ipv6 else bytes((31, 0, 0, number)), 9993
        )
        known = PeerPath(Path(number, address, handle=number), self.now_ms)
        link = self.bond.policy.link(device)
        assert link is not None
        self.bond.nominate(known, link, self.now_ms)
        return known

    def run(self, duration_ms: int) -> None:
        end_ms = self.now_ms + duration_ms
        while self.now_ms < end_ms:
            self.now_ms += STEP_MS
            for member in self.bond.members:
                known = member.known
                if self.now_ms - known.probe_ms >= self.bond.probe_interval_ms(member):
                    known.probe_ms = self.now_ms
                    known.probes += 1
                    if known not in self.dead and known not in self.deaf:
                        known.probes, known.last_in_ms, known.proof_ms = 0, self.now_ms, self.now_ms
                if known in self.deaf:
                    known.last_in_ms = self.now_ms
            if self.now_ms >= self.bond.due_ms:
                self.bond.update(self.now_ms)

    def until(self, condition: object, limit_ms: int) -> int:
        """ms until `condition()` holds."""
        begun_ms = self.now_ms
        while not condition():  # type: ignore[operator]
            assert self.now_ms - begun_ms < limit_ms
            self.run(STEP_MS)
        return self.now_ms - begun_ms

    @property
    def active(self) -> PeerPath | None:
        active = self.bond.backup.active
        return active.known if active else None

    def member(self, known: PeerPath) -> Member:
        member = self.bond.member_on(known.path)
        assert member is not None
        return member

    @property
    def bonded(self) -> list[PeerPath]:
        return [member.known for member in self.bond.bonded]


def policy(base: str, **options: object) -> Policy:
    return Policy("mine", base, **options)  # type: ignore[arg-type]


# ---- path states (9.3) ----


@pytest.mark.parametrize("failover_ms", [500, 1_000, 5_000, 20_000])
def test_active_backup_switches_within_the_failover_interval(failover_ms: int) -> None:
    rig = Rig(policy("active-backup", failover_interval_ms=failover_ms))
    one, two = rig.add("eth0"), rig.add("eth1")
    rig.run(20_000)
    assert rig.active is one
    rig.dead.add(one)
    took_ms = rig.until(lambda: rig.active is two, 2 * failover_ms)
    assert failover_ms // 3 < took_ms <= failover_ms + rig.bond.run_ms
    assert rig.bond.route is two.path


def test_a_path_that_carries_one_direction_only_is_dead() -> None:
    rig = Rig(policy("active-backup"))
    one, two = rig.add("eth0"), rig.add("eth1")
    rig.run(20_000)
    rig.deaf.add(one)
    assert rig.until(lambda: rig.active is two, 3 * F_MS) > F_MS


def test_two_lost_questions_are_no_failure_while_data_comes_in() -> None:
    rig = Rig(policy("active-backup"))
    one, _ = rig.add("eth0"), rig.add("eth1")
    rig.run(20_000)
    rig.deaf.add(one)
    rig.run(F_MS)
    rig.deaf.clear()
    rig.run(F_MS)
    assert rig.active is one


def test_up_delay_is_waited_for_but_not_by_a_new_path() -> None:
    rig = Rig(policy("balance-xor", up_delay_ms=8_000))
    one, two = rig.add("eth0"), rig.add("eth1")
    rig.run(1_000)
    assert rig.bonded == [one, two]  # on trial
    rig.run(TRIAL_MS)
    rig.dead.add(two)
    rig.until(lambda: rig.bonded == [one], 2 * F_MS)
    rig.dead.clear()
    rig.until(lambda: rig.member(two).alive, 2 * F_MS)
    waited_ms = rig.until(lambda: rig.bonded == [one, two], 20_000)
    assert 8_000 - 2 * rig.bond.run_ms <= waited_ms <= 8_000 + 2 * rig.bond.run_ms


def test_down_delay_keeps_a_silent_path() -> None:
    rig = Rig(policy("balance-xor", down_delay_ms=4_000))
    one, two = rig.add("eth0"), rig.add("eth1")
    rig.run(20_000)
    rig.dead.add(two)
    rig.until(lambda: not rig.member(two).alive, 2 * F_MS)
    assert rig.bonded == [one, two]
    waited_ms = rig.until(lambda: rig.bonded == [one], 10_000)
    assert abs(waited_ms - 4_000) <= 2 * rig.bond.run_ms


def test_a_short_silence_within_the_down_delay_needs_no_up_delay() -> None:
    rig = Rig(policy("balance-xor", down_delay_ms=60_000, up_delay_ms=60_000))
    one, two = rig.add("eth0"), rig.add("eth1")
    rig.run(20_000)
    rig.dead.add(two)
    rig.until(lambda: not rig.member(two).alive, 2 * F_MS)
    rig.dead.clear()
    rig.run(2 * F_MS)
    assert rig.bonded == [one, two]


def test_nothing_left_means_no_route() -> None:
    rig = Rig(policy("active-backup"))
    one, two = rig.add("eth0"), rig.add("eth1")
    rig.run(20_000)
    rig.dead |= {one, two}
    rig.run(2 * F_MS)
    assert (rig.active, rig.bond.route, rig.bonded) == (None, None, [])
    rig.dead.clear()
    rig.run(2 * F_MS)
    assert rig.active is one


def test_a_removed_path_leaves_at_once_and_its_slot_is_used_again() -> None:
    rig = Rig(policy("active-backup"))
    one, two = rig.add("eth0"), rig.add("eth1")
    rig.run(1_000)
    rig.bond.withdraw(one.path)
    assert rig.bond.route is None
    rig.bond.update(rig.now_ms)
    assert rig.bond.route is two.path
    assert rig.bond.paths() == [None, two.path.handle]
    again = PeerPath(Path(9, one.path.address, handle=99), rig.now_ms)
    assert rig.bond.nominate(again, Link("eth0", primary=True), rig.now_ms).slot == 0
    assert rig.bond.paths() == [99, two.path.handle]


# ---- active-backup (9.5) ----


def test_unlisted_links_are_primaries_and_there_is_no_way_back() -> None:
    rig = Rig(policy("active-backup"))
    one, two = rig.add("eth0"), rig.add("eth1")
    rig.run(20_000)
    rig.dead.add(one)
    rig.run(2 * F_MS)
    rig.dead.clear()
    rig.run(60_000)
    assert rig.active is two


@pytest.mark.parametrize(
    ("reselect", "returns"), [(ALWAYS, True), (BETTER, True), (FAILURE, False)]
)
def test_the_primary_comes_back(reselect: int, returns: bool) -> None:
    links = (Link("eth0", primary=True), Link("eth1"))
    rig = Rig(policy("active-backup", links=links, reselect=reselect))
    spare, primary = rig.add("eth1"), rig.add("eth0")
    rig.run(20_000)
    assert rig.active is primary  # though the spare came first
    rig.dead.add(primary)
    rig.run(2 * F_MS)
    assert rig.active is spare
    rig.dead.clear()
    rig.run(2 * F_MS)
    assert rig.active is (primary if returns else spare)


def test_only_listed_links_take_part() -> None:
    chosen = policy("active-backup", links=(Link("eth1"), Link("eth2", enabled=False)))
    assert chosen.link("eth0") is None
    assert chosen.link("eth2") is None
    assert chosen.link("eth1") == Link("eth1")
    assert policy("broadcast").link("eth0") == Link("eth0", primary=True)


def test_failover_follows_the_configured_link() -> None:
    links = (
        Link("eth0", primary=True, failover_to="eth3"),
        Link("eth1"),
        Link("eth2"),
        Link("eth3"),
    )
    rig = Rig(policy("active-backup", links=links))
    paths = [rig.add(f"eth{i}") for i in range(4)]
    rig.run(20_000)
    assert rig.active is paths[0]
    rig.dead.add(paths[0])
    rig.run(2 * F_MS)
    assert rig.active is paths[3]


def test_links_that_fail_over_to_each_other() -> None:
    links = (Link("a", primary=True, failover_to="b"), Link("b", primary=True, failover_to="a"))
    rig = Rig(policy("active-backup", links=links))
    one, two = rig.add("a"), rig.add("b")
    rig.run(20_000)
    rig.dead.add(one)
    rig.run(2 * F_MS)
    assert rig.active is two


def test_rotation_goes_through_all_paths() -> None:
    rig = Rig(policy("active-backup"))
    paths = [rig.add(f"eth{i}") for i in range(3)]
    rig.run(1_000)
    seen = [rig.active]
    for _ in range(3):
        assert rig.bond.rotate(rig.now_ms)
        rig.run(1_000)
        seen.append(rig.active)
    assert seen == [*paths, paths[0]]
    assert not Rig(policy("balance-rr")).bond.rotate(START_MS)


def test_optimize_moves_to_a_clearly_better_path_after_a_while() -> None:
    rig = Rig(policy("active-backup", reselect=OPTIMIZE))
    slow, fast = rig.add("eth0"), rig.add("eth1")
    for _ in range(8):
        rig.member(slow).latency.add(200)
        rig.member(fast).latency.add(10)
    rig.run(10_000)
    assert rig.active is slow
    rig.run(20_000)
    assert rig.active is fast
    rig.run(60_000)
    assert rig.active is fast


def test_the_preferred_family_of_a_link() -> None:
    links = (Link("eth0", primary=True, ip_preference=64),)
    rig = Rig(policy("active-backup", links=links))
    ipv4, ipv6 = rig.add("eth0"), rig.add("eth0", ipv6=True)
    rig.run(20_000)
    assert rig.active is ipv6
    rig.dead.add(ipv6)
    rig.run(2 * F_MS)
    assert rig.active is ipv4


# ---- balance policies ----


@pytest.mark.parametrize("base", ["balance-rr", "balance-xor", "balance-aware"])
def test_all_eligible_paths_share_the_load(base: str) -> None:
    rig = Rig(policy(base))
    one, two = rig.add("eth0"), rig.add("eth1")
    rig.run(1_000)
    assert rig.bonded == [one, two]
    rig.dead.add(one)
    rig.until(lambda: rig.bonded == [two], F_MS + 1_000)
    assert rig.bond.route is two.path
    rig.dead.clear()
    rig.until(lambda: rig.bonded == [one, two], 2 * F_MS)
    assert rig.bond.route is two.path  # no reason to change it


def test_the_other_end_need_not_report() -> None:
    rig = Rig(policy("balance-xor"))
    both = [rig.add("eth0"), rig.add("eth1")]
    rig.run(60_000)
    assert rig.bonded == both


def test_spares_join_when_no_primary_works() -> None:
    rig = Rig(policy("balance-xor", links=(Link("eth0", primary=True), Link("eth1"), Link("eth2"))))
    primary, *spares = [rig.add(f"eth{i}") for i in range(3)]
    rig.run(20_000)
    assert rig.bonded == [primary]
    rig.dead.add(primary)
    rig.run(2 * F_MS)
    assert rig.bonded == spares
    rig.dead.clear()
    rig.run(2 * F_MS)
    assert rig.bonded == [primary]


@pytest.mark.parametrize(
    ("preference", "expected"), [(0, [4, 6]), (4, [4]), (6, [6]), (46, [4]), (64, [6])]
)
def test_ip_preference(preference: int, expected: list[int]) -> None:
    links = (Link("eth0", primary=True, ip_preference=preference),)
    rig = Rig(policy("balance-xor", links=links))
    rig.add("eth0")
    rig.add("eth0", ipv6=True)
    rig.run(1_000)
    assert [member.version for member in rig.bond.bonded] == expected


def test_broadcast_uses_everything_that_is_alive() -> None:
    rig = Rig(policy("broadcast", links=(Link("eth0", primary=True), Link("eth1"))))
    one, two = rig.add("eth0"), rig.add("eth1")
    rig.run(1_000)
    assert rig.bond.copies() == [one.path, two.path]
    assert rig.bond.route is None  # other packets go as without a bond
    rig.dead.add(one)
    rig.run(2 * F_MS)
    assert rig.bond.copies() == [two.path]


def test_equal_shares_without_capacities() -> None:
    """Q4: the original makes nothing of them."""
    rig = Rig(policy("balance-aware"))
    for i in range(4):
        rig.add(f"eth{i}")
    rig.run(1_000)
    assert rig.bond.shares() == [(slot, 1 << 14) for slot in range(4)]


def test_shares_by_capacity() -> None:
    links = (Link("a", primary=True, capacity=1000), Link("b", primary=True, capacity=3000))
    rig = Rig(policy("balance-aware", links=links))
    rig.add("a")
    rig.add("b")
    rig.run(1_000)
    assert rig.bond.shares() == [(0, 1 << 14), (1, 3 << 14)]


def test_a_path_beyond_its_limits_is_avoided() -> None:
    rig = Rig(policy("balance-aware"))
    slow, fast = rig.add("eth0"), rig.add("eth1")
    for _ in range(8):
        rig.member(slow).latency.add(600)
        rig.member(fast).latency.add(10)
    rig.run(11_000)
    assert [share > 0 for _, share in rig.bond.shares()] == [False, True]
    rig.member(slow).flows = 3
    assert rig.bond.crowded() is rig.member(slow)
    for _ in range(64):
        rig.member(slow).latency.add(10)
    rig.run(11_000)
    assert [share > 0 for _, share in rig.bond.shares()] == [True, True]
    assert rig.bond.crowded() is None


def test_if_all_are_to_be_avoided_the_best_takes_everything() -> None:
    rig = Rig(policy("balance-aware"))
    worse, bad = rig.add("eth0"), rig.add("eth1")
    for _ in range(8):
        rig.member(worse).latency.add(900)
        rig.member(bad).latency.add(600)
    rig.run(11_000)
    assert [share > 0 for _, share in rig.bond.shares()] == [False, True]
    rig.member(worse).flows = 3
    assert rig.bond.crowded() is None


# ---- measurements (9.4) ----


def test_statistics_need_four_samples_and_forget_after_sixty_four() -> None:
    latency = Latency()
    for value in (10, 20, 30):
        latency.add(value)
    assert (latency.mean_ms, latency.deviation_ms) == (0, 0)
    latency.add(20)
    assert latency.mean_ms == 20
    assert latency.deviation_ms == pytest.approx(50**0.5)
    for _ in range(64):
        latency.add(7)
    assert (latency.mean_ms, latency.deviation_ms) == (7, 0)


def test_pending_samples_are_bounded_and_expire() -> None:
    pending = Pending()
    pending.add((packet_id, START_MS + packet_id) for packet_id in range(1_000))
    assert len(pending) == 420
    pending.expire(START_MS + 100)
    assert len(pending) == 320
    assert pending.take(99) is None
    assert pending.take(100) == START_MS + 100
    assert pending.take(100) is None
    assert [packet_id for packet_id, _ in pending.take_first(2)] == [101, 102]


def test_one_way_latency_of_a_report() -> None:
    assert one_way_ms(START_MS, 30, START_MS + 50) == 10
    assert one_way_ms(START_MS, 60, START_MS + 50) is None  # held for longer than it was away


def test_relative_quality() -> None:
    def of(*values: float) -> Latency:
        latency = Latency()
        for value in values:
            latency.add(value)
        return latency

    good, bad = of(*[10] * 8), of(*[400] * 8)
    better, worse = relative_qualities([good, bad], [0, 0], QUALITY_DEFAULTS)
    assert better > worse > 0
    assert better + worse == pytest.approx(1)
    assert relative_qualities([good, good], [1000, 0], QUALITY_DEFAULTS) == [0.5, 0.5]
    assert relative_qualities([], [], QUALITY_DEFAULTS) == []


def test_recorded_constants(vectors: Callable[[str], Any]) -> None:
    """The timers of the original's bonds, as observed; those that only it has are left out."""
    recorded = {
        entry["id"]: entry["value"]
        for entry in vectors("behaviour_timers.json")["constants"]
        if entry["group"] == "bonding"
    }
    require_cases(recorded, "behaviour_timers.json, of bonds")
    rig = Rig(Policy("active-backup", "active-backup"))
    rig.add("eth0")
    bond, quality = rig.bond, rig.bond.policy.quality
    shortest, _ = parse_bonding(
        {"policies": {"x": {"basePolicy": "broadcast", "failoverInterval": 1}}}
    )
    ours = {
        "bond_failover": bond.policy.failover_interval_ms,
        "bond_failover_min": shortest.policies["x"].failover_interval_ms,
        "bond_monitor": bond.probe_interval_ms(bond.members[0]),
        "bond_quality": bond.qos_ms,
        "bond_qos": bond.qos_ms,
        "bond_qos_records": QOS_MAX_RECORDS,
        "bond_qos_pending": PENDING_LIMIT,
        "bond_qos_timeout": bond.sample_lifetime_ms,
        "bond_window": WINDOW,
        "bond_min_samples": MIN_SAMPLES,
        "bond_trial": TRIAL_MS,
        "bond_flow_expiry": FLOW_IDLE_MS,
        "bond_packets_per_link": bond.policy.packets_per_link,
        "bond_lat_max": quality[0],
        "bond_pdv_max": quality[1],
        "bond_plr_max": quality[2],
        "bond_per_max": quality[3],
        "bond_weights": quality[4],
        "bond_handicap_preferred": backup.PREFERRED_SCORE,
        "bond_handicap_primary": backup.PRIMARY_SCORE,
        "bond_optimize_threshold": backup.OPTIMIZE_GAIN,
        "bond_qos_gate_limit": QOS_GATE_LIMIT,
    }
    known = ours.keys() & recorded.keys()
    assert {name: ours[name] for name in known} == {name: recorded[name] for name in known}
    if not {"bond_qos_gate_gap", "bond_qos_gate_limit"} <= recorded.keys():
        return
    assert [
        bond.qos_gate.take(START_MS + n * recorded["bond_qos_gate_gap"]) for n in range(200)
    ] == [n < recorded["bond_qos_gate_limit"] for n in range(200)]
    late_ms = START_MS + 200 * recorded["bond_qos_gate_gap"] + 1
    assert bond.qos_gate.take(late_ms)
