"""The rule of imports: rooms depend one way only, and the sans-I/O rooms open nothing.

docs/architecture.md draws the rooms. Each room may import itself and those listed for it; the
core rooms may not import anything that does I/O, reads a clock or draws randomness by itself.
"""

import ast
import sys
from pathlib import Path

# Import order: _fast <- protocol <- vl1 <- vl2 <- node <- controller <- service;
# cli and rules stand alone on protocol.
ALLOWED: dict[str, set[str]] = {
    "_fast": set(),
    "protocol": {"_fast"},
    "vl1": {"_fast", "protocol"},
    "vl2": {"_fast", "protocol", "vl1"},
    "node": {"_fast", "protocol", "vl1", "vl2"},
    "rules": {"_fast", "protocol"},
    "controller": {"_fast", "protocol", "vl1", "vl2", "node", "rules"},
    "service": {"_fast", "protocol", "vl1", "vl2", "node", "rules", "controller", "cli"},
    "cli": {"_fast", "protocol", "rules"},
}
SANS_IO = {"protocol", "vl1", "vl2", "node", "rules"}
FORBIDDEN = {
    "asyncio", "uvloop", "socket", "ssl", "select", "selectors", "threading", "subprocess",
    "time", "random", "secrets", "multiprocessing", "signal", "pytun", "pyroute2",
}  # fmt: skip
# The command-line entry points of a sans-I/O room may do what commands do.
EXEMPT = {Path("zt/rules/main.py")}


def imports(path: Path) -> set[tuple[str, int]]:
    """Absolute names of the modules that a source file imports, each with its line."""
    found: set[tuple[str, int]] = set()
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            found |= {(alias.name, node.lineno) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = path.with_suffix("").parts[: -node.level]
                base = ".".join([*package, *([node.module] if node.module else [])])
            found |= {(f"{base}.{alias.name}", node.lineno) for alias in node.names}
    return found


def room(module: str) -> str | None:
    parts = module.split(".")
    return parts[1] if parts[0] == "zt" and len(parts) > 1 else None


def check() -> list[str]:
    problems = []
    for path in sorted(Path("zt").rglob("*.py")):
        here = path.parts[1].removesuffix(".py")
        if here in ("__init__", "version"):
            continue
        if here not in ALLOWED:
            problems.append(f"{path}: no room of this name in ci/imports.py")
            continue
        for module, line in sorted(imports(path)):
            there = room(module)
            if there in ALLOWED and there != here and there not in ALLOWED[here]:
                problems.append(f"{path}:{line}: {here} may not import {module}")
            top = module.split(".")[0]
            if here in SANS_IO and top in FORBIDDEN and path not in EXEMPT:
                problems.append(f"{path}:{line}: {here} does no I/O, so it may not import {top}")
    return problems


if __name__ == "__main__":
    found = check()
    print("\n".join(found) if found else "imports: every room imports in the right direction")
    sys.exit(bool(found))
