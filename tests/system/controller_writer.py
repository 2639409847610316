"""Writes members as fast as it can and prints each address once it is acknowledged.

Started by the crash test, which kills it. usage: python -m ... HOME LOCATION IDENTITY
"""

import asyncio
import itertools
import sys
from pathlib import Path

from tests.unit.controller_support import running
from zt.protocol.address import Address, NetworkId
from zt.protocol.identity import Identity

AT_ONCE = 100


async def main(home: str, location: str, secret: str) -> None:
    identity = Identity.parse(secret)
    numbers = itertools.count(0x3000000000)
    async with running(identity, Path(home), location=location) as controller:
        nwid = NetworkId(identity.address << 24 | 1)
        await controller.put_network(nwid, {})

        async def write() -> None:
            for number in numbers:
                address = Address(number)
                await controller.put_member(nwid, address, {"authorized": True})
                sys.stdout.write(f"{address}\n")
                sys.stdout.flush()

        await asyncio.gather(*(write() for _ in range(AT_ONCE)))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
