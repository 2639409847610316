"""The extended endpoints: pages, bulk changes, rules, log, stream, tokens, backup, description."""

import asyncio
import json
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.unit.controller_support import Clock, RecordingLink, client, running
from zt.controller import Controller
from zt.controller.api import endpoints
from zt.controller.api.auth import PRINCIPAL
from zt.controller.tokens import Scope
from zt.protocol.address import Address, NetworkId
from zt.protocol.identity import Identity
from zt.protocol.inet import InetAddress
from zt.protocol.netconf import RequestMetadata

V5 = "/controller/v5"
Play = Callable[[Controller, httpx.AsyncClient, str], Awaitable[None]]


@pytest.fixture
def api(identity: Identity, tmp_path: Path) -> Callable[[Play], None]:
    """Runs a coroutine function with a controller, a client and the ID of a network."""

    def run(play: Play) -> None:
        async def main() -> None:
            async with (
                running(identity, tmp_path, clock=Clock(), link=RecordingLink()) as controller,
                client(controller) as http,
            ):
                nwid = f"{controller.address}000001"
                assert (await http.post(f"/controller/network/{nwid}", json={})).status_code == 200
                await play(controller, http, nwid)

        asyncio.run(main())

    return run


async def add_members(http: httpx.AsyncClient, nwid: str, count: int) -> list[str]:
    addresses = [f"{0x2000000000 + number:010x}" for number in range(count)]
    for address in addresses:
        body = {"name": f"Node {address[-2:]}", "authorized": int(address[-1], 16) % 2 == 0}
        await http.post(f"/controller/network/{nwid}/member/{address}", json=body)
    return addresses


def test_pages_and_filters(api: Callable[[Play], None]) -> None:
    async def play(controller: Controller, http: httpx.AsyncClient, nwid: str) -> None:
        addresses = await add_members(http, nwid, 10)

        async def pages(**query: object) -> list[str]:
            found: list[str] = []
            after: Any = ""
            while after is not None:
                params = {"limit": 3, "after": after, **query}
                page = (await http.get(f"{V5}/network/{nwid}/member", params=params)).json()
                assert len(page["data"]) <= 3
                found += [entry["member"]["id"] for entry in page["data"]]
                after = page["next"]
            return found

        assert await pages() == addresses
        assert await pages(authorized="true") == addresses[::2]
        assert await pages(authorized="false") == addresses[1::2]
        assert await pages(search="nOdE 04") == [addresses[4]]
        assert await pages(search=addresses[7]) == [addresses[7]]
        assert await pages(online="true") == []
        networks = (await http.get(f"{V5}/network", params={"limit": 1})).json()
        assert networks["data"][0]["meta"]["totalMemberCount"] == 10
        assert networks["next"] is None
        for bad in ({"limit": 0}, {"limit": "x"}, {"after": "zz"}, {"online": "1"}):
            answer = await http.get(f"{V5}/network/{nwid}/member", params=bad)
            assert answer.status_code == 400
            assert answer.json()["description"]

    api(play)


def test_inventory(identity: Identity, tmp_path: Path) -> None:
    async def main() -> None:
        link, clock = RecordingLink(), Clock()
        member = Identity(Address(0x1122334455), bytes(64))
        remote = InetAddress(bytes((192, 0, 2, 7)), 9993)
        metadata = RequestMetadata.own("linux/arm64").encode()
        wanted = {
            "online": True,
            "lastSeen": clock(),
            "physicalAddress": "192.0.2.7/9993",
            "version": "1.14.1",
            "platform": "linux/arm64",
        }
        async with running(identity, tmp_path, link=link, clock=clock) as controller:
            nwid = NetworkId(controller.address << 24 | 1)
            await controller.put_network(nwid, {})
            controller.request(nwid, member, metadata, remote, 1)
            await link.wait(lambda sent: sent.error is not None)
            async with client(controller) as http:
                found = (await http.get(f"{V5}/network/{nwid}/member/1122334455")).json()
                assert found["seen"] == wanted
                # The classic object shows none of it.
                classic = await http.get(f"/controller/network/{nwid}/member/1122334455")
                assert classic.json() == found["member"]
        async with (
            running(identity, tmp_path, clock=clock) as controller,
            client(controller) as http,
        ):
            found = (await http.get(f"{V5}/network/{nwid}/member/1122334455")).json()
            assert found["seen"] == wanted

    asyncio.run(main())


