"""The UPnP client, a program of its own: JSON lines in, one JSON line out for each.

    {"do": "discover", "interface": "eth0"}
        {"url": "http://192.0.2.1:5000/root.xml", "external": "198.51.100.7"}
    {"do": "map", "url": "http://...", "internal": 30000, "external": 30000, "description": "..."}
        {"granted": true}
    {"do": "unmap", "url": "http://...", "external": 30000, "description": "..."}
        {"removed": true}

A failure is answered with {"error": "..."}.

Anybody on the local network can answer a discovery, and miniupnpc then reads whatever comes, of any
size and for any time. So this runs apart from the node, under limits of memory and processor time,
and its parent ends it when an answer takes too long. It imports nothing but the standard library
and miniupnpc, to be started with `python -I`.
"""

import json
import resource
import signal
import sys
from collections.abc import Callable
from typing import Any

MEMORY_BYTES = 128 << 20
CPU_S = 10
LINE_S = 30
"""One line takes no longer than this, also when the parent is gone."""
DISCOVERY_MS = 1000
"""The wait for each of the four kinds of device that are asked for, one after the other."""
MAX_TEXT = 200

Answer = dict[str, Any]


class Client:
    """An Internet gateway device and what can be asked of it."""

    def __init__(self) -> None:
        self._upnp: Any = None
        self._url = ""

    def discover(self, interface: str) -> Answer:
        self._upnp = _new(interface)
        self._upnp.discover()
        self._url = self._upnp.selectigd()
        return {"url": self._url, "external": self._upnp.externalipaddress() or ""}

    def map(self, url: str, internal: int, external: int, description: str) -> Answer:
        upnp = self._select(url)
        found = upnp.getspecificportmapping(external, "UDP")
        if found is not None:
            host, port, text = found[:3]
            if text != description:
                return {"error": f"port {external} is mapped already"}
            if (host, port) == (upnp.lanaddr, internal):
                return {"granted": True}
            # Our own, of an address that we no longer have.
            upnp.deleteportmapping(external, "UDP")
        granted = upnp.addportmapping(external, "UDP", upnp.lanaddr, internal, description, "", 0)
        return {"granted": bool(granted)}

    def unmap(self, url: str, external: int, description: str) -> Answer:
        upnp = self._select(url)
        found = upnp.getspecificportmapping(external, "UDP")
        if found is None or found[2] != description:
            return {"removed": False}
        return {"removed": bool(upnp.deleteportmapping(external, "UDP"))}

    def _select(self, url: str) -> Any:
        if self._upnp is None or self._url != url:
            self._upnp = _new("")
            self._url = self._upnp.selectigd(url)
        return self._upnp


def _new(interface: str) -> Any:
    import miniupnpc

    return miniupnpc.UPnP(multicastif=interface or None, discoverdelay=DISCOVERY_MS)


def _limit() -> None:
    for kind, limit in (
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_CPU, CPU_S),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (limit, limit))


def main() -> None:
    """Answers lines until the input ends."""
    _limit()
    client = Client()
    commands: dict[str, Callable[..., Answer]] = {
        "discover": client.discover,
        "map": client.map,
        "unmap": client.unmap,
    }
    for line in sys.stdin:
        signal.alarm(LINE_S)
        request = json.loads(line)
        try:
            answer = commands[request.pop("do")](**request)
        except Exception as error:  # miniupnpc raises Exception itself
            answer = {"error": str(error)[:MAX_TEXT]}
        print(json.dumps(answer), flush=True)
        signal.alarm(0)


if __name__ == "__main__":
    main()
