"""Pass 2: tags, macros and capabilities out of the text (chapter 07, sections 6 to 9)."""

import re
from dataclasses import dataclass, field

from zt.rules import names, values
from zt.rules.errors import Diagnostic, RuleError
from zt.rules.lexer import Block, Item, Word

_CALL_SPLIT = re.compile(r"[,)]+")

# What the error codes of one kind of definition are called; name checks run in this order.
_NAME_CODES = {
    "macro": ("E31", "E32", "E33"),
    "tag": ("E41", "E42", "E43"),
    "cap": ("E61", "E62", "E63"),
}
_MISSING_CODES = {"macro": "E30", "tag": "E40", "cap": "E60"}
_KIND_NAMES = {"macro": "macro", "tag": "tag", "cap": "capability"}


@dataclass(slots=True)
class Tag:
    """A tag. ``default`` is None when the text gives none; flags are bit masks."""

    name: str
    word: Word
    id: int = -1
    default: int | None = None
    enums: dict[str, int] = field(default_factory=dict)
    flags: dict[str, int] = field(default_factory=dict)

    def value(self, name: str) -> int | None:
        """The value of a flag or enum name where a match uses it."""
        return self.flags.get(name, self.enums.get(name))


@dataclass(slots=True)
class Macro:
    """A macro: its body, and the number of the value that each parameter takes."""

    name: str
    parameters: dict[str, int]
    body: list[Item]


@dataclass(slots=True)
class Capability:
    """A capability with the items of its rule set, not yet rendered."""

    name: str
    word: Word
    id: int = -1
    default: bool = False
    items: list[Item] = field(default_factory=list)


@dataclass(slots=True)
class Program:
    """What pass 2 leaves for pass 3: definitions by name, and the base rules."""

    tags: dict[str, Tag] = field(default_factory=dict)
    macros: dict[str, Macro] = field(default_factory=dict)
    capabilities: dict[str, Capability] = field(default_factory=dict)
    base: list[Item] = field(default_factory=list)


def position(item: Item) -> Word:
    """The word that stands for an item in an error; a block is reported at its keyword."""
    if isinstance(item, Word):
        return item
    return item.keyword or Word("", 0, 0)


def split_call(text: str) -> tuple[str, list[str]]:
    """``name(a,b)`` to the name and the pieces in its parentheses, empty ones included."""
    at = text.find("(")
    if at < 1:
        return text, []
    return text[:at], _CALL_SPLIT.split(text[at + 1 :])