def test_bulk_changes(api: Callable[[Play], None]) -> None:
    async def play(controller: Controller, http: httpx.AsyncClient, nwid: str) -> None:
        addresses = await add_members(http, nwid, 10)
        path = f"{V5}/network/{nwid}/member"

        async def bulk(**body: Any) -> Any:
            return (await http.patch(path, json=body)).json()

        listed = [*addresses[:3], "ffffffffff"]
        assert await bulk(members=listed, set={"authorized": True}) == {
            "changed": 1,
            "unchanged": 2,
            "missing": ["ffffffffff"],
        }
        done = await bulk(where={"authorized": False}, set={"authorized": True, "name": "all"})
        assert (done["changed"], done["unchanged"]) == (4, 0)
        assert controller.network(NetworkId.parse(nwid)).authorized == 10
        assert (await bulk(where={"search": "all"}, delete=True))["changed"] == 4
        assert len(controller.network(NetworkId.parse(nwid)).members) == 6
        for bad in (
            {"set": {}},
            {"members": [], "where": {}, "set": {}},
            {"members": []},
            {"members": ["x"], "set": {}},
            {"members": [], "set": {"unknown": 1}},
            {"members": [], "set": {}, "delete": True},
        ):
            assert (await http.patch(path, json=bad)).status_code == 400

    api(play)


def test_extended_fields(api: Callable[[Play], None]) -> None:
    async def play(controller: Controller, http: httpx.AsyncClient, nwid: str) -> None:
        extra = {
            "description": "office",
            "metadata": {"rack": 7, "owner": {"name": "é"}},
            "certificateTimeoutWindowSize": 600_000,
            "name": "n",
        }
        answer = await http.patch(f"{V5}/network/{nwid}", json=extra)
        assert extra.items() <= answer.json()["network"].items()
        assert controller.network(NetworkId.parse(nwid)).plan.window_ms == 600_000
        # The classic API shows them, and leaves them alone.
        classic = await http.post(f"/controller/network/{nwid}", json={"description": "x"})
        assert classic.json()["description"] == "office"
        answer = await http.patch(
            f"{V5}/network/{nwid}", json={"certificateTimeoutWindowSize": None}
        )
        assert "certificateTimeoutWindowSize" not in answer.json()["network"]
        big = {"metadata": {"x": "y" * 70_000}}
        assert (await http.patch(f"{V5}/network/{nwid}", json=big)).status_code == 400
        assert (await http.patch(f"{V5}/network/{nwid[:-1]}f", json={})).status_code == 404
        (address,) = await add_members(http, nwid, 1)
        path = f"{V5}/network/{nwid}/member/{address}"
        answer = await http.patch(path, json={"ssoExempt": True, "metadata": {"a": [1]}})
        assert answer.json()["member"]["metadata"] == {"a": [1]}
        assert (await http.patch(path[:-1] + "f", json={})).status_code == 404

    api(play)


