"""Our external addresses as peers report them, and port prediction."""

import pytest

from zt.protocol.address import Address
from zt.protocol.inet import InetAddress
from zt.vl1 import surface
from zt.vl1.path import Path
from zt.vl1.surface import Surface

NOW_MS = 1_700_000_000_000
ROOT, OTHER_ROOT, PEER, OTHER_PEER = map(Address, range(1, 5))


def at(text: str) -> InetAddress:
    return InetAddress.parse(text)


def path(text: str = "9.9.9.9/9993", socket: int = 1) -> Path:
    return Path(socket, at(text))


def test_an_upstream_is_believed_at_once_a_peer_only_with_another() -> None:
    s = Surface()
    s.report(PEER, path("8.8.8.1/1"), at("31.1.1.1/5"), False, NOW_MS)
    assert s.addresses() == []
    s.report(PEER, path("8.8.8.1/2"), at("31.1.1.1/5"), False, NOW_MS)  # the same peer once more
    assert s.addresses() == []
    s.report(OTHER_PEER, path("8.8.8.2/1"), at("31.1.1.1/5"), False, NOW_MS)
    assert s.addresses() == [at("31.1.1.1/5")]
    s.report(ROOT, path(), at("31.1.1.1/6"), True, NOW_MS)
    assert set(s.addresses()) == {at("31.1.1.1/5"), at("31.1.1.1/6")}


@pytest.mark.parametrize("seen", ["10.0.0.1/1", "127.0.0.1/1", "0.0.0.0/1", "224.0.0.1/1"])
def test_reports_of_another_scope_do_not_count(seen: str) -> None:
    s = Surface()
    assert not s.report(ROOT, path(), at(seen), True, NOW_MS)
    assert s.addresses() == []


def test_only_another_ip_from_an_upstream_resets() -> None:
    s = Surface()
    assert not s.report(ROOT, path(), at("31.1.1.1/5"), True, NOW_MS)
    assert not s.report(ROOT, path(), at("31.1.1.1/6"), True, NOW_MS)  # a port is no change
    assert not s.report(PEER, path("8.8.8.1/1"), at("31.1.1.1/5"), False, NOW_MS)
    assert not s.report(PEER, path("8.8.8.1/1"), at("31.1.1.2/5"), False, NOW_MS)
    assert s.report(ROOT, path(), at("31.1.1.3/6"), True, NOW_MS)
    # What others saw in the same scope is forgotten with it.
    assert s.addresses() == [at("31.1.1.3/6")]
    late_ms = NOW_MS + surface.MEMORY_MS
    assert not s.report(ROOT, path(), at("31.1.1.9/6"), True, late_ms)


def test_reports_expire_and_are_bounded() -> None:
    s = Surface()
    for port in range(1, surface.LIMIT + 100):
        s.report(ROOT, path(f"9.9.9.9/{port}"), at(f"31.1.1.1/{port}"), True, NOW_MS)
    assert len(s.addresses()) == surface.LIMIT
    s.expire(NOW_MS + surface.MEMORY_MS)
    assert s.addresses() == []


def counted(s: Surface, ports: list[int], *, trusted: bool = True, since_ms: int = NOW_MS) -> None:
    """One socket, seen under a port of 31.1.1.1 by one reporter after the other."""
    for i, port in enumerate(ports):
        reporter = Address(i + (1 if trusted else 100))
        where = path(f"9.9.{9 if trusted else 8}.{i}/1")
        s.report(reporter, where, at(f"31.1.1.1/{port}"), trusted, since_ms + i)


def ports_guessed(s: Surface, turn: int = 0) -> list[int]:
    guesses = s.predictions(turn)
    assert all(guess.ip == at("31.1.1.1/0").ip for guess in guesses)
    return [guess.port for guess in guesses]


@pytest.mark.parametrize(
    ("ports", "guesses"),
    [
        ([5000], []),
        ([5000, 5000], []),  # one mapping for all
        ([5000, 5001], list(range(5002, 5010))),
        ([5000, 5002, 5004], list(range(5006, 5022, 2))),
        ([5001, 5000], list(range(4999, 4991, -1))),  # counts down
        ([5000, 40_000], []),  # random
        ([5000, 5001, 40_000], []),
        ([65_533, 65_534], [65_535]),
        ([5002, 5003, 5000, 5001], list(range(5004, 5012))),  # one root answered sooner
    ],
)
def test_port_prediction(ports: list[int], guesses: list[int]) -> None:
    s = Surface()
    counted(s, ports)
    assert ports_guessed(s) == guesses


def test_prediction_looks_ahead_and_back_by_turns() -> None:
    s = Surface()
    counted(s, [5000, 5001, 5012])
    turns = [ports_guessed(s, turn) for turn in range(5)]
    assert turns == [
        list(range(5013, 5021)),
        list(range(5011, 5003, -1)),
        list(range(5021, 5029)),
        [5003, 5002, 4999, 4998, 4997, 4996, 4995, 4994],
        list(range(5029, 5037)),
    ]
    assert ports_guessed(s, 2 * surface.ROUNDS) == turns[0]


def test_a_repeated_report_is_no_new_port() -> None:
    """Which port came last is known by when it was first seen."""
    s = Surface()
    counted(s, [5000, 5001])
    counted(s, [5000], since_ms=NOW_MS + 120_000)
    assert ports_guessed(s)[0] == 5002


def test_peers_tell_how_far_the_count_is_but_not_that_there_is_one() -> None:
    s = Surface()
    counted(s, [5000, 5001], trusted=False)
    assert ports_guessed(s) == []
    s.report(ROOT, path(), at("31.1.1.1/4990"), True, NOW_MS)
    assert ports_guessed(s) == []
    s.report(OTHER_ROOT, path("9.9.9.1/1"), at("31.1.1.1/4991"), True, NOW_MS)
    assert ports_guessed(s)[0] == 5002
    # A lie far off changes nothing.
    s.report(PEER, path("8.8.8.1/1"), at("31.1.1.1/60000"), False, NOW_MS + 9)
    assert ports_guessed(s)[0] == 5002


def test_several_sockets_share_one_count() -> None:
    s = Surface()
    for number, (reporter, socket) in enumerate(((1, 1), (1, 2), (2, 1), (2, 2))):
        where = path(f"9.9.9.{reporter}/1", socket)
        s.report(Address(reporter), where, at(f"31.1.1.1/{5000 + number}"), True, NOW_MS + number)
    assert ports_guessed(s) == list(range(5004, 5012))
    # A port for each socket, whoever looks, is no mapping by destination.
    s = Surface()
    for reporter, socket in ((1, 1), (1, 2), (2, 1), (2, 2)):
        where = path(f"9.9.9.{reporter}/1", socket)
        s.report(Address(reporter), where, at(f"31.1.1.1/{5000 + socket}"), True, NOW_MS)
    assert ports_guessed(s) == []
