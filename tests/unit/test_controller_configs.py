"""What members are sent, against recorded configs of an original controller, field by field."""

import asyncio
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import load_vectors
from tests.unit.controller_support import Clock, RecordingLink, Sent, client, running
from zt.controller import Controller
from zt.controller.changes import Draft
from zt.protocol import rules
from zt.protocol.address import Address, NetworkId
from zt.protocol.credentials import Verdict
from zt.protocol.dictionary import Dictionary
from zt.protocol.identity import Identity
from zt.protocol.netconf import Assembler, ConfigChunk, NetworkConfig, RequestMetadata
from zt.protocol.packet import ErrorCode

Case = dict[str, Any]
REQUEST = 0x0123_4567_89AB_CDEF


# The decoded form that the recording uses, of our dictionaries


def rendered(dictionary: bytes, controller: Identity) -> dict[str, Any]:
    """Keys and values as the recording decodes them; times and signatures left out."""
    keys = Dictionary.decode(dictionary)
    config = NetworkConfig.decode(dictionary)

    def find(address: Address) -> Identity | None:
        return controller if address == controller.address else None

    form: dict[str, Any] = {}
    for key, value in keys.items():
        if key not in ("C", "CAP", "TAG", "COO", "S", "RT", "I", "R", "DNS"):
            form[key] = value.decode()
    for credential in (config.com, *config.capabilities, *config.tags, *config.ownerships):
        assert credential is not None
        assert credential.verify(find) is Verdict.VALID
    assert config.com is not None
    form["C"] = [
        (q.id, None if q.id == 0 else f"{q.value:016x}", f"{q.max_delta:016x}")
        for q in config.com.qualifiers
    ]
    assert abs(config.com.timestamp - config.timestamp) == 0
    for key, values in {
        "CAP": [
            (c.id, table(c.rules), c.max_custody, [(str(k.to), str(k.from_)) for k in c.custody])
            for c in config.capabilities
        ],
        "TAG": [(t.id, t.value, str(t.issued_to), str(t.signer)) for t in config.tags],
        "COO": [
            (o.id, o.flags, [(t.type, t.value.hex()) for t in o.things], str(o.issued_to))
            for o in config.ownerships
        ],
        "S": [f"{specialist:016x}" for specialist in config.specialists],
        "RT": [
            (str(r.target), str(r.via).partition("/")[0], r.flags, r.metric) for r in config.routes
        ],
        "I": [str(ip) for ip in config.static_ips],
        "R": table(config.rules),
    }.items():
        if values:
            form[key] = values
    form["DNS"] = (config.dns.domain.encode().hex(), [str(s) or None for s in config.dns.servers])
    return form


def table(binary: bytes) -> list[tuple[int, str]]:
    encoded = [rule.encode() for rule in rules.decode(binary)]
    return [(rule[0], rule[2:].hex()) for rule in encoded]


def recorded(decoded: dict[str, Any]) -> dict[str, Any]:
    """A recorded config in the form of `rendered`; long lists are (count, first, last)."""
    form = {k: v for k, v in decoded.items() if isinstance(v, str)}
    form["C"] = [
        (q["id"], None if q["id"] == 0 else q["value"], q["maxDelta"])
        for q in decoded["C"]["qualifiers"]
    ]
    readers: dict[str, Callable[[Any], Any]] = {
        "CAP": lambda c: (
            c["id"],
            several(c["rules"], rule),
            c["maxCustodyChainLength"],
            [(k["to"], k["from"]) for k in c["custody"]],
        ),
        "TAG": lambda t: (t["id"], t["value"], t["issuedTo"], t["signedBy"]),
        "COO": lambda o: (
            o["id"],
            o["flags"],
            several(o["things"], lambda t: (t["type"], t["raw"])),
            o["issuedTo"],
        ),
        "S": str,
        "RT": lambda r: (r["target"], (r["via"] or "").partition("/")[0], r["flags"], r["metric"]),
        "I": str,
        "R": rule,
    }
    for key, read in readers.items():
        if key in decoded:
            form[key] = several(decoded[key], read)
    form["DNS"] = (decoded["DNS"]["domain_hex"], decoded["DNS"]["servers"])
    return form


def rule(entry: dict[str, Any]) -> tuple[int, str]:
    return entry["t"], entry.get("operand_hex", "")


class Abbreviated:
    """Equal to every list with this count, first and last element (None: any)."""

    def __init__(self, count: int, first: Any = None, last: Any = None) -> None:
        self.count, self.first, self.last = count, first, last

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, list) or len(other) != self.count:
            return False
        return self.first is None or (other[0] == self.first and other[-1] == self.last)

    def __repr__(self) -> str:
        return f"{self.count} x {self.first} .. {self.last}"