def test_rules_source(api: Callable[[Play], None]) -> None:
    source = "drop not ethertype ipv4 and not ethertype arp;\ntag dept id 5 enum 1 it;\naccept;\n"

    async def play(controller: Controller, http: httpx.AsyncClient, nwid: str) -> None:
        path = f"{V5}/network/{nwid}"
        answer = await http.patch(path, json={"rulesSource": source})
        network = answer.json()["network"]
        assert network["rulesSource"] == source
        assert [rule["type"] for rule in network["rules"]][-1] == "ACTION_ACCEPT"
        assert [tag["id"] for tag in network["tags"]] == [5]
        compiled = (await http.get(f"{path}/rules")).json()
        assert compiled["source"] == source
        assert "dept" in compiled["tagsByName"]
        bad = await http.patch(path, json={"rulesSource": "accept;\ndrop nonsense;"})
        assert bad.status_code == 422
        assert bad.json()["line"] == 2
        assert bad.json()["column"] > 0
        assert (await http.get(path)).json()["network"] == network
        check = await http.post(f"{V5}/rules", json={"source": "accept;"})
        assert check.json()["config"]["rules"] == [{"type": "ACTION_ACCEPT"}]
        both = {"rulesSource": source, "rules": []}
        assert (await http.patch(path, json=both)).status_code == 400
        # Rules from elsewhere: the text no longer tells what is in force.
        body = {"rules": [{"type": "ACTION_DROP"}]}
        classic = await http.post(f"/controller/network/{nwid}", json=body)
        assert classic.json()["rulesSource"] == ""

    api(play)


def test_log(api: Callable[[Play], None]) -> None:
    async def play(controller: Controller, http: httpx.AsyncClient, nwid: str) -> None:
        (address,) = await add_members(http, nwid, 1)
        member = f"/controller/network/{nwid}/member/{address}"
        await http.post(member, json={"authorized": False})
        await http.post(member, json={"authorized": False})  # no change, no entry
        await http.delete(member)
        log = (await http.get(f"{V5}/log", params={"member": address})).json()
        assert [entry["action"] for entry in log["data"]] == [
            "member.create",
            "member.deauthorize",
            "member.delete",
        ]
        entry = log["data"][1]
        assert entry["actor"] == "local"
        assert entry["time"] == controller.now_ms()
        assert entry["detail"]["authorized"] == {"old": True, "new": False}
        rest = await http.get(f"{V5}/log", params={"after": log["data"][0]["seq"], "limit": 1})
        assert rest.json()["data"] == [entry]
        for wrong in ({"after": "x"}, {"network": "\0"}, {"member": "x"}, {"member": ""}):
            assert (await http.get(f"{V5}/log", params=wrong)).status_code == 400

    api(play)


async def stream(controller: Controller, query: str, wanted: int) -> list[dict[str, Any]]:
    """Reads that many events; the test client could not, it waits for the end of an answer."""
    (endpoint,) = [e for e in endpoints(controller) if e.path.endswith("/events")]
    arrived: asyncio.Queue[bytes] = asyncio.Queue()
    scope = {
        "type": "http",
        "method": "GET",
        "path": endpoint.path,
        "query_string": query.encode(),
        "headers": [],
    }

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Any) -> None:
        await arrived.put(message.get("body", b""))

    task = asyncio.create_task(endpoint.route().app(scope, receive, send))  # type: ignore[arg-type]
    text, events = "", []
    try:
        async with asyncio.timeout(60):
            while len(events) < wanted:
                text += (await arrived.get()).decode()
                *whole, text = text.split("\n\n")
                for block in whole:
                    fields = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line)
                    events.append({"id": int(fields["id"]), **json.loads(fields["data"])})
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    return events


def test_event_stream_resumes(api: Callable[[Play], None]) -> None:
    async def play(controller: Controller, http: httpx.AsyncClient, nwid: str) -> None:
        live = asyncio.create_task(stream(controller, "", 2))
        await asyncio.sleep(0.1)
        (address,) = await add_members(http, nwid, 1)
        await http.delete(f"/controller/network/{nwid}/member/{address}")
        events = await live
        assert [event["action"] for event in events] == ["member.create", "member.delete"]
        again = await stream(controller, f"after={events[0]['id']}", 1)
        assert again == events[1:]
        of_network = await stream(controller, f"after=0&network={nwid}", 3)
        assert of_network[0]["action"] == "network.create"

    api(play)


