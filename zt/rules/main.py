"""``zerotier-rules``: compile, check, format, explain and test network rules."""

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from zt.rules.compiler import Compiled, compile_rules
from zt.rules.errors import RuleError
from zt.rules.explain import explain
from zt.rules.layout import format_rules

if TYPE_CHECKING:
    from zt.rules.policy import Result

Command = Callable[[argparse.Namespace], int]


class _Unreadable(Exception):
    """A file that cannot be read as text; the message names it."""


def _read_bytes(path: str) -> bytes:
    try:
        if path == "-":
            return sys.stdin.buffer.read()
        with open(path, "rb") as file:
            return file.read()
    except OSError as problem:
        raise _Unreadable(f"{path}: {problem.strerror}") from None


def _read(path: str) -> str:
    """A text file. Line ends stay as they are: positions refer to the text as written."""
    try:
        return _read_bytes(path).decode("utf-8")
    except UnicodeDecodeError:
        raise _Unreadable(f"{path}: not UTF-8 text") from None


def _name(path: str) -> str:
    return "<stdin>" if path == "-" else path


def _print_json(value: Any) -> None:
    json.dump(value, sys.stdout, indent=1, ensure_ascii=False)
    sys.stdout.write("\n")


def _show_error(error: RuleError, path: str, text: str) -> None:
    print(error.located(_name(path)), file=sys.stderr)
    lines = text.split("\n")
    if not 1 <= error.line <= len(lines):
        return
    line = lines[error.line - 1].rstrip("\r")
    units = error.column - (0 if error.line == 1 else 1)
    before = line.encode("utf-16-le", "surrogatepass")[: 2 * units].decode("utf-16-le", "replace")
    # Tabs stay tabs, so that the caret stands under its word whatever their width.
    margin = "".join("\t" if c == "\t" else " " for c in before)
    print(f"  {line[:200]}", file=sys.stderr)
    if len(margin) < 200:
        print(f"  {margin}^", file=sys.stderr)


def _fail(arguments: argparse.Namespace, error: RuleError, text: str) -> int:
    if arguments.json:
        place = {"line": error.line, "column": error.column, "message": error.message}
        _print_json({"error": place})
    else:
        _show_error(error, arguments.file, text)
    return 1


def _warn(arguments: argparse.Namespace, compiled: Compiled) -> None:
    for warning in compiled.warnings:
        print(f"warning: {warning.located(_name(arguments.file))}", file=sys.stderr)


def _compile(arguments: argparse.Namespace) -> int:
    text = _read(arguments.file)
    try:
        compiled = compile_rules(text, compatible=arguments.compatible)
    except RuleError as error:
        return _fail(arguments, error, text)
    if not arguments.json:
        _warn(arguments, compiled)
    _print_json(compiled.output())
    return 0


def _check(arguments: argparse.Namespace) -> int:
    text = _read(arguments.file)
    try:
        compiled = compile_rules(text)
    except RuleError as error:
        return _fail(arguments, error, text)
    config = compiled.config
    entries = len(config["rules"])
    counts = (len(config["capabilities"]), len(config["tags"]))
    if arguments.json:
        warnings = [
            {"code": w.code, "line": w.line, "column": w.column, "message": w.message}
            for w in compiled.warnings
        ]
        _print_json(
            {"entries": entries, "capabilities": counts[0], "tags": counts[1], "warnings": warnings}
        )
    else:
        _warn(arguments, compiled)
        print(f"{entries} entries, {counts[0]} capabilities, {counts[1]} tags")
    return 0


def _format(arguments: argparse.Namespace) -> int:
    text = _read(arguments.file)
    try:
        formatted = format_rules(text)
    except RuleError as error:
        return _fail(arguments, error, text)
    if arguments.json:
        _print_json({"source": formatted})
    elif arguments.in_place and arguments.file != "-":
        with open(arguments.file, "w", encoding="utf-8", newline="") as file:
            file.write(formatted)
    else:
        sys.stdout.write(formatted)
    return 0