def several(values: Any, read: Callable[[Any], Any]) -> Any:
    if isinstance(values, dict):
        return Abbreviated(values["count"], read(values["first"]), read(values["last"]))
    if isinstance(values, str):  # "64 rules"
        return Abbreviated(int(values.split()[0]))
    return [read(value) for value in values]


# What may differ, and why. Each takes (recorded, ours, decoded objects) as dictionaries.


def drop(*keys: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda form: {key: value for key, value in form.items() if key not in keys}


def prefixless(form: dict[str, Any]) -> dict[str, Any]:
    return {**form, "I": [ip.partition("/")[0] for ip in form.get("I", [])]}


def whole_characters(form: dict[str, Any]) -> dict[str, Any]:
    """Q9: nothing is cut inside a character."""
    return {**form, "n": re.sub(r"(\\x[0-9a-f]{2}|\ufffd)+$", "", form["n"])}


def first_ownership(form: dict[str, Any]) -> dict[str, Any]:
    """Q11: the addresses beyond the 16th get a certificate too."""
    return {**form, "COO": form["COO"][:1] if isinstance(form["COO"], list) else form["COO"]}


def no_default_prefix(form: dict[str, Any]) -> dict[str, Any]:
    """Q12: default routes do not assign."""
    return {**form, "I": [ip for ip in form.get("I", []) if not ip.endswith("/0")], "COO": None}


REPAIRED: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "Q5": drop("tl"),  # the level of a member's own trace target is kept
    "Q6": lambda form: form,  # cut at 127 bytes, as receivers do
    "Q9": whole_characters,
    "Q10": lambda form: form,  # kept
    "Q11": first_ownership,
    "Q12": no_default_prefix,
    "Q13": drop("I", "COO"),  # the last address of a pool is used
    "prefix": prefixless,  # the same in every config: the longest one
}
ANSWERED = ("Q8", "unanswered")
"""Requests that the original drops because of what is stored; here they are answered."""


# Running a case


def expanded(body: Any) -> Any:
    """Bodies of the recording that describe long arrays in words."""
    if not isinstance(body, dict):
        return body
    made = dict(body)
    for key, text in body.items():
        if not isinstance(text, str) or key in ("name", "private"):
            continue
        if match := re.fullmatch(r"(\d+)\.\.(\d+)", text):
            made[key] = list(range(int(match[1]), int(match[2]) + 1))
        elif match := re.fullmatch(r"([\d.]+\.)(\d+) \.\. [\d.]+\.(\d+) \(\d+\)", text):
            made[key] = [f"{match[1]}{i}" for i in range(int(match[2]), int(match[3]) + 1)]
        elif match := re.fullmatch(r"(\d+) x \{\"id\":i,\"rules\".* n=(\d+) for id 0.*", text):
            made[key] = [
                {
                    "id": i,
                    "rules": [
                        {"type": "MATCH_IP_PROTOCOL", "ipProtocol": j % 256}
                        for j in range(1 if i else int(match[2]))
                    ],
                }
                for i in range(int(match[1]))
            ]
        elif match := re.fullmatch(r"(\d+) x (\{.*\})(, i=.*)?", text):
            made[key] = [
                json.loads(match[2].replace("<hex i>", f"{i:x}").replace(":i", f":{i}"))
                for i in range(int(match[1]))
            ]
    return made


def metadata_of(case: Case) -> RequestMetadata:
    said = replace(RequestMetadata.own("linux/x86_64"))
    for name, field in {"a": "token", "v": "version", "revr": "rules_revision"}.items():
        if case["id"].startswith(("auth-token-", "metadata-")) and (
            match := re.search(rf"\b{name}=(token:\w+|\d+)", case["note"])
        ):
            said = replace(said, **{field: match[1] if name == "a" else int(match[1])})
    return said


def edited(case: Case) -> bool:
    """Was the original stopped and its files changed?"""
    return any("method" not in step for step in case["setup"])


async def prepare(case: Case, controller: Controller, now_ms: int) -> None:
    nwid = NetworkId.parse(case["nwid"])
    if edited(case):
        # Objects edited while the original was stopped: take them as they were stored.
        await store(controller, nwid, None, case["controller_network"])
        for address, document in case["controller_members"].items():
            made = dict(document)
            for step in case["setup"]:
                expiry = str(step.get("member", {}).get("authenticationExpiryTime", ""))
                if expiry.startswith("now+"):
                    made["authenticationExpiryTime"] = now_ms + int(expiry[4:])
            if "http_status" not in made:
                await store(controller, nwid, Address.parse(address), made)
        return
    async with client(controller) as http:
        for step in case["setup"]:
            path = step["path"].replace("${nwid}", case["nwid"])
            answer = await http.request(step["method"], path, json=expanded(step["body"]))
            assert answer.status_code == 200


