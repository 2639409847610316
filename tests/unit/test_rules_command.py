"""The command line of the rules language."""

import io
import json
import sys
from pathlib import Path

import pytest

from zt.rules import compile_rules
from zt.rules.main import main


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    return tmp_path / "r.rules"


def test_compile_prints_the_output_object(rules: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rules.write_text("accept ethertype arp;\n")
    assert main(["compile", "-j", str(rules)]) == 0
    output = json.loads(capsys.readouterr().out)
    assert output == compile_rules("accept ethertype arp;\n").output()


def test_compile_error_as_json(rules: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rules.write_text("accept\n  bogus;\n")
    assert main(["compile", "-j", str(rules)]) == 1
    error = json.loads(capsys.readouterr().out)["error"]
    assert error.keys() == {"line", "column", "message"}
    assert (error["line"], error["column"]) == (2, 3)
    assert "bogus" in error["message"]


def test_error_shows_the_line_and_a_caret(rules: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rules.write_text("accept ethertype arp;\n\tdrop bogus;\n")
    assert main(["check", str(rules)]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith(f"{rules}:2:7: ")
    assert lines[1].index("bogus") == lines[2].index("^")


def test_compatible_mode(rules: Path) -> None:
    rules.write_text("accept; drop;\n")
    assert main(["compile", str(rules)]) == 0
    assert main(["compile", "--compatible", str(rules)]) == 1


def test_standard_input(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stdin = io.TextIOWrapper(io.BytesIO(b"drop ethertype arp; accept;"))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert main(["format", "-"]) == 0
    assert capsys.readouterr().out == "drop ethertype arp;\naccept;\n"


def test_format_in_place(rules: Path) -> None:
    rules.write_text("accept   ethertype\narp ;")
    assert main(["format", "-i", str(rules)]) == 0
    assert rules.read_text() == "accept ethertype arp;\n"


def test_explain(rules: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rules.write_text(json.dumps(compile_rules("accept icmp 8 -1;").output()))
    assert main(["explain", str(rules)]) == 0
    assert capsys.readouterr().out == "accept icmp 8 -1;\n"
    rules.write_text("[")
    assert main(["explain", str(rules)]) == 1
    assert "no JSON" in capsys.readouterr().err


def test_unreadable_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(tmp_path / "none")]) == 1
    assert "No such file" in capsys.readouterr().err
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe")
    assert main(["check", str(binary)]) == 1
    assert "not UTF-8" in capsys.readouterr().err
