"""Rules written in the rules language, compiled off the event loop."""

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zt.rules import Compiled, RuleError


class RulesRefused(Exception):
    """A text that is no good; for those who do not load the compiler to catch its error."""

    def __init__(self, error: "RuleError") -> None:
        super().__init__(str(error))
        self.error = error


async def compile_text(source: str) -> "Compiled":
    """Raises RulesRefused."""
    # Imported when asked for: few controllers are given rules as text.
    from zt.rules import RuleError, compile_rules

    try:
        return await asyncio.to_thread(compile_rules, source)
    except RuleError as error:
        raise RulesRefused(error) from error
