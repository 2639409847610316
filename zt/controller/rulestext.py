"""Rules written in the rules language, compiled off the event loop."""

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zt.rules import Compiled


class RulesRefused(ValueError):
    """A text that is no good, and where (`zt.rules.RuleError`)."""

    def __init__(self, message: str, line: int, column: int, code: str) -> None:
        super().__init__(message)
        self.message = message
        self.line = line
        self.column = column
        self.code = code


async def compile_text(source: str) -> "Compiled":
    """Raises RulesRefused."""
    # Imported when asked for: few controllers are given rules as text.
    from zt.rules import RuleError, compile_rules

    try:
        return await asyncio.to_thread(compile_rules, source)
    except RuleError as error:
        raise RulesRefused(error.message, error.line, error.column, error.code) from error
