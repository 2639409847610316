"""Single sign-on: nonces, what members are told, and what a login does (ch. 05, 13)."""

import asyncio
import hmac
from collections.abc import Awaitable, Callable
from hashlib import sha384
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from tests.unit.controller_support import RecordingLink, client, running
from tests.unit.test_controller_requests import Clock, Scene, config, node
from zt.controller import Controller, Settings
from zt.controller.api.auth import PRINCIPAL
from zt.controller.tokens import Principal, Scope
from zt.protocol.dictionary import Dictionary
from zt.protocol.identity import Identity
from zt.protocol.netconf import Sso
from zt.protocol.packet import ErrorCode

URL = "https://front.example/sso"
VERSION_1 = {
    "ssoEnabled": True,
    "ssoVersion": 1,
    "clientId": "client 7",
    "ssoIssuer": "https://issuer.example",
}
VERSION_0 = {
    "ssoEnabled": True,
    "clientId": "client 7",
    "authorizationEndpoint": "https://issuer.example/authorize",
}
HOUR_MS = 3_600_000

Play = Callable[[Scene, httpx.AsyncClient], Awaitable[None]]


async def tell(http: httpx.AsyncClient, **login: Any) -> httpx.Response:
    """What a front end does once it has checked an ID token."""
    return await http.post("/controller/v5/login", json=login)


def run(
    identity: Identity, home: Path, network: dict[str, Any], play: Play, key: bytes | None = None
) -> None:
    async def main() -> None:
        link, clock = RecordingLink(), Clock()
        settings = Settings(login_url=URL, login_key=key)
        async with running(identity, home, link=link, clock=clock, settings=settings) as controller:
            there = Scene(controller, link, clock)
            await controller.put_network(there.nwid, {})
            async with client(controller) as http:
                path = f"/controller/v5/network/{there.nwid}"
                assert (await http.patch(path, json=network)).status_code == 200
                await play(there, http)

    asyncio.run(main())


async def sent_to_login(there: Scene, member: Identity) -> Dictionary:
    answer = await there.ask(member)
    assert answer.error == ErrorCode.AUTHENTICATION_REQUIRED
    assert int.from_bytes(answer.data[:2]) == len(answer.data) - 2
    return Dictionary.decode(answer.data[2:])


def test_version_1(identity: Identity, tmp_path: Path) -> None:
    async def play(there: Scene, http: httpx.AsyncClient) -> None:
        alice = node(1)
        await there.authorize(alice)
        told = await sent_to_login(there, alice)
        assert list(told) == ["aV", "iU", "aCU", "aN", "aS", "aCID"]
        assert told.u64("aV") == 1
        assert (told.text("iU"), told.text("aCU")) == ("https://issuer.example", URL)
        assert told.text("aCID") == "client 7"
        nonce, state = told.text("aN"), told.text("aS")
        proof = hmac.digest(b"key", bytes.fromhex(nonce), sha384).hex()
        assert state == f"{proof}_{there.nwid}"
        # The same one while it is good.
        assert (await sent_to_login(there, alice)).text("aN") == nonce
        assert (await sent_to_login(there, node(2))).text("aN") != nonce

        end = there.clock() + HOUR_MS
        answer = await tell(http, nonce=nonce, state=proof, expires=end)
        assert answer.json() == {"network": str(there.nwid), "member": str(alice.address)}
        (pushed,) = await there.link.wait(lambda sent: bool(sent.chunks))
        expected = Sso(
            version=1,
            enabled=True,
            issuer_url="https://issuer.example",
            central_url=URL,
            nonce=nonce,
            state=state,
            client_id="client 7",
        )
        assert config(pushed).sso == expected
        assert config(await there.ask(alice)).sso == expected
        assert there.controller.member(there.nwid, alice.address).fields()["ssoNonce"] == nonce
        assert (await tell(http, nonce=nonce, state=proof, expires=end)).status_code == 400

        # The member's program refreshes its token before the session ends.
        assert (await tell(http, nonce=nonce, expires=end + HOUR_MS)).status_code == 200
        there.clock.now = end + HOUR_MS - 60_000
        assert not (await there.ask(alice)).error
        there.link.sent.clear()
        there.clock.now = end + HOUR_MS
        await there.link.wait(lambda sent: bool(sent.revocations))
        again = await sent_to_login(there, alice)
        assert again.text("aN") != nonce

    run(identity, tmp_path, VERSION_1, play, key=b"key")


