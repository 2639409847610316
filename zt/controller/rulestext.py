"""Rules written in the rules language, compiled off the event loop."""

import asyncio

from zt.rules import Compiled, compile_rules


async def compile_text(source: str) -> Compiled:
    """Raises zt.rules.RuleError, which names line and column."""
    return await asyncio.to_thread(compile_rules, source)
