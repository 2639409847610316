"""`zerotier-one`: switches, checks before start, exit codes (ch. 06, section 1).

Heavy modules are imported only once it is clear that the service will run, so that help and the
errors that need nothing else come at once.
"""

import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from zt import version

DEFAULT_HOME = "/var/lib/zerotier-one"
HELP = """\
ZeroTier One version {version}
An independent implementation, not affiliated with ZeroTier, Inc.
Licensed under the MIT License (see LICENSE)
Usage: {program} [-switches] [home directory]

Available switches:
  -h                - Display this help
  -v                - Show version
  -U                - Skip privilege check and do not attempt to drop privileges
  -p<port>          - Port for UDP and TCP/HTTP (default: 9993, 0 for random)
  -d                - Fork and run as daemon (Unix-ish OSes)
  -i                - Generate and manage identities (zerotier-idtool)
  -q                - Query API (zerotier-cli)
  --selftest        - Check kernels, keys, clock, TAP and offloads, with speeds

"""


class Usage(Exception):
    """Print the help and leave with this exit code."""

    def __init__(self, code: int) -> None:
        self.code = code


@dataclass(slots=True)
class Options:
    """What the command line asks for. `port` None is the default, 0 random."""

    home: str
    port: int | None = None
    background: bool = False
    keep_privileges: bool = False
    show_version: bool = False
    selftest: bool = False


def parse(words: Sequence[str]) -> Options:
    """Switches are one word each and judged by their second character. Raises Usage."""
    options = Options(os.environ.get("ZEROTIER_HOME") or DEFAULT_HOME)
    home = None
    for word in words:
        if word == "--selftest":
            options.selftest = True
        elif not word.startswith("-"):
            if home is not None:
                raise Usage(0)
            home = word
        elif word[1:2] == "p":
            options.port = _decimal(word[2:])
            if options.port > 65535:
                raise Usage(1)
        elif word[1:2] == "v":
            options.show_version = True
        elif word[1:2] == "U":
            options.keep_privileges = True
        elif word[1:2] == "d":
            options.background = True
        else:
            raise Usage(0)
    if home is not None:
        options.home = home
    return options


def _decimal(text: str) -> int:
    """The leading decimal digits; 0 if there are none."""
    digits = text[: len(text) - len(text.lstrip("0123456789"))]
    return int(digits or 0)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; the name it is called by, `-i` or `-q` choose another personality."""
    called, *words = sys.argv if argv is None else argv
    program = program_name(called)
    for name in ("zerotier-idtool", "zerotier-cli"):
        if name in called or name.upper() in called:
            return _personality(name, called, words)
    if "-i" in words:
        at = words.index("-i")
        return _personality("zerotier-idtool", "-i", words[at + 1 :])
    if "-q" in words:
        return _personality("zerotier-cli", program, words)
    try:
        options = parse(words)
    except Usage as usage:
        sys.stdout.write(HELP.format(version=version.TEXT, program=program))
        return usage.code
    if options.selftest:
        from zt.service.selftest import selftest

        return selftest()
    if options.show_version:
        print(version.TEXT)
        return 0
    return start(program, options)


def program_name(called: str) -> str:
    name = Path(called).name
    return "zerotier-one" if name in ("main.py", "__main__.py", "-c") else name


def _personality(name: str, called: str, words: list[str]) -> int:
    if name == "zerotier-cli":
        from zt.cli.main import main as cli

        return cli([called, *words])
    from zt.cli.idtool import main as idtool

    return idtool([called, *words])


def start(program: str, options: Options) -> int:
    """Everything before the event loop, in the order of ch. 06, 1.3; then the service itself."""
    from zt.service.errors import ServiceError
    from zt.service.home import Home

    for number in (signal.SIGPIPE, signal.SIGIO, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    home = Home(options.home)
    try:
        home.create()
        if (home / "controller.db").exists():
            raise ServiceError(
                f"an old controller.db exists in {home.path};"
                " its format is not supported, move it away"
            )
        if not options.keep_privileges and os.geteuid() != 0:
            print(f"{program}: must be run as root (uid 0)", file=sys.stderr)
            return 1
        if options.background and os.fork():
            os._exit(0)  # the parent has nothing to clean up; the child goes on
        if not options.keep_privileges:
            from zt.service.privileges import drop

            drop(home.path)
        from zt.service.run import run

        return run(home, options.port)
    except ServiceError as error:
        print(error.line(program), file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
