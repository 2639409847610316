"""The parent of the UPnP client (`igd`): starts it, asks it, ends it."""

import asyncio
import json
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from contextlib import suppress
from typing import Any

from zt.protocol.errors import DecodeError
from zt.protocol.inet import parse_ip
from zt.service.portmap import igd

PROGRAM = (sys.executable, "-I", igd.__file__)
DISCOVER_LIMIT_S = 10.0
"""A start of Python, the discovery (4 s when nobody answers), two requests."""
MAP_LIMIT_S = 10.0
MAX_ANSWER = 4096


class UpnpClient:
    """One child process at a time, from the first question to `close`."""

    def __init__(self) -> None:
        self._process: Process | None = None
        self.problem = ""
        """What the last question failed with."""

    async def discover(
        self, device: str, limit_s: float = DISCOVER_LIMIT_S
    ) -> tuple[str, bytes] | None:
        """The URL of an Internet gateway device and its external IPv4 address."""
        answer = await self._ask(limit_s, do="discover", interface=device)
        url, external = answer.get("url"), answer.get("external")
        if not isinstance(url, str) or not isinstance(external, str):
            return None
        try:
            ip = parse_ip(external)
        except DecodeError:
            ip = b""
        if len(ip) != 4:
            self.problem = "the device has no external address"
            return None
        return url, ip

    async def map(
        self,
        url: str,
        internal: int,
        external: int,
        description: str,
        limit_s: float = MAP_LIMIT_S,
    ) -> bool | None:
        """Whether the port is mapped to us now; None if there was no answer."""
        answer = await self._ask(
            limit_s,
            do="map",
            url=url,
            internal=internal,
            external=external,
            description=description,
        )
        return answer.get("granted") is True if answer else None

    async def unmap(self, url: str, external: int, description: str, limit_s: float) -> None:
        """Removes a mapping if it is ours."""
        await self._ask(limit_s, do="unmap", url=url, external=external, description=description)

    async def close(self) -> None:
        """Ends the child, whatever it does."""
        process, self._process = self._process, None
        if process is not None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _ask(self, limit_s: float, **request: Any) -> dict[str, Any]:
        """The child's answer, {} if there is none; then the child is gone."""
        self.problem = ""
        try:
            async with asyncio.timeout(limit_s):
                process = await self._running()
                assert process.stdin is not None
                assert process.stdout is not None
                process.stdin.write(json.dumps(request).encode() + b"\n")
                await process.stdin.drain()
                line = await process.stdout.readline()
            answer = json.loads(line)
            if not isinstance(answer, dict):
                raise ValueError("not an object")
        except asyncio.CancelledError:
            await self.close()  # or the next question would get this one's answer
            raise
        except TimeoutError:
            self.problem = "no answer"
        except (OSError, ValueError):  # it ended, or its line is too long or empty
            self.problem = "the UPnP client failed"
        else:
            self.problem = str(answer.get("error", ""))
            return answer
        await self.close()
        return {}

    async def _running(self) -> Process:
        if self._process is None:
            self._process = await asyncio.create_subprocess_exec(
                *PROGRAM,
                stdin=PIPE,
                stdout=PIPE,
                stderr=DEVNULL,
                limit=MAX_ANSWER,
                start_new_session=True,  # Ctrl-C is for us
            )
        return self._process
