"""A node whose UDP goes nowhere: everything through a TCP relay, and back to UDP when it works."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.lab import Host, Lab, Process, wait_for
from bench.measure import ping, start
from bench.world import LOCAL_CONF, Service, World, ours

pytestmark = pytest.mark.system

PROJECT = str(Path(__file__).parent.parent.parent)
PORT = 443
RELAY_HOST = 4  # root, a, b, relay


def world(lab: Lab, **settings: object) -> tuple[World, Process]:
    """A root, two nodes and a relay; `settings` are those of node a."""
    relay_address = f"44.66.0.{RELAY_HOST}"
    own = {"tcpFallbackRelay": f"{relay_address}/{PORT}", **settings}
    conf = {"settings": {**LOCAL_CONF["settings"], **own}}
    made = World(lab, dict.fromkeys(("root", "a", "b"), ours()), local_conf={"a": conf})
    host = lab.host("relay")
    assert host.address == relay_address
    relay = host.start(
        [sys.executable, "-m", "zt.service.tcprelay.main", "--listen", f"{relay_address}:{PORT}"],
        env={"PYTHONPATH": PROJECT},
    )
    wait_for("the relay to listen", lambda: "relaying" in relay.output(), alive=[relay])
    made.create()
    return made, relay


BLOCK = """
table bridge block {{
    chain both {{
        type filter hook forward priority 0;
        iifname "{port}" meta l4proto udp drop
        oifname "{port}" meta l4proto udp drop
    }}
}}
"""


def set_udp(lab: Lab, host: Host, *, works: bool) -> None:
    """Lets the switch drop all UDP of a host, or no more."""
    rules = "delete table bridge block\n" if works else BLOCK.format(port=host.port)
    nft = ["ip", "netns", "exec", lab.switch, "nft", "-f", "-"]
    subprocess.run(nft, input=rules, text=True, check=True)


def pings(one: Service, address: str, count: int) -> int:
    """How many of `count` pings are answered."""
    answered: int = ping(one.host, address, count=count, interval_s=0.05)["received"]
    return answered


def bound_udp(host: Host) -> list[str]:
    """Local ends of UDP sockets that are open on a host, but for loopback."""
    lines = host.inside(Path("/proc/thread-self/net/udp").read_text).splitlines()[1:]
    ends = [line.split()[1] for line in lines]
    return [end for end in ends if end.partition(":")[0] != "0100007F"]


def joined(made: World) -> tuple[Service, Service, str]:
    """The nodes in a network, and b's address in it."""
    made.start()
    nwid = made.create_network()
    made.join(nwid)
    made.wait_joined(nwid)
    a, b = made.nodes
    (address,) = [text for text in b.addresses(nwid) if "." in text]
    return a, b, address


def test_forced(lab: Lab) -> None:
    made, _ = world(lab, forceTcpRelay=True)
    a, b, address = joined(made)
    assert wait_for("answers", lambda: pings(a, address, 1))
    assert pings(a, address, 20) == 20
    assert bound_udp(a.host) == []
    assert a.api("GET", "/status")["tcpFallbackActive"] is True
    assert all(peer["tunneled"] for peer in a.api("GET", "/peer"))
    assert "TUNNELED" in a.cli("info")
    # Others know it by the relay's address.
    (path,) = b.peer(a.address)["paths"]
    assert path["address"].startswith(f"44.66.0.{RELAY_HOST}/")

    # Live: as soon as UDP is allowed, a path of its own.
    a.api("POST", "/config/settings", {"forceTcpRelay": False})
    wait_for("the tunnel to close", lambda: not a.api("GET", "/status")["tcpFallbackActive"])
    wait_for("a direct path", lambda: pings(a, address, 1) and b.direct(a))
    assert pings(a, address, 5) == 5


@pytest.mark.waits  # a minute must pass before UDP is given up
def test_udp_is_given_up_and_found_again(lab: Lab) -> None:
    made, relay = world(lab)
    a, b, address = joined(made)
    assert wait_for("answers", lambda: pings(a, address, 1))
    set_udp(lab, a.host, works=False)
    since = time.monotonic()
    wait_for("the tunnel", lambda: a.api("GET", "/status")["tcpFallbackActive"], 90)
    assert time.monotonic() - since > 50
    wait_for("answers through the tunnel", lambda: pings(a, address, 1))
    assert pings(a, address, 20) == 20
    assert pings(b, a.addresses(made.nwid)[0], 5) == 5

    # A relay that is restarted is found again.
    relay.stop()
    wait_for("the tunnel's end", lambda: not a.api("GET", "/status")["tcpFallbackActive"])
    host = lab.hosts["relay"]
    host.start(
        [sys.executable, "-m", "zt.service.tcprelay.main", "--listen", f"{host.address}:{PORT}"],
        env={"PYTHONPATH": PROJECT},
    )
    wait_for("the tunnel again", lambda: a.api("GET", "/status")["tcpFallbackActive"], 60)
    wait_for("answers again", lambda: pings(a, address, 1))

    flow = start(a.host, "ping", address, "--count", 100, "--interval", 0.2)
    set_udp(lab, a.host, works=True)
    wait_for("the tunnel to close", lambda: not a.api("GET", "/status")["tcpFallbackActive"])
    since = time.monotonic()
    wait_for("a direct path", lambda: b.direct(a) and a.direct(b))
    # The other node sends to the relay until it has found that way dead.
    wait_for("every answer", lambda: pings(a, address, 10) == 10)
    print(f"\nevery ping is answered {time.monotonic() - since:.1f} s after the tunnel closed")
    flow.stop()
