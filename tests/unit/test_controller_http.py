"""The classic endpoints, against what an original controller was recorded to answer.

Of the recording, what concerns authentication and HTTP itself is the service's and tested there.
"""

import asyncio
import copy
import json
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from tests.unit.controller_support import client, running
from zt.protocol.identity import Identity

# What the HTTP layer in front of the routes answers by itself.
HTTP_LAYER = {401, 206, 413, 414, 416}
Exchange = dict[str, Any]


def below_http(exchange: Exchange) -> bool:
    """Is it the controller's routes that answer?"""
    request = exchange["request"]
    return (
        exchange["response"]["status"] not in HTTP_LAYER
        and request["method"] in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH")
        and "jsonp=" not in request["path"]
        and not re.match(r"/(status|peer|network)\b", request["path"])
    )


def body_of(request: dict[str, Any], fill: Callable[[str], str]) -> bytes:
    if "body_hex" in request:
        return bytes.fromhex(request["body_hex"])
    if "body_generator" in request:
        made = request["body_generator"]
        separator = made.get("separator", "")
        repeated = separator.join([made["repeat"]] * made["count"])
        return str(made.get("prefix", "") + repeated + made.get("suffix", "")).encode()
    return fill(request.get("body") or "").encode()


def blank(document: Any, pointer: str, seen: list[Any]) -> None:
    """Take out what a JSON pointer names; what was there goes to `seen`."""
    parent, steps = document, pointer.split("/")[1:]
    for step in steps[:-1]:
        if step == "*":
            for child in parent if isinstance(parent, list) else list(parent.values()):
                blank(child, "/" + "/".join(steps[steps.index("*") + 1 :]), seen)
            return
        parent = parent[int(step)] if isinstance(parent, list) else parent.get(step)
        if parent is None:
            return
    last = steps[-1]
    if isinstance(parent, dict) and last in parent:
        seen.append(parent[last])
        parent[last] = None


# Where an entry's answer shows a quirk that is repaired here: what may differ, entry by entry.


def lower_case(document: Any) -> Any:
    """Q3: IDs in objects are lower case whatever the path says."""
    if isinstance(document, dict):
        return {
            (key.lower() if re.fullmatch("[0-9a-fA-F]{10}", key) else key): (
                value.lower() if key in ("id", "address", "nwid") else lower_case(value)
            )
            for key, value in document.items()
        }
    return [lower_case(entry) for entry in document] if isinstance(document, list) else document


def skip_zero_addresses(document: Any) -> Any:
    """Q4: text that is no address is left out instead of becoming 0.0.0.0 or ::."""
    document = copy.deepcopy(document)
    for key in ("routes", "ipAssignmentPools", "ipAssignments"):
        if isinstance(document.get(key), list):
            document[key] = [
                entry
                for entry in document[key]
                if not re.search(r'"(0\.0\.0\.0|::)(/\d+)?"', json.dumps(entry))
            ]
    return document


def without_rules(document: Any) -> Any:
    """Q7: integer ranges are kept."""
    return {**document, "rules": None}


def without_trace_level(document: Any) -> Any:
    """Q5: the level stays as it was, which is no change and no new revision."""
    return {**document, "remoteTraceLevel": None, "revision": None}


REPAIRED: dict[str, Callable[[Any], Any]] = {
    "Q3": lower_case,
    "Q4": skip_zero_addresses,
    "Q5": without_trace_level,
    "Q7": without_rules,
}