def test_tokens_and_scopes(api: Callable[[Play], None]) -> None:
    async def play(controller: Controller, http: httpx.AsyncClient, nwid: str) -> None:
        other = f"{nwid[:-1]}2"
        await http.post(f"/controller/network/{other}", json={})
        transport = http._transport
        assert isinstance(transport, httpx.ASGITransport)
        inner = transport.app

        async def make(**body: Any) -> str:
            made = await http.post(f"{V5}/token", json=body)
            assert made.status_code == 200, made.text
            return str(made.json()["secret"])

        def holding(secret: str) -> httpx.AsyncClient:
            async def app(scope: Any, receive: Any, send: Any) -> None:
                asking = controller.authenticate(secret)
                assert asking is not None
                await inner({**scope, PRINCIPAL: asking}, receive, send)

            return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://c")

        reader = holding(await make(name="reader"))
        writer = holding(await make(name="writer", scope="network", networks=[nwid]))
        expiring = await make(name="short", scope="admin", expires=controller.now_ms() + 1000)
        assert controller.authenticate(expiring) is not None
        controller.now_ms.now += 1000  # type: ignore[attr-defined]
        assert controller.authenticate(expiring) is None
        assert controller.authenticate("nonsense") is None

        assert (await reader.get("/controller/network")).json() == [nwid, other]
        assert (await reader.post(f"/controller/network/{nwid}", json={})).status_code == 401
        assert (await reader.get(f"{V5}/token")).status_code == 401
        assert (await writer.get("/controller/network")).json() == [nwid]
        assert (await writer.get(f"/controller/network/{other}")).status_code == 401
        assert (await writer.post("/controller/network", json={})).status_code == 401
        changed = await writer.post(f"/controller/network/{nwid}", json={"name": "mine"})
        assert changed.status_code == 200
        log = (await http.get(f"{V5}/log")).json()["data"]
        assert log[-1]["actor"] == "token:writer"
        assert {entry["network"] for entry in (await writer.get(f"{V5}/log")).json()["data"]} == {
            nwid
        }
        tokens = {t["name"]: t for t in (await http.get(f"{V5}/token")).json()["data"]}
        assert tokens.keys() == {"reader", "writer", "short"}
        assert not any("secret" in token for token in tokens.values())
        path = f"{V5}/token/{tokens['reader']['id']}"
        assert (await http.delete(path)).json() == tokens["reader"]
        assert (await http.delete(path)).status_code == 404
        for bad in ({}, {"name": ""}, {"name": "x", "scope": "root"}, {"name": "x", "y": 1}):
            assert (await http.post(f"{V5}/token", json=bad)).status_code == 400

    api(play)


def test_backup_is_a_database(api: Callable[[Play], None], tmp_path: Path) -> None:
    async def play(controller: Controller, http: httpx.AsyncClient, nwid: str) -> None:
        await add_members(http, nwid, 3)
        answer = await http.get(f"{V5}/backup")
        assert answer.headers["content-type"] == "application/vnd.sqlite3"
        copy = tmp_path / "copy.db"
        copy.write_bytes(answer.content)
        database = sqlite3.connect(copy)
        assert database.execute("SELECT count(*) FROM member").fetchone() == (3,)
        database.close()

    api(play)


def test_every_endpoint_is_described_and_guarded(api: Callable[[Play], None]) -> None:
    async def play(controller: Controller, http: httpx.AsyncClient, nwid: str) -> None:
        document = (await http.get(f"{V5}/openapi.json")).json()
        assert document["openapi"].startswith("3.")
        described = {
            (path, method) for path, methods in document["paths"].items() for method in methods
        }
        served = set()
        for endpoint in endpoints(controller):
            assert endpoint.scope in Scope
            path = endpoint.route().path_format
            served |= {(path, method.lower()) for method in endpoint.methods}
            if any(method in ("PATCH", "DELETE") for method in endpoint.methods):
                assert endpoint.scope > Scope.READ
        assert described == served
        references = set(re_refs(json.dumps(document)))
        assert references <= document["components"]["schemas"].keys()

    def re_refs(text: str) -> list[str]:
        return [part.split('"')[0] for part in text.split("#/components/schemas/")[1:]]

    api(play)