def test_version_0_is_a_finished_url(identity: Identity, tmp_path: Path) -> None:
    async def play(there: Scene, http: httpx.AsyncClient) -> None:
        alice = node(1)
        await there.authorize(alice)
        told = await sent_to_login(there, alice)
        assert list(told) == ["aV", "aU"]
        url = urlsplit(told.text("aU"))
        assert url._replace(query="").geturl() == "https://issuer.example/authorize"
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        nonce, state = query.pop("nonce"), query.pop("state")
        assert query == {
            "response_type": "id_token",
            "response_mode": "form_post",
            "scope": "openid email profile",
            "redirect_uri": URL,
            "client_id": "client 7",
        }
        assert state == hmac.digest(b"key", bytes.fromhex(nonce), sha384).hex()
        end = there.clock() + HOUR_MS
        assert (await tell(http, nonce=nonce, state=state, expires=end)).status_code == 200
        sso = config(await there.ask(alice)).sso
        assert sso == Sso(enabled=True, expiry_ms=end)

    run(identity, tmp_path, VERSION_0, play, key=b"key")


def test_what_is_refused(identity: Identity, tmp_path: Path) -> None:
    async def play(there: Scene, http: httpx.AsyncClient) -> None:
        alice, bob = node(1), node(2)
        for member in (alice, bob):
            await there.authorize(member)
        told, other = await sent_to_login(there, alice), await sent_to_login(there, bob)
        nonce, state = told.text("aN"), told.text("aS")
        end = there.clock() + HOUR_MS
        for login, words in (
            ({"nonce": "0" * 32, "state": state, "expires": end}, "unknown nonce"),
            ({"nonce": nonce, "state": other.text("aS"), "expires": end}, "does not belong"),
            ({"nonce": nonce, "state": "ü", "expires": end}, "does not belong"),
            ({"nonce": nonce, "state": state, "expires": there.clock()}, "over already"),
            ({"nonce": nonce, "expires": end}, "no session"),
            ({"nonce": "ü" * 32, "state": state, "expires": end}, "regex"),
        ):
            answer = await tell(http, **login)
            assert (answer.status_code, words in answer.text) == (400, True), answer.text
        there.clock.now += 300_000
        answer = await tell(http, nonce=nonce, state=state, expires=end)
        assert "has expired" in answer.text
        assert (await sent_to_login(there, alice)).text("aN") != nonce

        # A session may be taken up again for a day after its end.
        told = await sent_to_login(there, bob)
        nonce, state = told.text("aN"), told.text("aS")
        assert (await tell(http, nonce=nonce, state=state, expires=end)).status_code == 200
        there.clock.now = end + 23 * HOUR_MS
        assert (await tell(http, nonce=nonce, expires=there.clock() + 1)).status_code == 200
        there.clock.now += 25 * HOUR_MS
        answer = await tell(http, nonce=nonce, expires=there.clock() + HOUR_MS)
        assert "too long ago" in answer.text
        await there.controller.logins.tidy()
        assert await there.controller.store.login(nonce) is None

        # The member goes, and its nonces with it.
        told = await sent_to_login(there, bob)
        nonce, state = told.text("aN"), told.text("aS")
        await there.controller.delete_member(there.nwid, bob.address)
        answer = await tell(http, nonce=nonce, state=state, expires=there.clock() + HOUR_MS)
        assert "unknown nonce" in answer.text

    run(identity, tmp_path, VERSION_1, play)