async def store(
    controller: Controller, nwid: NetworkId, address: Address | None, document: dict[str, Any]
) -> None:
    await controller.changes.change((nwid, address), lambda *_: Draft(document), "test")


def dictionary_of(sent: Sent, controller: Identity) -> bytes:
    """Joins the chunks as a receiver does, signatures included."""
    assembler = Assembler()
    whole = None
    for data in sent.chunks:
        chunk = ConfigChunk.decode(data)
        assert chunk.verify(controller)
        assert len(chunk.data) <= 9740
        whole = assembler.add(chunk)
    assert whole is not None
    return whole


def identities_of(recording: dict[str, Any]) -> dict[str, Identity]:
    """Everybody's identity with its private key, by address; ours also as "controller"."""
    keys = recording["meta"]["identities"]
    found = {name: Identity.parse(entry["secret"]) for name, entry in keys.items()}
    return found | {str(found["controller"].address): found["controller"]}


async def run_cases(
    cases: Iterable[Case], identities: dict[str, Identity], home: Path, location: str = ""
) -> None:
    """One after the other, on one controller."""
    link, clock = RecordingLink(), Clock()
    signer = identities["controller"]
    async with running(signer, home, location=location, link=link, clock=clock) as controller:
        for case in cases:
            clock.now = case["controller_network"]["creationTime"]
            await run_case(case, identities, controller, link, clock)


async def run_case(
    case: Case,
    identities: dict[str, Identity],
    controller: Controller,
    link: RecordingLink,
    clock: Clock,
) -> None:
    nwid = NetworkId.parse(case["nwid"])
    quirk = str(case.get("quirk", "")).split(" ")[0]
    await prepare(case, controller, clock())
    metadata = metadata_of(case).encode()
    for address in case["join_order"]:
        joining = identities[address].public()
        link.sent.clear()
        clock.now += 1500
        controller.request(nwid, joining, metadata, None, REQUEST)
        (answer,) = await link.wait(lambda sent: sent.request_id == REQUEST)
        check_answer(case, address, answer, identities["controller"], quirk)
    check_objects(case, controller, quirk)


def check_answer(case: Case, address: str, answer: Sent, signer: Identity, quirk: str) -> None:
    wanted = case["client_configs"].get(address)
    status = case["status"][address]
    if wanted is None:
        error = case.get(f"error_reply_to_{address}")
        if error is not None:
            assert answer.error == error["code"]
            assert (answer.nwid.encode() + answer.data).hex() == error["payload_hex"]
        elif status == "ACCESS_DENIED":
            assert answer.error == ErrorCode.NETWORK_ACCESS_DENIED
        elif quirk not in ANSWERED:
            assert answer.error is not None
        return
    assert status in ("OK", None)
    dictionary = dictionary_of(answer, signer)
    ours, theirs = rendered(dictionary, signer), recorded(wanted["decoded"])
    if quirk not in ("Q12", "Q13"):
        assert list(Dictionary.decode(dictionary)) == wanted["key_order"]
    masks = [drop("ts")]
    if edited(case):
        masks.append(drop("aexpt", "r"))
    if case.get("nondeterministic"):
        masks.append(drop("I", "COO"))
    masks.append(REPAIRED.get(quirk, lambda form: form))
    for mask in masks:
        ours, theirs = mask(ours), mask(theirs)
    assert ours == theirs


VOLATILE = ("creationTime", "lastAuthorizedTime", "lastDeauthorizedTime", "revision")


def check_objects(case: Case, controller: Controller, quirk: str) -> None:
    """The member objects afterwards."""
    network = controller.network(NetworkId.parse(case["nwid"]))
    for address, wanted in case["controller_members"].items():
        if "http_status" in wanted:
            continue
        ours = controller.member(network.nwid, Address.parse(address)).fields()
        ignored = list(VOLATILE)
        if case.get("nondeterministic") or quirk == "Q13":
            ignored.append("ipAssignments")
        if quirk == "Q5":
            ignored.append("remoteTraceLevel")
        if any("member" in step for step in case["setup"]):
            ignored.append("authenticationExpiryTime")
        for key in {*ours, *wanted}.difference(ignored):
            if isinstance(wanted.get(key), dict) and "count" in wanted[key]:
                assert len(ours[key]) == wanted[key]["count"], key
            else:
                assert ours.get(key) == wanted.get(key), (address, key)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        data = load_vectors(metafunc.config, "controller_configs.json") or {"cases": []}
        metafunc.parametrize("case", data["cases"], ids=[case["id"] for case in data["cases"]])


def test_recorded_config(case: Case, vectors: Callable[[str], Any], tmp_path: Path) -> None:
    identities = identities_of(vectors("controller_configs.json"))
    asyncio.run(run_cases([case], identities, tmp_path))
