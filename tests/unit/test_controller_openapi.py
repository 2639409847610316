"""Requests made up from the OpenAPI document: whatever they hold, the controller does not fail."""

import asyncio
import os
import random
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from starlette.applications import Starlette

from tests.unit.controller_support import running
from zt.controller.api import routes
from zt.protocol.address import Address, NetworkId
from zt.protocol.identity import Identity

EXAMPLES = int(os.environ.get("ZT_API_EXAMPLES", "5"))
"""Requests per operation."""
EVENTS = "/controller/v5/events"
"""Never ends, so it is not asked here."""
MEMBER = Address(0x1122334455)


@contextmanager
def served(identity: Identity, home: Path, location: str) -> Iterator[str]:
    """The base URL of a controller with one network and one member, in a thread of its own."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    ready = threading.Event()
    server: list[uvicorn.Server] = []

    async def main() -> None:
        async with running(identity, home, location=location) as controller:
            nwid = NetworkId(identity.address << 24 | 1)
            await controller.put_network(nwid, {})
            await controller.put_member(nwid, MEMBER, {})
            app = Starlette(routes=routes(controller))
            server.append(
                uvicorn.Server(uvicorn.Config(app, log_config=None, log_level="critical"))
            )
            ready.set()
            await server[0].serve(sockets=[listener])

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    assert ready.wait(20)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server[0].should_exit = True
        thread.join(20)
        listener.close()


def storm(identity: Identity, home: Path, location: str = "") -> None:
    """Send requests for every operation; about half of them name objects that exist."""
    import schemathesis  # large, and every worker collects this module

    number = int(os.environ.get("ZT_API_SEED", random.randrange(1 << 32)))
    print(f"ZT_API_SEED={number}")
    known = {
        "nwid": f"{identity.address}000001",
        "address": str(MEMBER),
        "prefix": f"{identity.address}______",
    }
    asked: set[int] = set()
    with served(identity, home, location) as url:
        schema = schemathesis.openapi.from_url(f"{url}/controller/v5/openapi.json")
        for found in schema.get_all_operations():
            operation = found.ok()
            if operation.path == EVENTS:
                continue

            @seed(number)
            @settings(
                max_examples=EXAMPLES,
                deadline=None,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy(), existing=st.booleans())
            def request(case: Any, existing: bool) -> None:
                if existing:
                    case.path_parameters |= {
                        name: value for name, value in known.items() if name in case.path_parameters
                    }
                answer = case.call()
                asked.add(answer.status_code)
                what = f"{case.as_curl_command()}: {answer.status_code} {answer.content!r}"
                # The classic API has one code for bodies that are no JSON (ch. 05, 2.4).
                classic = "/v5/" not in case.operation.path
                recorded = classic and b"[json.exception" in answer.content
                assert answer.status_code < 500 or recorded, what

            request()
        assert httpx.get(f"{url}/controller").json()["databaseReady"]
    assert 200 in asked  # which others depends on the seed


def test_made_up_requests(identity: Identity, tmp_path: Path) -> None:
    storm(identity, tmp_path)
