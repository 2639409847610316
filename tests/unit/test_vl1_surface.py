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


@pytest.mark.parametrize(
    ("ports", "guesses"),
    [
        ([5000], []),
        ([5000, 5000], []),  # one mapping for all
        ([5000, 5001], [5002, 5003, 5004, 5005]),
        ([5000, 5002, 5004], [5006, 5008, 5010, 5012]),
        ([5001, 5000], [4999, 4998, 4997, 4996]),  # counts down
        ([5000, 40_000], []),  # random
        ([65_534, 65_535], []),
    ],
)
def test_port_prediction(ports: list[int], guesses: list[int]) -> None:
    s = Surface()
    for i, port in enumerate(ports):
        s.report(Address(i + 1), path(f"9.9.9.{i}/1"), at(f"31.1.1.1/{port}"), True, NOW_MS + i)
    assert s.predictions() == [InetAddress(at("31.1.1.1/0").ip, port) for port in guesses]
