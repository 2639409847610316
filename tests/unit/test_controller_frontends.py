"""The requests that ztncui and ztnet make (ch. 05, 18), with what they look at in the answers."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.unit.controller_support import client, running
from zt.protocol.identity import Identity

MEMBER = "1122334455"


@pytest.fixture
def play(identity: Identity, tmp_path: Path) -> Callable[..., None]:
    def run(story: Callable[[httpx.AsyncClient, str], Coroutine[Any, Any, None]]) -> None:
        async def main() -> None:
            async with running(identity, tmp_path) as controller, client(controller) as http:
                await story(http, str(controller.address))

        asyncio.run(main())

    return run


async def call(http: httpx.AsyncClient, method: str, path: str, body: Any = None) -> Any:
    """Front ends take every status from 400 up for a failure."""
    answer = await http.request(method, path, json=body)
    assert answer.status_code < 400, (method, path, answer.text)
    return answer.json()


def test_ztncui(play: Callable[..., None]) -> None:
    async def story(http: httpx.AsyncClient, address: str) -> None:
        made = await call(http, "POST", f"/controller/network/{address}______", {"name": "office"})
        nwid = made["nwid"]
        path = f"/controller/network/{nwid}"
        assert nwid in await call(http, "GET", "/controller/network")
        seen = await call(http, "GET", path)
        assert (seen["name"], seen["private"], seen["routes"]) == ("office", True, [])
        assert seen["dns"] == []
        # Check boxes and choices arrive as text.
        assert (await call(http, "POST", path, {"private": "false"}))["private"] is False
        assert (await call(http, "POST", path, {"private": "true"}))["private"] is True
        mode = await call(http, "POST", path, {"v4AssignMode": {"zt": "true"}})
        assert mode["v4AssignMode"] == {"zt": True}
        six = {"6plane": "false", "rfc4193": "true", "zt": "false"}
        mode = await call(http, "POST", path, {"v6AssignMode": six})
        assert mode["v6AssignMode"] == {"6plane": False, "rfc4193": True, "zt": False}
        # Easy setup, then lists read, edited and written back whole.
        easy = {
            "ipAssignmentPools": [{"ipRangeStart": "10.9.0.1", "ipRangeEnd": "10.9.0.254"}],
            "routes": [{"target": "10.9.0.0/24", "via": None}],
            "v4AssignMode": {"zt": True},
        }
        assert easy.items() <= (await call(http, "POST", path, easy)).items()
        routes = (await call(http, "GET", path))["routes"]
        routes.append({"target": "FD00:0:0::/64", "via": None})
        routes = (await call(http, "POST", path, {"routes": routes}))["routes"]
        assert routes[1] == {"target": "fd00::/64", "via": None}
        kept = [route for route in routes if route["target"] != "fd00::/64"]
        assert (await call(http, "POST", path, {"routes": kept}))["routes"] == easy["routes"]
        dns = {"domain": "office.test", "servers": ["10.9.0.53"]}
        assert (await call(http, "POST", path, {"dns": dns}))["dns"] == dns
        # Members: the list, then one by one.
        member = f"{path}/member/{MEMBER}"
        assert (await call(http, "POST", member, {"authorized": "true"}))["authorized"] is True
        bridge = await call(http, "POST", member, {"activeBridge": "false"})
        assert bridge["activeBridge"] is False
        ips = await call(http, "POST", member, {"ipAssignments": ["10.9.0.7"]})
        assert ips["ipAssignments"] == ["10.9.0.7"]
        assert list(await call(http, "GET", f"{path}/member")) == [MEMBER]
        fields = {"id", "address", "nwid", "authorized", "activeBridge", "ipAssignments"}
        assert fields <= (await call(http, "GET", member)).keys()
        assert (await call(http, "DELETE", member))["id"] == MEMBER
        assert isinstance(await call(http, "DELETE", path), dict)

    play(story)


def test_ztnet(play: Callable[..., None]) -> None:
    async def story(http: httpx.AsyncClient, address: str) -> None:
        status = await call(http, "GET", "/controller")
        assert (status["controller"], status["apiVersion"]) == (True, 4)
        assert isinstance(status["clock"], int)
        first = {
            "name": "happy-otter",
            "private": True,
            "ipAssignmentPools": [{"ipRangeStart": "10.1.0.1", "ipRangeEnd": "10.1.0.254"}],
            "routes": [{"target": "10.1.0.0/24", "via": None}],
            "v4AssignMode": {"zt": True},
            "cidrOptions": ["10.1.0.0/24"],
        }
        made = await call(http, "POST", f"/controller/network/{address}______", first)
        assert made["name"] == "happy-otter"
        assert "cidrOptions" not in made
        path = f"/controller/network/{made['nwid']}"
        rules = [{"type": "MATCH_ETHERTYPE", "etherType": 2048}, {"type": "ACTION_ACCEPT"}]
        for change in (
            {"name": "other"},
            {"private": False},
            {"mtu": 1400},
            {"multicastLimit": 16, "enableBroadcast": False},
            {"v4AssignMode": {"zt": False}},
            {"v6AssignMode": {"6plane": True, "rfc4193": False, "zt": False}},
            {"routes": [{"target": "10.2.0.0/16", "via": "10.1.0.1"}]},
            {"dns": {"domain": "", "servers": []}},
        ):
            assert change.items() <= (await call(http, "POST", path, change)).items()
        flow = {
            "rules": rules,
            "capabilities": [{"id": 1, "default": False, "rules": rules}],
            "tags": [{"id": 2, "default": 3}],
            "capabilitiesByName": {"c": 1},
            "tagsByName": {"t": {"id": 2}},
            "rulesSource": "accept;",
        }
        saved = await call(http, "POST", path, flow)
        assert [rule["type"] for rule in saved["rules"]] == [rule["type"] for rule in rules]
        assert saved["rulesSource"] == ""
        member = f"{path}/member/{MEMBER}"
        # Details are read again only when the revision in the list has changed.
        revisions = []
        for change in (
            {},
            {"authorized": True},
            {"name": "laptop", "description": "x", "hidden": True},
            {"ipAssignments": ["10.1.0.9"], "noAutoAssignIps": True},
            {"capabilities": [1], "tags": [[2, 7]]},
            {"authorized": False, "ipAssignments": [], "capabilities": [], "tags": []},
        ):
            answer = await call(http, "POST", member, change)
            assert not {"description", "hidden"} & answer.keys()
            revisions.append((await call(http, "GET", f"{path}/member"))[MEMBER])
        assert revisions == [1, 2, 3, 4, 5, 6]
        details = {"id", "address", "nwid", "authorized", "ipAssignments", "noAutoAssignIps"}
        details |= {"activeBridge", "name", "tags", "capabilities", "creationTime", "vMajor"}
        assert details <= (await call(http, "GET", member)).keys()
        await call(http, "DELETE", member)
        await call(http, "DELETE", path)
        assert (await http.get(path)).status_code == 404

    play(story)
