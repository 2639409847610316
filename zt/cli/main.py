"""`zerotier-cli`: asks a running service (ch. 06, section 4).

Imports nothing but the standard library and its siblings; what only some commands need is imported
by them.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

from zt import version
from zt.cli import tables
from zt.cli.client import Client, Unreachable

DEFAULT_HOME = "/var/lib/zerotier-one"
BLANKS = " \t\r\n\0"
LONG_OPTIONS = ("--watch", "--effective", "--bundle")
EXTRA = ("ping", "netcheck", "wait", "network", "capture", "trace", "doctor")
"""Commands of `zt.cli.extra`, imported when asked for."""
SETTINGS = ("allowManaged", "allowGlobal", "allowDefault", "allowDNS")

HELP = """\
ZeroTier One version {version} build {build} (platform 1 arch 2)
An independent implementation, not affiliated with ZeroTier, Inc.
Licensed under the MIT License (see LICENSE)
Usage: {program} [-switches] <command/path> [<args>]

Available switches:
  -h                      - Display this help
  -v                      - Show version
  -j                      - Display full raw JSON output
  -D<path>                - ZeroTier home path for parameter auto-detect
  -p<port>                - HTTP port (default: auto)
  -T<token>               - Authentication token (default: auto)

Available commands:
  info                    - Display status info
  listpeers               - List all peers
  peers                   - List all peers (prettier)
  listnetworks            - List all networks
  join <network ID>          - Join a network
  leave <network ID>         - Leave a network
  set <network ID> <setting> - Set a network setting
  get <network ID> <setting> - Get a network setting
  listmoons               - List moons (federated root sets)
  orbit <world ID> <seed> - Join a moon via any member root
  deorbit <world ID>      - Leave a moon
  dump                    - Debug settings dump for support

More commands:
  status explain          - Why it is or is not working, and what to do
  peers --watch           - Peers, latencies and paths, refreshed
  ping <address> [<n>]    - Round trips to a peer, naming the path
  netcheck                - NAT kind, ports, mappings, latency of the roots
  wait [<network ID>]     - Until online, or until a network is OK (60 s)
  network show <network ID> --effective - Rules, tags, capabilities in force
  capture <network ID>|control [<file>] - Frames or control packets as pcap
  trace [<network ID>|<address>] - Drops as they happen: reason, frame, rule
  doctor [--bundle]       - All of the above; an archive for support

Available settings:
  Settings to use with [get/set] may include property names from 
  the JSON output of "zerotier-cli -j listnetworks". Additionally, 
  (ip, ip4, ip6, ip6plane, and ip6prefix can be used). For instance:
  zerotier-cli get <network ID> ip6plane will return the 6PLANE address
  assigned to this node.

