"""Bodies and paths that nobody should send: an answer, never a traceback or a damaged object."""

import asyncio
import json
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.controller_support import client, running
from zt.controller import documents
from zt.controller.bodies import BodyError, dump, load, parse
from zt.controller.decisions import decide, listed_ips
from zt.controller.plan import NetworkPlan
from zt.controller.state import Member
from zt.protocol.address import Address, NetworkId
from zt.protocol.identity import Identity
from zt.protocol.netconf import RequestMetadata

NWID, ADDRESS = NetworkId(0x1122334455000001), Address(0x2233445566)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
numbers = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
addresses = st.sampled_from(["10.0.0.1/24", "fd00::/8", "10.0.0.0/33", "x.y", ":", "1.2.3.4/x"])
scalars = st.none() | st.booleans() | numbers | texts | addresses
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


def bodies(names: set[str]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with fields that are known, and values of any type."""
    keys = st.sampled_from(sorted(names))
    inner_keys = st.sampled_from(
        ["id", "default", "rules", "type", "mask", "ip", "target", "via", "zt", "6plane", "domain",
         "servers", "ipRangeStart", "ipRangeEnd"]
    )  # fmt: skip
    rules = st.fixed_dictionaries(
        {
            "type": st.sampled_from(
                ["ACTION_TEE", "MATCH_MAC_SOURCE", "INTEGER_RANGE", "MATCH_ICMP"]
            )
        },
        optional=dict.fromkeys(("address", "mac", "start", "end", "bits", "icmpCode"), values),
    )
    nested = st.lists(st.dictionaries(inner_keys, values, max_size=5) | rules, max_size=3)
    return st.dictionaries(keys, values | nested, max_size=6)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(bodies({*documents.default_network(NWID, 0), "certificateTimeoutWindowSize"}))
def test_any_network(body: dict[str, Any]) -> None:
    try:
        network = documents.update_network(None, NWID, body, 1)
    except BodyError:
        pass
    else:
        assert load(dump(network)) == network
        # Written back as shown, only the default rules change: once, to their normalised form.
        again = documents.update_network(network, NWID, network, 1)
        assert documents.revise(again, documents.update_network(again, NWID, again, 1)) is None
        NetworkPlan(network)
    # What came from elsewhere is not even normalised.
    NetworkPlan(documents.default_network(NWID, 0) | body)
    NetworkPlan(body)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(bodies({*documents.default_member(NWID, ADDRESS, 0), "identity"}))
def test_any_member(body: dict[str, Any]) -> None:
    try:
        member = documents.update_member(None, NWID, ADDRESS, body, 1)
    except BodyError:
        pass
    else:
        assert load(dump(member)) == member
    Member(ADDRESS, 1, dump(body))
    listed_ips(body)
    plan = NetworkPlan({"private": False, "tags": [{"id": 1, "default": 2}]})
    holder = Identity(ADDRESS, bytes(64))
    decide(NWID, plan, body, holder, RequestMetadata(rules_revision=1), 1)


@given(st.binary(max_size=60) | texts.map(str.encode))
def test_any_body(body: bytes) -> None:
    try:
        value = parse(body)
    except BodyError:
        return
    text = body.partition(b"\0")[0].removeprefix(b"\xef\xbb\xbf")
    assert json.dumps(json.loads(text)) == json.dumps(value)


def test_hostile_requests(identity: Identity, tmp_path: Path) -> None:
    async def play() -> None:
        async with running(identity, tmp_path) as controller, client(controller) as http:
            nwid = f"{controller.address}000001"
            path = f"/controller/network/{nwid}"
            await http.post(path, json={})
            before = (await http.get(path)).content
            nested = b"[" * 100_000
            for body in (nested, b'{"a":' * 50_000, b'{"name":"\xff"}', b'"\\ud800"', b"\0{}", b""):
                for target in (path, f"{path}/member/{ADDRESS}", "/controller/network"):
                    answer = await http.post(target, content=body)
                    assert answer.status_code == 500
                    assert answer.json()["error"] == 500
                answer = await http.patch(f"/controller/v5/network/{nwid}", content=body)
                assert answer.status_code == 400
            assert (await http.get(path)).content == before
            assert (await http.get("/controller/network")).json() == [nwid]
            # Over-long names and domains reach members cut, and poison nothing (Q6, Q9).
            huge = {"name": "é" * 100_000, "dns": {"domain": "d" * 60_000, "servers": ["1.1.1.1"]}}
            assert (await http.post(path, json=huge)).status_code == 200
            plan = controller.network(NetworkId.parse(nwid)).plan
            assert len(plan.name.encode()) == 126
            assert len(plan.domain) == 127
            # U+0000 is text like any other.
            answer = await http.post(path, json={"name": "a\0b"})
            assert answer.json()["name"] == "a\0b"
            for method, target in (
                ("GET", "/controller/v5/log?limit=99999999999999999999"),
                ("GET", "/controller/v5/network?after=%00"),
                ("GET", f"/controller/v5/network/{nwid}/member?limit=-1"),
            ):
                assert (await http.request(method, target)).status_code == 400

    asyncio.run(play())