class Got(NamedTuple):
    """An answer: status, headers in lower case, body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


Headers = list[tuple[str, str]]
Exchanger = Callable[[dict[str, Any], str, Headers, bytes], Awaitable[Got]]
"""Sends a recorded request, with its path, headers and body filled in."""


def below(http: httpx.AsyncClient) -> Exchanger:
    """Straight to the routes."""

    async def send(request: dict[str, Any], path: str, headers: Headers, body: bytes) -> Got:
        answer = await http.request(request["method"], path, headers=headers, content=body)
        return Got(answer.status_code, answer.headers, answer.content)

    return send


class Replay:
    """Sends the exchanges in order and compares the answers."""

    def __init__(self, recording: dict[str, Any], send: Exchanger) -> None:
        self.variables = dict(recording["meta"]["variables"])
        self.send = send
        self.generated: dict[str, str] = {}
        """Recorded random IDs and the ones that stand for them here."""

    def fill(self, text: str) -> str:
        return re.sub(r"\$\{(\w+)\}", lambda match: self.variables[match[1]], text)

    async def exchange(self, entry: Exchange) -> None:
        request, wanted = entry["request"], entry["response"]
        captures = entry.get("capture", {})
        recorded = {name: self.variables[name] for name in captures}
        got = await self.send(
            request,
            self.fill(request["path"]),
            [(name, self.fill(value)) for name, value in request["headers"]],
            body_of(request, self.fill),
        )
        where = f"entry {entry['n']} ({entry['group']}: {entry['note']})"
        assert got.status == wanted["status"], where
        kind = wanted["headers"].get("Content-Type")
        assert got.headers.get("content-type") == kind, where
        for name, pointer in captures.items():
            self.variables[name] = json.loads(got.body)[pointer[1:]]
        self.generated |= {recorded[name]: self.variables[name] for name in captures}
        if wanted["status"] == 500:
            assert json.loads(got.body).keys() == {"error", "description"}, where
            assert json.loads(got.body)["error"] == 500, where
        elif wanted.get("body") is not None:
            self.compare(entry, wanted["body"], got.text, where)

    def compare_text(self, wanted: str, got: str, where: str) -> None:
        """Wrapped or cut JSON: equal but for times."""
        times = re.compile(r"\d{13}")
        assert times.sub("now", got) == times.sub("now", wanted), where

    def compare(self, entry: Exchange, wanted_text: str, got_text: str, where: str) -> None:
        if "/*" in entry.get("volatile", ()) or not wanted_text:
            assert bool(got_text) == bool(wanted_text), where
            return
        for old, new in self.generated.items():
            wanted_text = wanted_text.replace(old, new)
        if not entry["response"].get("json", True) or not wanted_text.startswith(("{", "[")):
            self.compare_text(wanted_text, got_text, where)
            return
        wanted, got = json.loads(wanted_text), json.loads(got_text)
        if isinstance(wanted, list) and isinstance(got, list):
            wanted = sorted(wanted)  # generated IDs sort differently
        if isinstance(wanted, dict) and isinstance(wanted.get("data"), list):
            # In no particular order: bring ours into the recorded one.
            order = [entry["id"].lower() for entry in wanted["data"]]
            got["data"].sort(key=lambda entry: order.index(entry["id"]))
        before: list[Any] = []
        after: list[Any] = []
        for pointer in entry.get("volatile", ()):
            blank(wanted, pointer, before)
            blank(got, pointer, after)
        assert len(before) == len(after), where
        now_ms = time.time() * 1000
        for old, new in zip(before, after, strict=True):
            assert type(old) is type(new), where
            if isinstance(new, int) and old > 1e12:
                assert abs(new - now_ms) < 600_000, where
        if quirk := entry.get("quirk"):
            repair = REPAIRED[quirk.split()[0]]
            wanted, got = repair(wanted), repair(got)
        assert got == wanted, where


async def replay(recording: dict[str, Any], home: Path, location: str = "") -> None:
    """The whole recording against a controller on an empty database."""
    identity = Identity.parse(recording["meta"]["controller_identity_secret"])
    async with (
        running(identity, home, location=location) as controller,
        client(controller) as http,
    ):
        session = Replay(recording, below(http))
        exchanges = [entry for entry in recording["entries"] if below_http(entry)]
        for entry in exchanges:
            await session.exchange(entry)


def test_recorded_exchanges(vectors: Callable[[str], Any], tmp_path: Path) -> None:
    asyncio.run(replay(vectors("controller_http.json"), tmp_path))


def test_repaired_quirks_are_named(vectors: Callable[[str], Any]) -> None:
    entries = vectors("controller_http.json")["entries"]
    marks = {entry["quirk"].split()[0] for entry in entries if "quirk" in entry}
    assert marks <= {*REPAIRED, "Q2"}  # Q2: error bodies, compared by their keys
