"""The rules language: text to the JSON rules that controllers store, and back.

Source: docs/protocol/07. A text goes through ``lexer`` (words and blocks), ``definitions`` (tags,
macros, capabilities), ``render`` (JSON entries) and ``lint`` (warnings); ``compiler`` joins them.
``explain`` goes the other way, ``layout`` formats, ``policy`` tests rules against frames.
"""

from zt.rules.compiler import Compiled, compile_rules
from zt.rules.errors import Diagnostic, RuleError
from zt.rules.explain import explain
from zt.rules.layout import format_rules

__all__ = ["Compiled", "Diagnostic", "RuleError", "compile_rules", "explain", "format_rules"]
