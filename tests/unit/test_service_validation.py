"""The pace of strangers' checks: all the time there is, or a small part of a core."""

import asyncio

import pytest

from zt.protocol.address import Address
from zt.protocol.identity import Identity
from zt.service import validation
from zt.service.validation import FLOOD_SHARE, PAUSE_LIMIT_S, SHARE, Pace, Validator, read_stat

CORES = 2


class Machine:
    """Time, and how busy the rest of a machine is."""

    def __init__(self, busy: float) -> None:
        self.busy = busy
        self.now = 100.0
        self.worked = 0.0
        self.known = True
        self.pace = Pace(lambda: (self.worked, CORES * self.now) if self.known else None, self.time)

    def time(self) -> float:
        return self.now

    def run(self, seconds: float, own: float = 0.0) -> None:
        self.now += seconds
        self.worked += self.busy * CORES * seconds + own

    def share(self, seconds: float, cost: float = 0.002, good: bool = True) -> float:
        """Of a core, that endless checks get in that time."""
        begin, spent = self.now, 0.0
        while self.now - begin < seconds:
            self.run(self.pace.pause())
            self.run(cost, own=cost)
            self.pace.spent(cost, good)
            spent += cost
        return spent / (self.now - begin)


@pytest.mark.parametrize(("busy", "expected"), [(0.0, 1.0), (0.45, 1.0), (0.9, SHARE)])
def test_checks_take_what_the_rest_leaves(busy: float, expected: float) -> None:
    machine = Machine(busy)
    machine.share(1.0)
    assert machine.share(10.0) == pytest.approx(expected, rel=0.05)


def test_the_pace_follows_the_load() -> None:
    machine = Machine(0.9)
    machine.share(2.0)
    machine.busy = 0.1
    machine.share(2.0)
    assert machine.share(5.0) == pytest.approx(1.0)
    machine.busy = 0.9
    machine.share(2.0)
    assert machine.share(5.0) == pytest.approx(SHARE, rel=0.05)


def test_a_flood_gets_less_than_a_crowd() -> None:
    machine = Machine(0.9)
    machine.share(5.0, good=False)
    assert machine.share(10.0, good=False) == pytest.approx(FLOOD_SHARE, rel=0.05)
    machine.share(1.0)
    assert machine.share(5.0) == pytest.approx(SHARE, rel=0.05)
    machine.busy = 0.1
    machine.share(2.0, good=False)
    assert machine.share(5.0, good=False) == pytest.approx(1.0)


def test_a_long_check_is_no_long_pause() -> None:
    machine = Machine(0.9)
    machine.share(2.0)
    machine.run(60, own=60)
    machine.pace.spent(60.0, True)
    assert machine.pace.pause() <= PAUSE_LIMIT_S


def test_where_nobody_knows_the_load_nothing_waits() -> None:
    machine = Machine(0.9)
    machine.known = False
    machine.share(2.0)
    assert machine.share(2.0) == pytest.approx(1.0)


def test_the_kernel_says_how_busy_it_is() -> None:
    first, second = read_stat(), read_stat()
    assert first is not None
    assert second is not None
    assert 0 < first[0] < first[1]
    assert second >= first


def test_a_check_tells_good_from_bad(monkeypatch: pytest.MonkeyPatch, identity: Identity) -> None:
    other = Identity(Address(identity.address ^ 1), identity.public_key)

    async def run() -> list[bool]:
        aside = Validator(asyncio.get_running_loop())
        try:
            return [await aside.validate(identity), await aside.validate(other)]
        finally:
            aside.stop()

    monkeypatch.setattr(validation, "read_stat", lambda: None)
    assert asyncio.run(run()) == [True, False]