class Collector:
    """Walks depth 0 in source order. Raises RuleError at the first definition that is wrong."""

    def __init__(self, *, compatible: bool) -> None:
        self.compatible = compatible
        self.program = Program()
        self.warnings: list[Diagnostic] = []
        self._capability_ids: dict[int, str] = {}

    def collect(self, root: Block) -> Program:
        items = iter(root.items)
        for item in items:
            kind = item.text.lower() if isinstance(item, Word) else ""
            if kind not in _MISSING_CODES:
                self.program.base.append(item)
                continue
            assert isinstance(item, Word)
            body = next(items, None)
            if not isinstance(body, Block) or not body.items:
                raise item.error(
                    _MISSING_CODES[kind], f"{_KIND_NAMES[kind]} without a name and content"
                )
            self._definition(kind, body.items)
        return self.program

    def _definition(self, kind: str, items: list[Item]) -> None:
        if kind == "macro":
            self._macro(items)
        elif kind == "tag":
            self._tag(items)
        else:
            self._capability(items)

    def _check_name(self, kind: str, name: str, word: Word, taken: bool) -> None:
        malformed, reserved, duplicate = _NAME_CODES[kind]
        what = _KIND_NAMES[kind]
        if not names.well_formed(name):
            raise word.error(
                malformed,
                f'"{name}" cannot name a {what}: letters, digits and _ only, no digit first',
            )
        if names.reserved(name, compatible=self.compatible):
            raise word.error(reserved, f'"{name}" is a reserved word and cannot name a {what}')
        if taken:
            raise word.error(duplicate, f'{what} "{name}" is already defined')
        self._check_member(word, name)

    def _check_member(self, word: Word, name: str) -> None:
        if name in names.JAVASCRIPT_MEMBERS:
            self.warn("D18", word, f'the reference refuses the name "{name}": write another')

    # macros

    def _macro(self, items: list[Item]) -> None:
        word = position(items[0])
        written, pieces = split_call(word.text)
        name = written.lower()
        self._check_name("macro", name, word, name in self.program.macros)
        parameters = {piece.lower(): number for number, piece in enumerate(pieces) if piece}
        self.program.macros[name] = Macro(name, parameters, items[1:])

    # tags

    def _tag(self, items: list[Item]) -> None:
        word = position(items[0])
        tag = Tag(word.folded, word)
        self._check_name("tag", tag.name, word, tag.name in self.program.tags)
        default: Word | None = None
        at = 1
        while at < len(items):
            item = items[at]
            if isinstance(item, Block):
                if self.compatible:
                    raise RuleError("E90", 0, 0, "a block stands where a tag item is expected")
                raise position(item).error("E57", "a block cannot stand in a tag definition")
            rest = items[at + 1 :] if item.folded in ("id", "default") else items[at + 1 : at + 3]
            match item.folded:
                case "id":
                    self._tag_id(tag, item, rest)
                    at += 2
                case "default":
                    if default is not None:
                        raise item.error("E47", "a second default for this tag")
                    if not rest:
                        raise item.error("E48", "default needs a value")
                    default = position(rest[0])
                    at += 2
                case "flag":
                    self._flag(tag, item, rest)
                    at += 3
                case "enum":
                    self._enum(tag, item, rest)
                    at += 3
                case _:
                    raise item.error(
                        "E57", f'"{item.text}" is no tag item (id, default, enum, flag)'
                    )
        if tag.id < 0:
            raise word.error("E58", f'tag "{tag.name}" has no id')
        if default is not None:
            tag.default = self._default(tag, default)
        self.program.tags[tag.name] = tag

    def _tag_id(self, tag: Tag, item: Word, rest: list[Item]) -> None:
        if tag.id >= 0:
            raise item.error("E44", "a second id for this tag")
        if not rest:
            raise item.error("E45", "id needs a number")
        tag.id = self._uint32(position(rest[0]), "E46", "tag id")

    def _uint32(self, word: Word, code: str, what: str, at: Word | None = None) -> int:
        value = self._integer(word)
        if not 0 <= value <= values.UINT32:
            raise (at or word).error(code, f'"{word.text}" is no {what} (0 to 4294967295)')
        return value

    def _integer(self, word: Word) -> int:
        try:
            return values.integer(word.text, strict=not self.compatible)
        except values.Trailing:
            raise trailing(word, word.text) from None

    def _flag(self, tag: Tag, item: Word, rest: list[Item]) -> None:
        if len(rest) < 2:
            raise item.error("E49", "flag needs bit numbers and a name")
        bits, word = position(rest[0]), position(rest[1])
        mask = 0
        for piece in bits.text.split(","):
            if piece in tag.flags:
                mask |= tag.flags[piece]
                continue
            bit = self._integer(Word(piece, bits.line, bits.column))
            if not 0 <= bit <= 31:
                raise bits.error("E50", f'"{piece}" is no bit (0 to 31) and no earlier flag')
            mask |= 1 << bit
        name = self._member_name(word, tag.flags, "flag", ("E51", "E52"))
        if mask & 0x80000000:  # a signed number in the reference
            if self.compatible:
                mask -= 1 << 32
            else:
                self.warn("D6", bits, "the reference cannot match bit 31: write one of 0 to 30")
        tag.flags[name] = mask

    def _enum(self, tag: Tag, item: Word, rest: list[Item]) -> None:
        if len(rest) < 2:
            raise item.error("E53", "enum needs a value and a name")
        value = self._uint32(position(rest[0]), "E54", "enum value")
        name = self._member_name(position(rest[1]), tag.enums, "enum", ("E55", "E56"))
        tag.enums[name] = value

    def _member_name(
        self, word: Word, taken: dict[str, int], what: str, codes: tuple[str, str]
    ) -> str:
        name = word.folded
        if not names.well_formed(name):
            raise word.error(codes[0], f'"{word.text}" cannot name a {what}')
        if name in taken or (self.compatible and name in names.JAVASCRIPT_MEMBERS):
            raise word.error(codes[1], f'{what} "{name}" is already defined in this tag')
        self._check_member(word, name)
        return name

    def _default(self, tag: Tag, word: Word) -> int:
        if self.compatible:
            value = tag.enums.get(word.text, tag.flags.get(word.text))
            return values.default_integer(word.text) if value is None else value
        value = tag.enums.get(word.folded, tag.flags.get(word.folded))
        if value is not None:
            if word.text != word.folded:
                self.warn(
                    "D4",
                    word,
                    f'the reference would read "{word.text}" as 0: write "{word.folded}"',
                )
            return value
        value = self._integer(word)
        if value < -1 or word.text == "-1":
            raise word.error(
                "D5", f'a tag default cannot be negative: write 0 to 4294967295, not "{word.text}"'
            )
        if value < 0:
            known = ", ".join([*tag.enums, *tag.flags][:8])
            instead = f"a number or one of {known}" if known else "a number"
            raise word.error(
                "D4", f'"{word.text}" is no enum or flag of tag "{tag.name}": write {instead}'
            )
        if value > values.UINT32:
            raise word.error("D5", f'"{word.text}" is no tag default: write 0 to 4294967295')
        if value > 0x7FFFFFFF:
            self.warn(
                "D5",
                word,
                "the reference would write this default as a negative number: "
                "write 0 to 2147483647 for both",
            )
        return value

    # capabilities

    def _capability(self, items: list[Item]) -> None:
        word = position(items[0])
        cap = Capability(word.folded, word)
        self._check_name("cap", cap.name, word, cap.name in self.program.capabilities)
        at = 1
        while at < len(items):
            item = items[at]
            keyword = item.folded if isinstance(item, Word) else ""
            if keyword == "id":
                rest = items[at + 1 : at + 2]
                self._capability_id(cap, position(item), rest)
                at += 2
            elif keyword == "default":
                cap.default = True
                at += 1
            else:
                cap.items.append(item)
                # The word behind "include" is a macro's name, whatever it spells.
                if keyword == "include" and at + 1 < len(items):
                    at += 1
                    cap.items.append(items[at])
                at += 1
        if cap.id < 0:
            raise word.error("E68", f'capability "{cap.name}" has no id')
        self.program.capabilities[cap.name] = cap

    def _capability_id(self, cap: Capability, item: Word, rest: list[Item]) -> None:
        if cap.id >= 0:
            raise item.error("E64", "a second id for this capability")
        if not rest:
            raise item.error("E65", "id needs a number")
        cap.id = self._uint32(position(rest[0]), "E66", "capability id", at=item)
        other = self._capability_ids.setdefault(cap.id, cap.name)
        if other != cap.name:
            raise item.error("E67", f'id {cap.id} is already that of capability "{other}"')

    def warn(self, code: str, word: Word, message: str) -> None:
        self.warnings.append(word.warning(code, message))


def trailing(word: Word, text: str) -> RuleError:
    """D8: ``text`` is what stands at ``word``, after substitution."""
    return word.error(
        "D8",
        f'"{text}" is a number with something behind it: write "{values.without_junk(text)}"',
    )
