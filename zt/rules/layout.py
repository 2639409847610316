"""Formatting: one layout for every text, comments kept, meaning untouched."""

from zt.rules.compiler import compile_rules
from zt.rules.definitions import position
from zt.rules.lexer import Block, Comment, Item, Word, read
from zt.rules.render import ACTIONS, argument_count

_INDENT = "  "
_ARGUMENTS = {"tee": 2, "watch": 2, "redirect": 1}
_TAG_ITEMS = {"id": 2, "default": 2, "enum": 3, "flag": 3}


class _Writer:
    """Lines being written, with the comments that belong before and behind them."""

    def __init__(self, comments: list[Comment]) -> None:
        self.lines: list[str] = []
        self.comments = list(reversed(comments))

    def line(self, depth: int, text: str, words: list[Word]) -> None:
        """One line made of ``words``; comments that stood before any of them go above it."""
        self.comments_until(words[0].number if words else -1, depth)
        last = words[-1].number if words else -1
        above: list[str] = []
        behind: list[str] = []
        while self.comments and self.comments[-1].before <= last + 1:
            comment = self.comments[-1]
            if comment.before > last and not comment.trailing:
                break
            self.comments.pop()
            (behind if comment.before > last else above).append(comment.text)
        self.lines += [f"{_INDENT * depth}{comment}" for comment in above]
        self.lines.append(
            _INDENT * depth + text + "".join(f"  {comment}" for comment in behind[:1])
        )
        self.lines += [f"{_INDENT * depth}{comment}" for comment in behind[1:]]

    def comments_until(self, index: int, depth: int) -> None:
        while self.comments and self.comments[-1].before <= index:
            self.lines.append(f"{_INDENT * depth}{self.comments.pop().text}")

    def end(self, depth: int) -> None:
        self.lines.append(f"{_INDENT * depth};")

    def blank(self) -> None:
        if self.lines and self.lines[-1]:
            self.lines.append("")


def _words(block: Item | None) -> list[Word]:
    """The words of an action's block; blocks inside it exist only in macros never included."""
    words = []
    for item in block.items if isinstance(block, Block) else []:
        if isinstance(item, Block):
            raise position(item).error("E28", "an action cannot stand inside another")
        words.append(item)
    return words


def _texts(words: list[Word]) -> str:
    return " ".join(word.text for word in words)


def _split_matches(body: list[Word]) -> list[list[Word]]:
    """A block's words as one list a match, connectives in front."""
    matches: list[list[Word]] = []
    current: list[Word] = []
    wanted = -1
    for word in body:
        current.append(word)
        if wanted < 0:
            if word.folded in ("and", "or", "not"):
                continue
            wanted = argument_count(word.folded)
            if wanted < 0:  # in a macro that nobody includes, so that compiling never looked at it
                raise word.error("E01", f'"{word.text}" is no match')
        else:
            wanted -= 1
        if wanted == 0:
            matches.append(current)
            current, wanted = [], -1
    if wanted > 0:
        raise current[-1].error("E02", "a match without all of its arguments")
    # Connectives with no match behind them mean nothing and stay out.
    return matches


def _action(writer: _Writer, word: Word, body: list[Word], depth: int) -> None:
    count = _ARGUMENTS.get(word.folded, 0)
    head = [word, *body[:count]]
    matches = _split_matches(body[count:])
    # A comment among the words needs lines of its own to stand on.
    commented = any(
        word.number < comment.before <= (body[-1].number if body else word.number)
        for comment in writer.comments
    )
    keyword = " ".join([word.folded, *(argument.text for argument in head[1:])])
    if len(matches) <= 1 and not commented:
        words = [*head, *(matches[0] if matches else [])]
        text = " ".join([keyword, *(argument.text for argument in words[len(head) :])])
        writer.line(depth, f"{text};", words)
        return
    writer.line(depth, keyword, head)
    for match in matches:
        writer.line(depth + 1, _texts(match), match)
    writer.end(depth)


def _statements(writer: _Writer, items: list[Item], depth: int) -> None:
    at = 0
    while at < len(items):
        word = position(items[at])
        following = items[at + 1] if at + 1 < len(items) else None
        if word.folded in ("include", "id"):
            target = position(following) if following else word
            # No semicolon: inside a definition it would end the definition (section 3).
            writer.line(depth, f"{word.folded} {target.text}", [word, target])
            at += 2
        elif word.folded == "default":
            writer.line(depth, "default", [word])
            at += 1
        elif word.folded not in ACTIONS:
            raise word.error("E28", f'"{word.text}" is no action and no include')
        else:
            _action(writer, word, _words(following), depth)
            at += 2 if isinstance(following, Block) else 1


def _tag(writer: _Writer, items: list[Item]) -> None:
    words = [position(item) for item in items]
    at = 0
    while at < len(words):
        count = _TAG_ITEMS[words[at].folded]
        item = words[at : at + count]
        writer.line(1, " ".join([item[0].folded, *(word.text for word in item[1:])]), item)
        at += count


def format_rules(source: str) -> str:
    """A text in the one layout. Raises RuleError where it does not compile (safe mode)."""
    compile_rules(source)
    text = read(source)
    writer = _Writer(text.comments)
    items = text.root.items
    at = 0
    while at < len(items):
        word = position(items[at])
        following = items[at + 1] if at + 1 < len(items) else None
        if word.folded in ("macro", "tag", "cap") and isinstance(following, Block):
            writer.blank()
            name = position(following.items[0])
            writer.line(0, f"{word.folded} {name.text}", [word, name])
            if word.folded == "tag":
                _tag(writer, following.items[1:])
            else:
                _statements(writer, following.items[1:], 1)
            writer.end(0)
            writer.blank()
            at += 2
            continue
        step = 2 if isinstance(following, Block) or word.folded == "include" else 1
        _statements(writer, items[at : at + step], 0)
        at += step
    writer.comments_until(1 << 62, 0)
    lines = writer.lines
    while lines and not lines[-1]:
        lines.pop()
    return "\n".join(lines) + "\n" if lines else ""
