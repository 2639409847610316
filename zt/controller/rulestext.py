"""Rules written in the rules language, compiled off the event loop."""

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zt.rules import Compiled


async def compile_text(source: str) -> "Compiled":
    """Raises zt.rules.RuleError, which names line and column."""
    # Imported when asked for: few controllers are given rules as text.
    from zt.rules import compile_rules

    return await asyncio.to_thread(compile_rules, source)
