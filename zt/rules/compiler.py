"""The compiler as a whole: text in, controller JSON out (chapter 07, sections 1 and 13)."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from zt.rules import lint
from zt.rules.definitions import Collector, Tag
from zt.rules.errors import Diagnostic, RuleError
from zt.rules.lexer import read
from zt.rules.render import Entry, Renderer


@dataclass(frozen=True, slots=True)
class Compiled:
    """What a text compiles to.

    ``config`` (rules, capabilities, tags) is what a controller accepts as part of a network;
    the names are for people. ``warnings`` name the defects of the reference that the text touches
    and what is probably not meant.
    """

    config: dict[str, Any]
    capabilities_by_name: dict[str, int]
    tags_by_name: dict[str, dict[str, Any]]
    warnings: tuple[Diagnostic, ...]
    entries: tuple[Entry, ...]
    capability_entries: dict[str, tuple[Entry, ...]]

    def output(self) -> dict[str, Any]:
        """The object that the reference prints."""
        return {
            "config": self.config,
            "capabilitiesByName": self.capabilities_by_name,
            "tagsByName": self.tags_by_name,
        }


def _tag_json(tag: Tag) -> dict[str, Any]:
    return {"id": tag.id, "default": tag.default, "enums": tag.enums, "flags": tag.flags}


@contextmanager
def _collector_paused() -> Iterator[None]:
    """A compilation builds a tree without cycles; walking it over and over takes a third of the
    time that a text of a megabyte needs."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@_collector_paused()
def compile_rules(source: str, *, compatible: bool = False) -> Compiled:
    """Compiles a text. Raises RuleError at the first error, definitions before rules.

    Safe mode (the default) refuses or corrects the defects D1 to D18 of section 16; ``compatible``
    reproduces them.
    """
    if not isinstance(source, str):
        raise RuleError("E91", 0, 0, "the rules are not text")
    text = read(source, compatible=compatible)
    collector = Collector(compatible=compatible)
    program = collector.collect(text.root)
    renderer = Renderer(program, compatible=compatible)
    capabilities = {cap.name: renderer.rules(cap.items) for cap in program.capabilities.values()}
    base = renderer.rules(program.base)
    config = {
        "rules": [entry.json for entry in base],
        "capabilities": [
            {
                "id": cap.id,
                "default": cap.default,
                "rules": [entry.json for entry in capabilities[cap.name]],
            }
            for cap in program.capabilities.values()
        ],
        "tags": [{"id": tag.id, "default": tag.default} for tag in program.tags.values()],
    }
    warnings = [*text.warnings, *collector.warnings, *renderer.warnings]
    warnings += lint.check(program, base, capabilities)
    return Compiled(
        config,
        {cap.name: cap.id for cap in program.capabilities.values()},
        {tag.name: _tag_json(tag) for tag in program.tags.values()},
        tuple(sorted(warnings, key=attrgetter("line", "column"))),
        tuple(base),
        {name: tuple(entries) for name, entries in capabilities.items()},
    )
