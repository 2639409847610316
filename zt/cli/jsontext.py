"""What was wrong with a JSON text, in the words that scripts around the original know."""


def describe(text: str, error: ValueError) -> str:
    """For an error of `json.loads(text)`."""
    if not text.strip():
        return _syntax(1, "unexpected end of input; expected '[', '{', or a literal")
    at = getattr(error, "pos", 0)
    rest = text[at:]
    for literal in ("null", "true", "false"):
        if rest.startswith(literal[0]):
            length = next(
                (
                    n
                    for n, pair in enumerate(zip(rest, literal, strict=False))
                    if pair[0] != pair[1]
                ),
                len(rest) - 1,
            )
            return _syntax(at + length + 1, f"invalid literal; last read: '{rest[: length + 1]}'")
    if not rest:
        return _syntax(at + 1, "unexpected end of input")
    return _syntax(at + 1, f"invalid literal; last read: '{text[: at + 1][-10:]}'")


def _syntax(column: int, problem: str) -> str:
    return (
        f"[json.exception.parse_error.101] parse error at line 1, column {column}:"
        f" syntax error while parsing value - {problem}"
    )
