"""Remarks on rules that compile but probably do not do what is meant (chapter 07, section 16)."""

from collections.abc import Iterator, Mapping, Sequence

from zt.rules.definitions import Program
from zt.rules.errors import Diagnostic
from zt.rules.lexer import Word
from zt.rules.render import Entry

# What a controller sends at the most (section 13.1); it cuts the rest silently.
MAX_BASE_ENTRIES = 1024
MAX_CAPABILITY_ENTRIES = 64

_TERMINAL = {"ACTION_ACCEPT", "ACTION_DROP", "ACTION_BREAK", "ACTION_REDIRECT"}
_ACCEPTING = {"ACTION_ACCEPT", "ACTION_BREAK", "ACTION_REDIRECT"}


def check(
    program: Program, base: Sequence[Entry], capabilities: Mapping[str, Sequence[Entry]]
) -> list[Diagnostic]:
    """Every remark on a compiled program; order is that of the checks."""
    found = list(_tags(program))
    found += _entries(base, MAX_BASE_ENTRIES, "the base rules")
    for name, entries in capabilities.items():
        found += _entries(entries, MAX_CAPABILITY_ENTRIES, f'capability "{name}"')
    if base and not any(entry.json["type"] in _ACCEPTING for entry in base):
        found.append(_remark("L5", base[0].word, "these rules can never accept a frame"))
    return found


def _remark(code: str, word: Word, message: str) -> Diagnostic:
    return Diagnostic(code, word.line, word.column, message)


def _tags(program: Program) -> Iterator[Diagnostic]:
    by_id: dict[int, str] = {}
    for tag in program.tags.values():
        if tag.id in by_id:
            yield _remark("L1", tag.word, f'tag "{by_id[tag.id]}" has the same id {tag.id}')
        by_id.setdefault(tag.id, tag.name)
        if tag.default is None:
            yield _remark(
                "L2",
                tag.word,
                "without a default, members that are not given this tag match nothing",
            )


def _entries(entries: Sequence[Entry], limit: int, what: str) -> Iterator[Diagnostic]:
    if len(entries) > limit:
        yield _remark(
            "L3",
            entries[limit].word,
            f"{what} have {len(entries)} entries; a controller sends {limit} and cuts the rest",
        )
    first_of_set = True
    for number, entry in enumerate(entries):
        if not entry.is_action:
            if first_of_set and entry.json["or"]:
                yield _remark("L4", entry.word, '"or" on the first match makes it always true')
            first_of_set = False
            continue
        if first_of_set and entry.json["type"] in _TERMINAL and number + 1 < len(entries):
            yield _remark(
                "L6",
                entries[number + 1].word,
                "never reached: the action before it is unconditional",
            )
            return
        first_of_set = True
