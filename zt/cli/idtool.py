"""`zerotier-idtool`: identities, signatures, moons and planets (ch. 06, section 6)."""

import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from zt import version
from zt.cli.worlds import WorldFileError, make_moon, make_planet, new_moon
from zt.protocol.errors import DecodeError
from zt.protocol.identity import Identity

HELP = """\
ZeroTier One version {version}
An independent implementation, not affiliated with ZeroTier, Inc.
Licensed under the MIT License (see LICENSE)
Usage: {program} <command> [<args>]

Commands:
  generate [<identity.secret>] [<identity.public>] [<vanity>]
  validate <identity.secret/public>
  getpublic <identity.secret>
  sign <identity.secret> <file>
  verify <identity.secret/public> <file> <signature>
  initmoon <identity.public of first seed>
  genmoon <moon json>
  planet <identity>=<IP/port>[,<IP/port>...] ...
"""


class Failure(Exception):
    """Exit 1 with this line on stderr."""


class NeedHelp(Exception):
    """Help on stdout, and this exit code."""

    def __init__(self, code: int = 1) -> None:
        self.code = code


def read_identity(argument: str) -> Identity | None:
    """From an identity text, or from a file that holds one; None if it is neither."""
    text = argument
    if not (len(argument) > 32 and argument[10] == ":"):
        try:
            with open(argument, encoding="ascii", errors="replace") as file:
                text = file.read().strip()
        except OSError:
            return None
    try:
        return Identity.parse(text)
    except DecodeError:
        return None


def _identity(argument: str) -> Identity:
    identity = read_identity(argument)
    if identity is None:
        raise Failure(f"Identity argument invalid or file unreadable: {argument}")
    return identity


def _content(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        raise Failure(f"{path} is not readable") from None


def _write(path: str, text: str) -> None:
    try:
        with open(path, "w", encoding="ascii") as file:
            file.write(text)
    except OSError:
        raise Failure(f"Error writing to {path}") from None
    print(f"{path} written")


# --- commands --------------------------------------------------------------------------------


def generate(arguments: Sequence[str]) -> None:
    secret, public, vanity = (*arguments[:3], "", "", "")[:3]
    identity = _vanity(vanity) if vanity else Identity.generate(os.urandom)
    if not secret:
        sys.stdout.write(identity.to_text(private=True))
        return
    _write(secret, identity.to_text(private=True))
    if public:
        _write(public, identity.to_text())


def _vanity(prefix: str) -> Identity:
    """An identity whose address begins with these hex digits; every attempt is reported."""
    digits = "".join(c for c in prefix.lower() if c in "0123456789abcdef")[:10]
    bits = 4 * len(digits)
    wanted = digits.ljust(10, "0")
    while True:
        identity = Identity.generate(os.urandom)
        if str(identity.address).startswith(digits):
            print(f"vanity address: found {identity.address} !", file=sys.stderr)
            return identity
        print(
            f"vanity address: tried {identity.address} looking for first {bits} bits of {wanted}",
            file=sys.stderr,
        )


def validate(arguments: Sequence[str]) -> None:
    if not arguments:
        raise NeedHelp
    if not _identity(arguments[0]).validate():
        raise Failure(f"{arguments[0]} FAILED validation.")
    print(f"{arguments[0]} is a valid identity")


def getpublic(arguments: Sequence[str]) -> None:
    if not arguments:
        raise NeedHelp
    sys.stdout.write(_identity(arguments[0]).to_text())


def sign(arguments: Sequence[str]) -> None:
    if len(arguments) < 2:
        raise NeedHelp
    identity = _identity(arguments[0])
    if not identity.has_private:
        raise Failure(f"{arguments[0]} does not contain a private key (must use private to sign)")
    sys.stdout.write(identity.sign(_content(arguments[1])).hex())


def verify(arguments: Sequence[str]) -> None:
    if len(arguments) < 3:
        raise NeedHelp
    argument, path, signature_text = arguments[:3]
    identity = _identity(argument)
    content = _content(path)
    if not identity.verify(content, _signature(signature_text)):
        raise Failure(f"{path} signature check FAILED")
    print(f"{path} signature valid")


def _signature(argument: str) -> bytes:
    """96 bytes in hex, or a file holding that; anything else verifies nothing."""
    if len(argument) != 192:
        try:
            argument = _content(argument).decode("ascii", "replace")
        except Failure:
            return bytes(96)
    try:
        return bytes.fromhex(argument.strip())
    except ValueError:
        return bytes(96)


def initmoon(arguments: Sequence[str]) -> None:
    if not arguments:
        raise NeedHelp(0)
    identity = read_identity(arguments[0])
    if identity is None:
        raise Failure(f"{arguments[0]} is not a valid identity")
    print(_json(new_moon(identity)))


def genmoon(arguments: Sequence[str]) -> None:
    if not arguments:
        raise NeedHelp(0)
    path = arguments[0]
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError):
        raise Failure(f"cannot read {path}") from None
    world = make_moon(text, path)
    name = f"{world.id:016x}.moon"
    with open(name, "wb") as file_out:
        file_out.write(world.encode())
    print(f"wrote {name} (signed world with timestamp {world.timestamp})")


def planet(arguments: Sequence[str]) -> None:
    if not arguments:
        raise NeedHelp
    for line in make_planet(arguments, read_identity):
        print(line)


def _json(value: Any) -> str:
    return json.dumps(value, indent=1, sort_keys=True, separators=(",", ": "))


COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {
    "generate": generate,
    "validate": validate,
    "getpublic": getpublic,
    "sign": sign,
    "verify": verify,
    "initmoon": initmoon,
    "genmoon": genmoon,
    "planet": planet,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    called, *words = sys.argv if argv is None else argv
    program = os.path.basename(called)
    if program in ("idtool.py", "__main__.py", "-c"):
        program = "zerotier-idtool"
    try:
        if not words or words[0] not in COMMANDS:
            raise NeedHelp
        COMMANDS[words[0]](words[1:])
    except NeedHelp as help_needed:
        sys.stdout.write(HELP.format(version=version.TEXT, program=program))
        return help_needed.code
    except (Failure, WorldFileError) as failure:
        print(failure, file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
