"""Nodes behind real translators (nftables) meet directly or are relayed, as docs/nat.md says.

One world holds two roots on the open network and two nodes of every kind, so that every pair is
tried at once; each is one process. With ``ZT_REFERENCE`` the same with the original at either end
of every pair; ``ZT_NAT_ROOTS=original`` lets it play the roots, too.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator

import pytest

from bench.lab import Host, Lab, Router, wait_for
from bench.world import LOCAL_CONF, Program, World, by_family, ours, reference
from tests.system.pings import Echo

pytestmark = pytest.mark.system

NONE, PRESERVING, COUNTING, RANDOM = "none", "preserving", "counting", "random"
PORTS = ", ".join(f"{number} : {40_000 + number}" for number in range(512))
TRANSLATION = {
    PRESERVING: "masquerade",
    RANDOM: "masquerade fully-random",
    # The next port for each new flow, as some routers count them.
    COUNTING: f"meta l4proto udp masquerade to :numgen inc mod 512 map {{ {PORTS} }}",
}
KINDS = (NONE, PRESERVING, RANDOM)
LIMIT_S = 60.0
FORWARDED = 41_234  # UDP port
RELAYED_S = 3.0
"""How long pairs that cannot meet are watched after all others have met."""

Pair = tuple[str, str]  # of nodes
PAIRS = [(f"a {one}", f"b {other}") for one in KINDS for other in KINDS]
NEIGHBOURS: Pair = ("a neighbour", "b neighbour")
GUESTS: Pair = ("a guest", "b guest")
GUESSED: Pair = (f"a {COUNTING}", "b alone")
"""The translator of one counts; nobody else talks to it meanwhile."""


def meets_directly(pair: Pair) -> bool:
    kinds = {name.split()[1] for name in pair}
    return RANDOM not in kinds or NONE in kinds


def hairpin(router: Router, host: Host) -> str:
    """A port forwarded to a host of the LAN, also for those on the LAN."""
    return f"""
        table ip forwarding {{
          chain prerouting {{
            type nat hook prerouting priority dstnat;
            ip daddr {router.address} udp dport {FORWARDED} dnat to {host.address}
          }}
          chain postrouting {{
            type nat hook postrouting priority srcnat - 1;
            iifname "br0" oifname "br0" masquerade
          }}
        }}
    """


class Nats:
    """The world. Roles are named "a <kind>" and "b <kind>"; those of one pair are played by one
    program each."""

    def __init__(self, lab: Lab, ends: tuple[str, str], roots: str) -> None:
        self.lab = lab
        self.ends = ends
        first, second = map(played_by, ends)
        homes = {name: lab.router(f"{name}-lan", TRANSLATION[PRESERVING]) for name in ("n", "g")}
        hosts: dict[str, Host] = {}
        programs = dict.fromkeys(("root", "root2"), played_by(roots))
        for role, program in (("a", first), ("b", second)):
            for kind in (PRESERVING, RANDOM):
                router = lab.router(f"{role}-{kind}-nat", TRANSLATION[kind])
                hosts[f"{role} {kind}"] = router.host(f"{role}-{kind}")
            hosts[f"{role} {NONE}"] = lab.host(f"{role}-{NONE}")
            hosts[f"{role} neighbour"] = homes["n"].host(f"{role}-neighbour")
            hosts[f"{role} guest"] = homes["g"].host(f"{role}-guest")
            kind = {"a": COUNTING, "b": PRESERVING}[role]
            name = dict(zip("ab", GUESSED, strict=True))[role]
            hosts[name] = lab.router(f"{role}-alone-nat", TRANSLATION[kind]).host(f"{role}-alone")
            programs.update({name: program for name in hosts if name not in programs})
        guests = [hosts[name] for name in GUESTS]
        lab.separate(*guests)
        homes["g"].rules(hairpin(homes["g"], guests[0]))

        # A port that no neighbour has, so that the router keeps it for everybody.
        conf = {"settings": {**LOCAL_CONF["settings"], "secondaryPort": FORWARDED}}
        self.world = World(lab, programs, hosts=hosts, local_conf={GUESTS[0]: conf})
        self.world.create()
        self.world.start()
        self.nodes = {name: self.world.services[name] for name in hosts}
        for name, node in self.nodes.items():
            for root in self.world.roots:
                what = f"{name} to find {root.host.name}"
                wait_for(what, lambda n=node, r=root: n.direct(r), LIMIT_S)
        self.networks = [self.world.create_network(number) for number in (1, 2)]
        for name, node in self.nodes.items():
            node.api("POST", f"/network/{self._network(name)}", {})
        self.address: dict[str, str] = {}
        for name, node in self.nodes.items():
            nwid = self._network(name)
            addresses = wait_for(f"{name} to join", lambda n=node, i=nwid: n.addresses(i), 90)
            self.address[name] = by_family(addresses)[0]
        self._names = {(self._network(n), address): n for n, address in self.address.items()}
        self._echoes = {name: Echo(node.host) for name, node in self.nodes.items()}

    def _network(self, name: str) -> str:
        return self.networks[name in GUESSED]

    def close(self) -> None:
        for echo in self._echoes.values():
            echo.close()

    def answered(self, pairs: Iterable[Pair], patience_s: float = 0.1) -> set[Pair]:
        """The pairs whose first node got an answer of the second to one echo."""
        pairs = list(pairs)
        for one, other in pairs:
            self._echoes[one].ask(self.address[other])
        time.sleep(patience_s)
        answered = set()
        for one in {one for one, _ in pairs}:
            while (source := self._echoes[one].answer(0)) is not None:
                answered.add((one, self._names[self._network(one), source]))
        return answered

    def paths(self, one: str, other: str) -> list[str]:
        """Live direct paths to the other."""
        paths = self.nodes[one].peer(self.nodes[other].address).get("paths", ())
        return [p["address"] for p in paths if p["active"] and not p["expired"]]

    def direct(self, pair: Pair) -> bool:
        return bool(self.paths(*pair) and self.paths(*pair[::-1]))

    def until_answered(self, pairs: Iterable[Pair]) -> None:
        """Pings until each pair had an answer."""
        missing = set(pairs)

        def done() -> bool:
            missing.difference_update(self.answered(missing))
            return not missing

        wait_for("answers through the tunnel", done, LIMIT_S)

    def until_direct(self, pairs: Iterable[Pair], limit_s: float = LIMIT_S) -> dict[Pair, float]:
        """Pings until all these pairs are direct; the seconds that each took, those that were not
        in time missing."""
        waiting, met, start = set(pairs), {}, time.monotonic()
        while waiting and time.monotonic() - start < limit_s:
            self.answered(waiting)
            for pair in [pair for pair in waiting if self.direct(pair)]:
                waiting.remove(pair)
                met[pair] = time.monotonic() - start
        return met


def ends() -> list[object]:
    """The programs at both ends of the pairs."""
    marks = [
        pytest.mark.skipif(
            not os.environ.get("ZT_REFERENCE"),
            reason="the original's side needs ZT_REFERENCE=<folder with zerotier-one>",
        )
    ]
    others = [("ours", "original"), ("original", "ours"), ("original", "original")]
    return [
        pytest.param(("ours", "ours"), id="ours"),
        *(pytest.param(both, marks=marks, id="-".join(both)) for both in others),
    ]


def played_by(name: str) -> Program:
    played = ours() if name == "ours" else reference()
    assert played is not None, "ZT_REFERENCE is not set"
    return played


@pytest.fixture(scope="module", params=ends())
def nats(request: pytest.FixtureRequest) -> Iterator[Nats]:
    with Lab() as lab:
        nats = Nats(lab, request.param, os.environ.get("ZT_NAT_ROOTS", "ours"))
        yield nats
        nats.close()


def report(met: dict[Pair, float], pairs: Iterable[Pair]) -> None:
    for one, other in pairs:
        at = met.get((one, other))
        print(f"nat: {one} - {other}:", "relayed" if at is None else f"direct after {at:.1f} s")


def test_pairs_meet_or_are_relayed(nats: Nats) -> None:
    nats.until_answered(PAIRS)
    expected = {pair for pair in PAIRS if meets_directly(pair)}
    met = nats.until_direct(expected)
    others = set(PAIRS) - expected
    met |= nats.until_direct(others, RELAYED_S)
    report(met, PAIRS)
    assert met.keys() == expected
    nats.until_answered(others)


def test_neighbours_use_their_lan(nats: Nats) -> None:
    met = nats.until_direct([NEIGHBOURS])
    report(met, [NEIGHBOURS])
    a, b = NEIGHBOURS
    assert {path.partition("/")[0] for path in nats.paths(a, b)} == {nats.nodes[b].host.address}
    if "original" in nats.ends:
        return  # it would use the dead path for four minutes
    # A wall between them: the translator lets nobody in, not even from inside.
    hosts = [nats.nodes[name].host for name in NEIGHBOURS]
    nats.lab.separate(*hosts)
    wait_for("the end of the path", lambda: nats.answered([NEIGHBOURS]) and not nats.paths(a, b))
    nats.lab.reunite(*hosts)
    assert NEIGHBOURS in nats.until_direct([NEIGHBOURS])


def test_guests_meet_through_a_forwarded_port(nats: Nats) -> None:
    """Hairpin: they are separated on their LAN, but the router forwards a port of its address."""
    met = nats.until_direct([GUESTS])
    report(met, [GUESTS])
    assert GUESTS in met
    a, b = GUESTS
    router = nats.lab.hosts["g-lan"]
    assert set(nats.paths(b, a)) == {f"{router.address}/{FORWARDED}"}


def test_a_counting_translator_is_foreseen(nats: Nats) -> None:
    """Port prediction, which the original does not have (ch. 03, 6.5)."""
    nats.until_answered([GUESSED])
    foreseen = nats.ends[0] == "ours"
    met = nats.until_direct([GUESSED], LIMIT_S if foreseen else RELAYED_S)
    report(met, [GUESSED])
    assert (GUESSED in met) == foreseen
