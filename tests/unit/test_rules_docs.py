"""Every example of docs/rules.md compiles, is in the one layout's meaning, and explains back."""

import re
from pathlib import Path

import pytest

from zt.rules import compile_rules, explain, format_rules

GUIDE = Path(__file__).parents[2] / "docs" / "rules.md"
EXAMPLES = re.findall(r"```rules\n(.*?)```", GUIDE.read_text(), re.DOTALL)


def test_the_guide_has_examples() -> None:
    assert EXAMPLES


@pytest.mark.parametrize("text", EXAMPLES, ids=[text.strip().splitlines()[0] for text in EXAMPLES])
def test_example(text: str) -> None:
    output = compile_rules(text).output()
    assert compile_rules(format_rules(text)).output() == output
    assert compile_rules(explain(output)).output() == output
