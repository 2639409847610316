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

# A word with the blanks behind it, a comment, a line end, or blanks. A "#" in a word belongs to it.
_TOKEN = re.compile(r"([^ \t\r\n#][^ \t\r\n]*)[ \t\r]*|(#[^\r\n]*)|(\n)|[ \t\r]+")
_WORD, _COMMENT, _LINE_END = 1, 2, 3


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


def _astral(text: str) -> int:
    """How many characters of a text count twice in UTF-16."""
    return 0 if text.isascii() else sum(character > "\uffff" for character in text)


def _words(text: str, compatible: bool) -> tuple[list[Word], list[Comment]]:
    """Words (still with their semicolon) and comments."""
    words: list[Word] = []
    comments: list[Comment] = []
    line = 1
    origin = 0  # the offset in the text that column 0 of this line would have
    word_on_line = False
    wide = _astral(text) > 0
    # What Word(...) does, without the call in between: this is half of what a long text takes.
    new = tuple.__new__
    for token in _TOKEN.finditer(text):
        kind = token.lastindex
        if kind == _WORD:
            value = token[1]
            words.append(new(Word, (value, line, token.start() - origin, len(words))))
            word_on_line = True
        elif kind == _LINE_END:
            line, origin, word_on_line = line + 1, token.start(), False
        elif kind == _COMMENT:
            value = token[2]
            comments.append(Comment(value, len(words), word_on_line))
            # The reference takes the character that ends a comment for a line end of its own (D16).
            if compatible and text[token.end() : token.end() + 1] == "\r":
                line, origin, word_on_line = line + 1, token.end(), False
                continue
        else:
            continue
        if wide and kind != _LINE_END:
            origin -= _astral(value)
    return words, comments


def _nest_compatible(words: list[Word], cut: Word | None) -> Block:
    stack = [Block(None)]
    for written in words:
        text = written.text
        ends = text[-1] == ";"
        word = _without_semicolon(written) if ends else written
        items = stack[-1].items
        if word:
            items.append(word)
        if written is cut:
            continue
        if ends and items and len(stack) > 1:
            _close(stack)
        elif word and word.text in OPENING:
            stack.append(Block(word))
    while len(stack) > 1 and stack[-1].items:
        _close(stack)
    return stack[0]


def _nest_safe(words: list[Word], cut: Word | None, warnings: list[Diagnostic]) -> Block:
    stack = [Block(None)]
    last = words[-1] if words else None
    for written in words:
        text = written.text
        if text == ";":
            if len(stack) > 1:
                keyword = stack[-1].keyword
                if keyword and not stack[-1].items and written is not last:
                    warnings.append(_bare_action(keyword))
                _close(stack)
        elif text[-1] == ";":
            word = Word(text[:-1], *written[1:])
            folded = word.folded
            if folded in OPENING and folded != word.text:
                warnings.append(_capitals(word))
            if folded in BARE_ACTIONS:
                stack[-1].items += [word, Block(word)]
                if written is not last:
                    warnings.append(_bare_action(word))
            else:
                stack[-1].items.append(word)
                if len(stack) > 1:
                    _close(stack)
        else:
            stack[-1].items.append(written)
            if (folded := text.lower()) in OPENING:
                if folded != text:
                    warnings.append(_capitals(written))
                if written is not cut:
                    stack.append(Block(written))
    if len(stack) > 1 and not stack[-1].items and (keyword := stack[-1].keyword):
        raise keyword.error(
            "D17", f'"{keyword.text}" is open at the end of the text; end it with ";"'
        )
    while len(stack) > 1:
        _close(stack)
    return stack[0]


def _without_semicolon(word: Word) -> Word | None:
    """A word without its one semicolon; None if nothing is left."""
    return Word(word.text[:-1], *word[1:]) if len(word.text) > 1 else None


def _close(stack: list[Block]) -> None:
    """Ends the innermost open block."""
    block = stack.pop()
    stack[-1].items.append(block)


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
    # A keyword opens its block with the blank behind it, which the last word may not have.
    cut = None
    if words and text.endswith(words[-1].text):
        commented = comments and comments[-1].before == len(words)
        cut = None if commented else words[-1]
    warnings: list[Diagnostic] = []
    root = _nest_compatible(words, cut) if compatible else _nest_safe(words, cut, warnings)
    return Source(root, comments, warnings)
