"""`zerotier-cli trace`: drops as they happen, with the reason and, for the filter, the rule."""

import json
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from zt.cli.client import Refused, Unreachable

if TYPE_CHECKING:
    from zt.cli.main import Cli

REASONS = {
    "malformed": "malformed: too short, or contents that contradict themselves",
    "self": "claims to come from this node",
    "hops": "relayed too often",
    "relay": "for somebody else, and this node does not relay it",
    "armor": "not authentic: damaged, forged, or made with another key",
    "repeat": "came before",
    "network": "of a network that this node is not in",
    "source_mac": "a source MAC that no other node has",
    "bridge": "to or from a MAC behind this node, which is no bridge",
    "size": "larger than the network's MTU",
    "filter": "refused by the rules",
    "filter blocked": "refused by the rules",
    "no certificate": "its sender has shown no valid certificate of membership",
}
"""Of the data plane and of the control plane; what is not here says enough by itself."""


def trace(cli: "Cli") -> int:
    """Until interrupted, or until the service ends."""
    wanted = cli.options.argument
    if len(wanted) not in (0, 10, 16) or not all(c in "0123456789abcdefABCDEF" for c in wanted):
        print("usage: zerotier-cli trace [<network ID>|<address>]", file=sys.stderr)
        return 2
    key = {0: "", 10: f"?peer={wanted}", 16: f"?network={wanted}"}[len(wanted)]
    try:
        for text in cli.client.stream(f"/trace{key}"):
            if cli.options.json:
                print(text, flush=True)
                continue
            record = json.loads(text)
            if record.get("event") == "listening" and sys.stderr.isatty():
                print("listening for drops; interrupt to end", file=sys.stderr)
            for line in lines(record):
                print(line, flush=True)
    except Unreachable as error:
        cli.no_service(str(error))
    except Refused as error:
        print(f"{error} trace", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        pass
    return 0


def lines(record: dict[str, Any]) -> Iterator[str]:
    """One record as people read it."""
    clock = time.strftime("%H:%M:%S", time.localtime(record.get("time", 0) / 1000))
    match record.get("event"):
        case "drop":
            yield f"{clock} {_drop(record)}"
            if "why" in record:
                rule = f"rule {record['rule']}: " if "rule" in record else ""
                yield f"         {rule}{record['why']}"
        case "remote":
            fields = " ".join(f"{k}={v}" for k, v in record.get("fields", {}).items())
            yield f"{clock} report of {record.get('origin')}: {fields}"
        case "counted":
            counts = ", ".join(f"{count} {name}" for name, count in record["drops"].items())
            yield f"{clock} in the last second the data plane dropped: {counts}"


def _drop(record: dict[str, Any]) -> str:
    outbound = record.get("direction") == "tx"
    words = ["sending" if outbound else "receiving"]
    if "network" in record:
        words.append(f"on {record['network']}")
    if "peer" in record:
        words.append(f"{'to' if outbound else 'from'} {record['peer']}")
    if "path" in record:
        words.append(f"({record['path']})")
    reason = str(record.get("reason"))
    words[-1] += f": {REASONS.get(reason, reason)};"
    if "flow" in record:
        words.append(record["flow"])
    elif "etherType" in record:
        words.append(f"{record['sourceMac']} > {record['destMac']} ethertype {record['etherType']}")
    if "size" in record:
        words.append(f"{record['size']} bytes")
    return " ".join(words)