def _explain(arguments: argparse.Namespace) -> int:
    text = _read(arguments.file)
    try:
        try:
            source = json.loads(text)
        except (json.JSONDecodeError, RecursionError) as problem:
            raise RuleError("E92", 0, 0, f"this is no JSON: {problem}") from None
        if not isinstance(source, dict):
            raise RuleError("E92", 0, 0, "rules are a JSON object with a member rules")
        written = explain(source)
    except RuleError as error:
        return _fail(arguments, error, "")
    if arguments.json:
        _print_json({"source": written})
    else:
        sys.stdout.write(written)
    return 0


def _beside(path: str, name: str) -> str:
    """A file named in another one: relative to that one's folder."""
    return name if path == "-" else os.path.join(os.path.dirname(path), name)


def _test(arguments: argparse.Namespace) -> int:
    # Imported here: compiling, checking and formatting need no extension module.
    from zt.rules.policy import Policy, PolicyError, parse

    try:
        document = parse(_read(arguments.file))
        rules = arguments.rules or document.get("rules")
        if not isinstance(rules, str):
            raise PolicyError('no rules: add rules = "FILE" or --rules FILE')
        rules = rules if arguments.rules else _beside(arguments.file, rules)
        text = _read(rules)
        try:
            policy = Policy(compile_rules(text))
        except RuleError as error:
            arguments.file = rules
            return _fail(arguments, error, text)
        cases = policy.cases(document, lambda name: _read_bytes(_beside(arguments.file, name)))
    except PolicyError as wrong:
        raise _Unreadable(f"{_name(arguments.file)}: {wrong}") from None
    results = [policy.judge(case) for case in cases]
    failed = sum(not result.ok for result in results)
    if arguments.json:
        _print_json({"cases": [_result_json(r) for r in results], "failed": failed})
    else:
        for result in results:
            _print_result(result, rules, verbose=arguments.verbose)
        print(f"{len(results)} cases, {failed} failed")
    return 1 if failed else 0


def _result_json(result: "Result") -> dict[str, Any]:
    return {
        "name": result.case.name,
        "ok": result.ok,
        "expected": result.case.expect,
        "verdict": result.verdict,
        "copies": sorted(str(address) for address in result.copies),
        "decisions": [dataclasses.asdict(decision) for decision in result.decisions],
    }


def _print_result(result: "Result", rules: str, *, verbose: bool) -> None:
    case = result.case
    if result.ok:
        print(f"ok    {case.name}")
    else:
        print(f"FAIL  {case.name}: expected {case.expect}, the verdict is {result.verdict}")
        if case.copies is not None and case.copies != result.copies:
            expected, seen = (
                ", ".join(sorted(str(address) for address in addresses)) or "none"
                for addresses in (case.copies, result.copies)
            )
            print(f"      copies expected: {expected}; sent: {seen}")
    if verbose or not result.ok:
        for decision in result.decisions:
            word = "passes" if decision.passed else "refuses"
            where = f" ({_name(rules)}:{decision.line}:{decision.column})" if decision.line else ""
            print(f"      the {decision.side} {word} it: {decision.rule}{where}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="zerotier-rules", description="Compile, check, format, explain and test network rules."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, run: Command, summary: str, what: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=summary, description=summary)
        command.add_argument("-j", "--json", action="store_true", help="machine-readable output")
        command.add_argument("file", metavar="FILE", help=f"{what} (- is standard input)")
        command.set_defaults(run=run)
        return command

    compiling = add("compile", _compile, "print the JSON that a controller stores", "rules")
    compiling.add_argument(
        "--compatible", action="store_true", help="reproduce the defects of the original compiler"
    )
    add("check", _check, "report errors and warnings", "rules")
    formatting = add("format", _format, "print the rules in the one layout", "rules")
    formatting.add_argument("-i", "--in-place", action="store_true", help="rewrite the file")
    add("explain", _explain, "print JSON rules as text", "compiler output or a network object")
    testing = add("test", _test, "run a file of cases through the filter", "cases in TOML")
    testing.add_argument("--rules", metavar="FILE", help="the rules, instead of those named there")
    testing.add_argument("-v", "--verbose", action="store_true", help="every decision")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; 0 on success, 1 on an error in the input, 2 on a wrong command line."""
    arguments = _parser().parse_args(argv)
    try:
        run: Command = arguments.run
        return run(arguments)
    except _Unreadable as problem:
        print(f"zerotier-rules: {problem}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