"""  # noqa: W291 - scripts know these lines as they are


class Exit(Exception):
    """Leave with this code after printing `out` and `err`."""

    def __init__(self, code: int, out: str = "", err: str = "") -> None:
        self.code = code
        self.out = out
        self.err = err


class Options:
    """The words of the command line: switches anywhere, then a command and its arguments."""

    def __init__(self, program: str, words: Sequence[str]) -> None:
        self.program = program
        self.json = False
        self.port: int | None = None
        self.home = os.environ.get("ZEROTIER_HOME") or DEFAULT_HOME
        self.token: str | None = None
        self.host = "127.0.0.1"
        self.plain: list[str] = []
        self.long: set[str] = set()
        for word in words:
            if word in LONG_OPTIONS:
                self.long.add(word)
            elif word.startswith("-"):
                self._switch(word[1:2], word[2:])
            else:
                self.plain.append(word)
        self.command = self.plain[0] if self.plain else ""
        self.argument = self.plain[1] if len(self.plain) > 1 else ""
        self.last = self.plain[-1] if len(self.plain) > 2 else ""
        """Argument 2: every further word replaces it."""

    def help(self) -> str:
        return HELP.format(version=version.TEXT, build=version.BUILD, program=self.program)

    def _switch(self, letter: str, value: str) -> None:
        malformed = Exit(1, self.help())
        if letter in ("q", "j", "v"):
            if value:
                raise malformed
            if letter == "v":
                raise Exit(0, f"{version.TEXT}\n")
            self.json |= letter == "j"
        elif letter == "p":
            if not value.isdigit() or not 0 < int(value) < 65536:
                raise malformed
            self.port = int(value)
        elif letter in ("D", "T", "H"):
            if not value:
                raise malformed
            setattr(self, {"D": "home", "T": "token", "H": "host"}[letter], value)
        else:
            raise Exit(0, self.help())

    def client(self) -> Client:
        """Port and token from the command line or the home folder. Raises Exit."""
        port = self.port
        if port is None:
            text = _read(f"{self.home}/zerotier-one.port")
            if text is None or not text.isdigit():
                raise Exit(
                    2,
                    err=f"{self.program}: missing port and zerotier-one.port"
                    f" not found in {self.home}\n",
                )
            port = int(text)
        token = self.token
        if token is None:
            token = _read(f"{self.home}/authtoken.secret")
        if not token:
            token = _read(f"{os.environ.get('HOME', '')}/.zeroTierOneAuthToken")
        if not token:
            raise Exit(
                2,
                err=f"{self.program}: authtoken.secret not found or readable in"
                f" {self.home} (try again as root)\n",
            )
        return Client(self.host, port, token)


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read().strip(BLANKS)
    except OSError:
        return None


class Cli:
    """One run: options, and where the service is."""

    def __init__(self, options: Options, client: Client) -> None:
        self.options = options
        self.client = client

    # --- helpers -----------------------------------------------------------------------------

    def no_service(self, reason: str) -> NoReturn:
        raise Exit(
            1,
            f"Error connecting to the ZeroTier service: {reason}\n\n"
            "Please check that the service is running and that TCP port 9993 can be"
            " contacted via 127.0.0.1.\n",
        )

    def refused(self, status: int, body: str) -> NoReturn:
        raise Exit(1, f"{status} {self.options.command} {body}\n")

    def get(self, path: str, check: bool = True) -> tuple[int, Any, str]:
        """Status, value and body of a GET whose answer is JSON."""
        try:
            status, body = self.client.request("GET", path)
        except Unreachable as error:
            self.no_service(str(error))
        try:
            value = json.loads(body)
        except ValueError as error:
            from zt.cli.jsontext import describe

            raise Exit(
                1,
                f"{status} {self.options.command} invalid JSON response"
                f" ({describe(body, error)})\n",
            ) from None
        if check and status != 200:
            self.refused(status, body)
        return status, value, body

    def send(self, method: str, path: str, body: str | None = None) -> str:
        """The body of a 200 answer."""
        try:
            status, text = self.client.request(method, path, body)
        except Unreachable as error:
            raise Exit(1, f"0 {self.options.command} {error}\n") from None
        if status != 200:
            self.refused(status, text)
        return text

    def print_json(self, value: Any) -> None:
        print(
            json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, separators=(",", ": "))
        )

    def table(self, path: str, lines: Callable[[Any], Iterable[str]]) -> None:
        value = self.get(path)[1]
        if self.options.json:
            self.print_json(value)
        else:
            for line in lines(value):
                print(line)

    # --- commands ----------------------------------------------------------------------------

    def path(self) -> None:
        sys.stdout.write(self.send("GET", self.options.command))

    def info(self) -> None:
        value = self.get("/status")[1]
        if self.options.json:
            self.print_json(value)
        elif isinstance(value, dict):
            if not isinstance(value.get("online"), bool):
                raise Exit(1, err=f"{self.options.program}: the answer is no status\n")
            state = "ONLINE" if value["online"] else "OFFLINE"
            if value.get("tcpFallbackActive") is True:
                state = "TUNNELED"
            address, shown = (tables.text(value.get(key)) for key in ("address", "version"))
            print(f"200 info {address} {shown} {state}")

    def listpeers(self) -> None:
        self.table("/peer", lambda value: tables.list_peers(value, now_ms()))

    def peers(self) -> None:
        self.table("/peer", lambda value: tables.peers(value, now_ms()))

    def listnetworks(self) -> None:
        self.table("/network", lambda value: tables.list_networks(value, now_ms()))

    def listbonds(self) -> None:
        self.table("/peer", tables.list_bonds)

    def listmoons(self) -> None:
        self.print_json(self.get("/moon")[1])

    def join(self) -> None:
        self._network("POST", "{}")

    def leave(self) -> None:
        self._network("DELETE", None)

    def _network(self, method: str, body: str | None) -> None:
        if len(self.options.argument) != 16:
            raise Exit(2, "invalid network id\n")
        self._done(self.send(method, f"/network/{self.options.argument}", body))

    def _done(self, body: str) -> None:
        if self.options.json:
            sys.stdout.write(body)
        else:
            print(f"200 {self.options.command} OK")

    def orbit(self) -> None:
        if not (_hex(self.options.argument) and _hex(self.options.last)):
            return
        body = json.dumps({"seed": self.options.last}, separators=(",", ":"))
        self.send("POST", f"/moon/{self.options.argument}", body)
        print("200 orbit OK")

    def deorbit(self) -> None:
        self._done(self.send("DELETE", f"/moon/{self.options.argument}"))

    def _check_property(self, verb: str) -> None:
        if len(self.options.argument) != 16:
            raise Exit(2, err="invalid format: must be a 16-digit (network) ID\n")
        if not self.options.last:
            raise Exit(2, err=f"invalid format: include a property name to {verb}\n")

    def set(self) -> None:
        self._check_property("set")
        key, equals, value = self.options.last.partition("=")
        if not equals:
            raise Exit(2, err=self.options.help())
        if key not in SETTINGS:
            return
        body = json.dumps({key: value[:1] in ("t", "1")}, separators=(",", ":"))
        sys.stdout.write(self.send("POST", f"/network/{self.options.argument}", body))

    def get_property(self) -> None:
        self._check_property("get")
        status, value, body = self.get("/network", check=False)
        networks = tables.objects(value)
        found = next((n for n in networks if n.get("id") == self.options.argument), None)
        if found is None:
            print(
                "unknown network ID, check that you are a member of the network",
                file=sys.stderr,
            )
        else:
            print(tables.get_property(found, self.options.last))
        if status != 200:
            self.refused(status, body)

    def bond(self) -> None:
        first, *rest = self.options.plain[1:] or [""]
        if first == "list":
            self.listbonds()
        elif first == "setmtu" and len(rest) == 3:
            self._bond_mtu(*rest)
        elif len(first) == 10 and rest[:1] == ["show"]:
            value = self.get(f"/bond/show/{first}")[1]
            if self.options.json:
                self.print_json(value)
            elif isinstance(value, dict):
                print("\n".join(tables.show_bond(value)))
        elif len(first) == 10 and rest[:1] == ["rotate"]:
            body = self.send("POST", f"/bond/rotate/{first}", "{}")
            if self.options.json:
                sys.stdout.write(body)
            else:
                print("200 rotate OK")
        else:
            raise Exit(2, "(bond) command is missing required arguments\n")

    def _bond_mtu(self, mtu: str, device: str, ip: str) -> None:
        try:
            status, body = self.client.request("POST", f"/bond/setmtu/{mtu}/{device}/{ip}", "{}")
        except Unreachable as error:
            raise Exit(1, f"0 Failed to set MTU: {error}\n") from None
        if status != 200:
            raise Exit(1, f"{status} Failed to set MTU: {body}\n")
        print("200 setmtu OK")

    def dump(self) -> None:
        from zt.cli.dump import write

        sections = []
        for title, path in (("status", "/status"), ("networks", "/network"), ("peers", "/peer")):
            try:
                status, body = self.client.request("GET", path)
            except Unreachable as error:
                self.no_service(str(error))
            if status != 200:
                self.no_service(body)
            sections.append((title, body))
        target = os.path.join(os.getcwd(), "zerotier_dump.txt")
        print(f"Writing dump to: {target}")
        write(target, sections, self.options.home)


def wants_explanation(options: Options) -> bool:
    """`status` alone prints what it always did; people at a terminal get the reasons, too."""
    if options.command != "status" or options.json:
        return options.plain[:2] == ["status", "explain"]
    return options.argument == "explain" or sys.stdout.isatty()


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def _hex(text: str) -> int:
    try:
        return int(text, 16)
    except ValueError:
        return 0


COMMANDS: dict[str, Callable[[Cli], None]] = {
    "info": Cli.info,
    "status": Cli.info,
    "listpeers": Cli.listpeers,
    "peers": Cli.peers,
    "listnetworks": Cli.listnetworks,
    "join": Cli.join,
    "leave": Cli.leave,
    "set": Cli.set,
    "get": Cli.get_property,
    "listmoons": Cli.listmoons,
    "orbit": Cli.orbit,
    "deorbit": Cli.deorbit,
    "listbonds": Cli.listbonds,
    "bond": Cli.bond,
    "dump": Cli.dump,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; the exit code."""
    called, *words = sys.argv if argv is None else argv
    program = os.path.basename(called)
    if program in ("main.py", "__main__.py", "-c"):
        program = "zerotier-cli"
    try:
        options = Options(program, words)
        client = options.client()
        if options.command.startswith("/"):
            Cli(options, client).path()
        elif options.command in EXTRA or options.long or wants_explanation(options):
            from zt.cli.extra import run

            return run(Cli(options, client))
        elif options.command in COMMANDS:
            COMMANDS[options.command](Cli(options, client))
        else:
            sys.stderr.write(options.help())
    except Exit as leave:
        sys.stdout.write(leave.out)
        sys.stderr.write(leave.err)
        return leave.code
    except BrokenPipeError:
        # The reader of our output is gone (`| head`); nothing is wrong.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