def test_a_session_ends_when_somebody_says_so(identity: Identity, tmp_path: Path) -> None:
    async def play(there: Scene, http: httpx.AsyncClient) -> None:
        alice = node(1)
        await there.authorize(alice)
        told = await sent_to_login(there, alice)
        login = {"nonce": told.text("aN"), "state": told.text("aS")}
        assert (await tell(http, **login, expires=there.clock() + HOUR_MS)).status_code == 200
        assert not (await there.ask(alice)).error
        body = {"authenticationExpiryTime": 0}
        await there.controller.put_member(there.nwid, alice.address, body)
        await there.link.wait(lambda sent: bool(sent.revocations))
        assert there.revocations() == {alice.address: [[alice.address]]}
        await sent_to_login(there, alice)

    run(identity, tmp_path, VERSION_1, play)


def test_states_outlive_a_restart(identity: Identity, tmp_path: Path) -> None:
    """Without a key of the operator's there is one in the database."""
    kept: dict[str, str] = {}

    async def first(there: Scene, http: httpx.AsyncClient) -> None:
        await there.authorize(node(1))
        told = await sent_to_login(there, node(1))
        kept.update(nonce=told.text("aN"), state=told.text("aS"))

    async def second(there: Scene, http: httpx.AsyncClient) -> None:
        there.clock.now += 10_000
        assert (await sent_to_login(there, node(1))).text("aS") == kept["state"]
        answer = await tell(http, **kept, expires=there.clock() + HOUR_MS)
        assert answer.status_code == 200, answer.text

    for play in (first, second):
        run(identity, tmp_path, VERSION_1, play)


@pytest.mark.parametrize(
    ("network", "exempt"),
    [
        ({"ssoEnabled": True}, False),
        ({"ssoEnabled": True, "ssoVersion": 1, "clientId": "x"}, False),
        (VERSION_1, True),
    ],
    ids=["not set up", "half set up", "exempt member"],
)
def test_networks_that_send_nobody_to_a_login(
    identity: Identity, tmp_path: Path, network: dict[str, Any], exempt: bool
) -> None:
    async def play(there: Scene, http: httpx.AsyncClient) -> None:
        alice = node(1)
        await there.authorize(alice)
        path = f"/controller/v5/network/{there.nwid}/member/{alice.address}"
        await http.patch(path, json={"ssoExempt": exempt})
        if exempt:
            assert config(await there.ask(alice)).sso == Sso(enabled=True)
        else:
            answer = await there.ask(alice)  # as recorded
            assert answer.data == b"\x00\x17aV=0000000000000000\naU="

    run(identity, tmp_path, network, play)


def test_who_may_tell_of_logins(identity: Identity, tmp_path: Path) -> None:
    async def play(there: Scene, http: httpx.AsyncClient) -> None:
        login = {"nonce": "0" * 32, "state": "", "expires": there.clock() + HOUR_MS}
        app = http._transport.app  # type: ignore[attr-defined]

        async def asked_by(principal: Principal) -> int:
            async def scoped(scope: Any, receive: Any, send: Any) -> None:
                await app(scope | {PRINCIPAL: principal}, receive, send)

            transport = httpx.ASGITransport(scoped)
            async with httpx.AsyncClient(transport=transport, base_url="http://c") as there:
                return (await tell(there, **login)).status_code

        assert await asked_by(Principal("token:r", Scope.READ)) == 401
        assert await asked_by(Principal("token:o", Scope.NETWORK, frozenset({there.nwid}))) == 401
        assert await asked_by(Principal("token:n", Scope.NETWORK)) == 400

    run(identity, tmp_path, VERSION_1, play)


def test_nonces_are_few(identity: Identity, tmp_path: Path) -> None:
    """However often a member asks, the database is written to once in five minutes."""

    async def play(there: Scene, http: httpx.AsyncClient) -> None:
        await there.authorize(node(1))
        opened: list[str] = []
        controller: Controller = there.controller
        original = controller.store.open_login

        async def counting(row: Any, now_ms: int) -> Any:
            opened.append(row.nonce)
            return await original(row, now_ms)

        controller.store.open_login = counting  # type: ignore[method-assign]
        nonces = {(await sent_to_login(there, node(1))).text("aN") for _ in range(20)}
        assert (len(nonces), len(opened)) == (1, 1)

    run(identity, tmp_path, VERSION_1, play)
