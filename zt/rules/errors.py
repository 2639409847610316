"""What the compiler says when something is wrong: errors stop it, diagnostics warn."""

from typing import NamedTuple


class Diagnostic(NamedTuple):
    """A remark about one place in the text. ``code`` is a letter and a number of chapter 07
    (``D3``: a known defect of the reference, section 16) or ``L`` and a number (``lint``)."""

    code: str
    line: int
    column: int
    message: str

    def located(self, file: str) -> str:
        return f"{file}:{self.line}:{self.column}: {self.message} [{self.code}]"


class RuleError(ValueError):
    """The one error of this room: a text, or JSON rules, that cannot be compiled or explained.

    Lines count from 1; columns count UTF-16 code units, from 0 on line 1 and from 1 on later lines
    (chapter 07, section 2). 0, 0 stands for the text as a whole. ``code`` is ``E..`` of section 14,
    or ``D..`` of section 16 where only safe mode refuses.
    """

    def __init__(self, code: str, line: int, column: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.line = line
        self.column = column
        self.message = message

    def located(self, file: str) -> str:
        return f"{file}:{self.line}:{self.column}: {self.message} [{self.code}]"
