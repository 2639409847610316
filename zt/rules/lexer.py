"""Text to words, and words to blocks (chapter 07, sections 2 and 3).

A *word* is a run of non-blank characters, a *block* is what stands between an opening keyword and
its semicolon. Nesting never fails in compatible mode; in safe mode an open empty block at the end
of the text is an error (D17) and ``accept;``, ``drop;``, ``break;`` are whole statements (D1).
"""

import re
from dataclasses import dataclass, field
from typing import NamedTuple

from zt.rules.errors import Diagnostic, RuleError

OPENING = frozenset(
    ["macro", "tag", "cap", "drop", "accept", "tee", "watch", "redirect", "break", "priority"]
)
# Actions that need no arguments, so that "accept;" can be a whole statement.
BARE_ACTIONS = frozenset({"drop", "accept", "break"})

_TOKEN = re.compile(r"(?P<comment>#[^\r\n]*)|(?P<word>[^ \t\r\n]+)|(?P<eol>\n)|(?P<blank>[ \t\r]+)")


class Word(NamedTuple):
    """One word with its position; ``number`` is its place among the words, as comments count."""

    text: str
    line: int
    column: int
    number: int = -1

    @property
    def folded(self) -> str:
        return self.text.lower()

    def error(self, code: str, message: str) -> RuleError:
        return RuleError(code, self.line, self.column, message)

    def warning(self, code: str, message: str) -> Diagnostic:
        return Diagnostic(code, self.line, self.column, message)


@dataclass(slots=True)
class Block:
    """What an opening keyword encloses; ``keyword`` is None for the whole text."""

    keyword: Word | None
    items: list["Word | Block"] = field(default_factory=list)


Item = Word | Block


@dataclass(frozen=True, slots=True)
class Comment:
    """``before`` is the number of the next word; ``trailing``: it is behind a word on its line."""

    text: str
    before: int
    trailing: bool


@dataclass(slots=True)
class Source:
    """A text taken apart."""

    root: Block
    comments: list[Comment]
    warnings: list[Diagnostic]


def _utf16_length(text: str) -> int:
    return len(text) if text.isascii() else len(text) + sum(c > "\uffff" for c in text)


def _words(text: str, compatible: bool) -> tuple[list[tuple[Word, bool]], list[Comment]]:
    """Words (still with their semicolon; True where a blank follows) and comments."""
    words: list[tuple[Word, bool]] = []
    comments: list[Comment] = []
    line, column = 1, 0
    word_on_line = False
    length = len(text)
    for token in _TOKEN.finditer(text):
        kind = token.lastgroup
        value = token.group()
        if kind == "word":
            words.append((Word(value, line, column, len(words)), token.end() < length))
            column += _utf16_length(value)
            word_on_line = True
        elif kind == "comment":
            comments.append(Comment(value, len(words), word_on_line))
            column += _utf16_length(value)
            # The reference takes the character that ends a comment for a line end of its own (D16).
            if compatible and text[token.end() : token.end() + 1] == "\r":
                line, column, word_on_line = line + 1, 0, False
        elif kind == "eol":
            line, column, word_on_line = line + 1, 1, False
        else:
            column += len(value)
    return words, comments


class _Nesting:
    """The stack of open blocks while words arrive."""

    def __init__(self) -> None:
        self.stack = [Block(None)]

    @property
    def top(self) -> Block:
        return self.stack[-1]

    @property
    def nested(self) -> bool:
        return len(self.stack) > 1

    def open(self, keyword: Word) -> None:
        self.stack.append(Block(keyword))

    def close(self) -> None:
        block = self.stack.pop()
        self.top.items.append(block)


def _strip(word: Word) -> tuple[Word | None, bool]:
    """A word without its one semicolon, None if nothing is left; and whether it had one."""
    if not word.text.endswith(";"):
        return word, False
    rest = word.text[:-1]
    return (Word(rest, word.line, word.column, word.number) if rest else None), True


def _nest_compatible(words: list[tuple[Word, bool]]) -> Block:
    nesting = _Nesting()
    for written, blank_follows in words:
        word, ends = _strip(written)
        if word:
            nesting.top.items.append(word)
        if not blank_follows:
            continue
        if ends and nesting.nested and nesting.top.items:
            nesting.close()
        elif word and word.text in OPENING:
            nesting.open(word)
    while nesting.nested and nesting.top.items:
        nesting.close()
    return nesting.stack[0]


def _nest_safe(words: list[tuple[Word, bool]], warnings: list[Diagnostic]) -> Block:
    nesting = _Nesting()
    for number, (written, blank_follows) in enumerate(words):
        word, ends = _strip(written)
        if word and word.text != word.folded and word.folded in OPENING:
            warnings.append(_capitals(word))
        if word and ends and word.folded in BARE_ACTIONS:
            nesting.top.items += [word, Block(word)]
            if number + 1 < len(words):
                warnings.append(_bare_action(word))
        elif word is None:
            if nesting.nested:
                keyword = nesting.top.keyword
                if keyword and not nesting.top.items and number + 1 < len(words):
                    warnings.append(_bare_action(keyword))
                nesting.close()
        else:
            nesting.top.items.append(word)
            if ends and nesting.nested:
                nesting.close()
            elif not ends and blank_follows and word.folded in OPENING:
                nesting.open(word)
    if nesting.nested and not nesting.top.items and (keyword := nesting.top.keyword):
        raise keyword.error(
            "D17", f'"{keyword.text}" is open at the end of the text; end it with ";"'
        )
    while nesting.nested:
        nesting.close()
    return nesting.stack[0]


def _bare_action(word: Word) -> Diagnostic:
    return word.warning(
        "D1",
        f'"{word.text};" is a whole statement here; the reference compiler would swallow what '
        f'follows it: write "{word.folded} framesize 0-65535;" for both',
    )


def _capitals(word: Word) -> Diagnostic:
    return word.warning(
        "D2",
        f'"{word.text}" opens a block here, but not for the reference compiler: '
        f'write "{word.folded}"',
    )


def read(text: str, *, compatible: bool = False) -> Source:
    """Takes a text apart. Raises RuleError (D17, safe mode only)."""
    words, comments = _words(text, compatible)
    warnings: list[Diagnostic] = []
    root = _nest_compatible(words) if compatible else _nest_safe(words, warnings)
    return Source(root, comments, warnings)
