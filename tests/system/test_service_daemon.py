"""`zerotier-one` as a process: start, errors, stop, live settings, crashes (ch. 06, 1 and 5)."""

import contextlib
import http.client
import json
import os
import random
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.lab import Host, Lab, Process, wait_for

pytestmark = pytest.mark.system

ONE = [sys.executable, "-m", "zt.service.main"]
CLI = [sys.executable, "-m", "zt.cli.main"]
PROJECT = str(Path(__file__).parent.parent.parent)
ENV = {"PYTHONPATH": PROJECT}
SEQUENCES = int(os.environ.get("ZT_SEQUENCES", "10"))
RESTARTS = 1.0 if SEQUENCES > 20 else 0.2
"""Of those that a sequence wants: a start takes longer than all else."""
ADHOC = "ff00160016000000"
"""A network that needs no controller."""


class Service:
    """One home folder on one host, and the service that runs on it."""

    def __init__(self, host: Host, home: Path, *words: str) -> None:
        self.host = host
        self.home = home
        self.words = words
        self.process: Process | None = None
        self.env = dict(ENV)

    def start(self) -> None:
        (self.home / "zerotier-one.port").unlink(missing_ok=True)
        self.process = self.host.start([*ONE, *self.words, str(self.home)], env=self.env)
        self.wait_ready()

    def wait_ready(self) -> None:
        wait_for("the service to answer", lambda: self.ask("GET", "/status"))

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.signal(number)
        return self.process.wait()

    @property
    def output(self) -> str:
        assert self.process is not None
        return self.process.output()

    def cli(self, *words: str, check: bool = True) -> str:
        done = self.host.run([*CLI, f"-D{self.home}", *words], check=check, env=ENV)
        return done.stdout if done.returncode == 0 else ""

    def get(self, path: str) -> Any:
        return json.loads(self.cli(path))

    def post(self, path: str, value: dict[str, Any]) -> None:
        token = (self.home / "authtoken.secret").read_text()
        port = (self.home / "zerotier-one.port").read_text()
        words = ["curl", "-sS", "-H", f"X-ZT1-Auth: {token}", "-d", json.dumps(value)]
        self.host.run([*words, f"http://127.0.0.1:{port}{path}"])

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """The answer of the API, asked without a command."""
        token = (self.home / "authtoken.secret").read_text()
        port = int((self.home / "zerotier-one.port").read_text())
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.sock = self.host.inside(socket.create_connection, ("127.0.0.1", port), 20)
        with contextlib.closing(connection):
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, {"X-ZT1-Auth": token})
            return json.loads(connection.getresponse().read())

    def status_settings(self) -> Any:
        return self.get("/status")["config"]["settings"]


@pytest.fixture
def service(lab: Lab, tmp_path: Path) -> Service:
    return Service(lab.host("a"), tmp_path / "home")


def refuses(service: Service) -> str:
    """What a service says that does not start."""
    process = service.host.start([*ONE, *service.words, str(service.home)], env=ENV)
    assert process.wait() == 1
    output = process.output()
    assert "Traceback" not in output
    return output


def links(host: Host) -> set[str]:
    return {link["ifname"] for link in json.loads(host.run(["ip", "-j", "link"]).stdout)}


def test_life(service: Service) -> None:
    """Files and modes while running and after a clean stop, as recorded (cli.json)."""
    service.start()
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in service.home.iterdir()}
    for name in ("identity.secret", "authtoken.secret", "metricstoken.secret"):
        assert modes[name] == 0o600
    for name in ("identity.public", "planet", "zerotier-one.pid", "zerotier-one.port"):
        assert modes[name] == 0o644
    assert modes["controller.d"] == 0o700
    assert service.process is not None
    assert (service.home / "zerotier-one.pid").read_text() == str(service.process.pid)
    assert service.cli("info").startswith("200 info ")
    assert service.stop() == 0
    assert service.output == ""  # silent when all is well
    left = {p.name for p in service.home.iterdir()}
    assert "zerotier-one.pid" not in left
    assert {"zerotier-one.port", "metrics.prom", "planet"} <= left
    assert b"zt_packet" in (service.home / "metrics.prom").read_bytes()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_other_stop_signals(service: Service, number: signal.Signals) -> None:
    service.start()
    for ignored in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE, signal.SIGIO):
        assert service.process is not None
        service.process.signal(ignored)
    assert service.cli("info")
    assert service.stop(number) == 0


def test_damaged_files(service: Service) -> None:
    """One clear line that names the file, exit code 1."""
    service.home.mkdir()
    for name, content, expected in (
        ("identity.secret", "garbage", "identity.secret"),
        ("local.conf", "{", "ERROR: unable to parse local.conf (invalid JSON)\n"),
        ("local.conf", "[]", "ERROR: unable to parse local.conf (root element is not"),
        ("local.conf", '{"settings": 5}', '"settings" must be an object'),
        ("planet", "nonsense", f"{service.home}/planet is damaged"),
        ("controller.db", "", "controller.db"),
    ):
        path = service.home / name
        path.write_text(content)
        output = refuses(service)
        assert expected in output
        assert output.count("\n") == 1
        path.unlink()


def test_taken_port_and_second_instance(service: Service, tmp_path: Path) -> None:
    service.start()
    other = Service(service.host, tmp_path / "other")
    assert refuses(other) == (
        "zerotier-one: fatal error: cannot bind to local control interface port 9993\n"
    )
    assert service.process is not None
    pid = service.process.pid
    second = Service(service.host, service.home, "-p9994")
    assert f"another zerotier-one (pid {pid}) already runs on {service.home}" in refuses(second)
    assert service.cli("info")
    random_port = Service(service.host, tmp_path / "third", "-p0")
    random_port.start()
    port = int((random_port.home / "zerotier-one.port").read_text())
    assert 20000 <= port < 65500


def test_home_that_cannot_be_made(service: Service) -> None:
    nowhere = Service(service.host, Path("/proc/nope/x"))
    assert "/proc/nope/x cannot be created" in refuses(nowhere)


def test_live_settings(service: Service) -> None:
    """Edits and SIGHUP apply; a broken edit keeps what was there (Q18, Q19)."""
    service.home.mkdir()
    conf = service.home / "local.conf"
    conf.write_text('{"settings": {"portMappingEnabled": false}}')
    service.start()

    def hang_up() -> None:
        assert service.process is not None
        service.process.signal(signal.SIGHUP)

    def listening() -> list[str]:
        found: list[str] = service.status_settings()["listeningOn"]
        return found

    wait_for("both ports", lambda: len(listening()) == 2)
    conf.write_text('{"settings": {"interfacePrefixBlacklist": ["eth"]}}')
    hang_up()
    wait_for("the sockets to close", lambda: listening() == [])
    conf.write_text('{"settings": {"bind": ["127.0.0.1"], "typo": 1}}')
    hang_up()
    wait_for("the new socket", lambda: listening() != [])
    assert all(text.startswith("127.0.0.1/") for text in listening())
    conf.write_text("{")
    hang_up()
    wait_for("the complaint", lambda: "invalid JSON" in service.output)
    assert service.get("/config")["settings"]["bind"] == ["127.0.0.1"]
    assert "local.conf: settings.typo: unknown setting" in service.output

    service.post("/config/settings", {"lowBandwidthMode": True})
    written = json.loads(conf.read_text())
    assert written["settings"] == {"bind": ["127.0.0.1"], "lowBandwidthMode": True, "typo": 1}
    assert conf.read_text().startswith('{\n    "settings"')
    assert service.stop() == 0


def test_kill_and_restart(service: Service) -> None:
    """Nothing of a killed run is left; the next one has its networks again."""
    service.start()
    service.cli("join", ADHOC)
    wait_for("the ad-hoc network", lambda: service.cli("get", ADHOC, "status") == "OK\n")
    before = service.get("/network")[0]
    assert before["portDeviceName"] in links(service.host)
    assert service.stop(signal.SIGKILL) == -signal.SIGKILL
    wait_for("the device to vanish", lambda: before["portDeviceName"] not in links(service.host))
    service.start()
    wait_for("the ad-hoc network", lambda: service.cli("get", ADHOC, "status") == "OK\n")
    after = service.get("/network")[0]
    for key in ("id", "mac", "assignedAddresses", "portDeviceName"):
        assert after[key] == before[key]
    assert service.stop() == 0
    assert links(service.host) == {"lo", "eth0"}


def test_no_secret_is_logged(service: Service) -> None:
    """At its most talkative, with wrong and right tokens, a network, settings with secrets."""
    service.env["ZT_LOG"] = "debug"
    service.home.mkdir()
    (service.home / "local.conf").write_text('{"settings": {"vault": {"vaultToken": "hush"}}}')
    service.start()
    service.ask("POST", f"/network/{ADHOC}", {})
    service.cli("-Twrongtoken", "info", check=False)
    service.ask("POST", "/config/settings", {"apiSecret": "hush"})
    service.cli("/status?auth=wrongtoken", check=False)
    assert service.stop() == 0
    assert "settings.apiSecret: unknown setting" in service.output  # it did talk
    secrets = [
        (service.home / name).read_text() for name in ("authtoken.secret", "metricstoken.secret")
    ]
    secrets.append((service.home / "identity.secret").read_text().rpartition(":")[2])
    for secret in (*secrets, "hush", "wrongtoken"):
        assert secret not in service.output


def test_random_sequences(service: Service) -> None:
    """Whatever order of join, leave, set and restart: the end is what the last commands say.

    ZT_SEQUENCES=200 is the long form; each sequence begins where the one before ended."""
    service.start()
    nwids = [f"ff{port:04x}{port:04x}000000" for port in (1, 2, 3)]
    wanted: dict[str, dict[str, bool]] = {}
    for seed in range(SEQUENCES):
        chance = random.Random(seed)
        for _ in range(chance.randrange(4, 12)):
            nwid = chance.choice(nwids)
            act = chance.choice(["join", "join", "leave", "set", "set", "set", "restart"])
            if act == "join":
                service.ask("POST", f"/network/{nwid}", {})
                wanted.setdefault(nwid, {})
            elif act == "leave":
                service.ask("DELETE", f"/network/{nwid}")
                wanted.pop(nwid, None)
            elif act == "set" and nwid in wanted:
                key = chance.choice(["allowManaged", "allowGlobal", "allowDefault", "allowDNS"])
                wanted[nwid][key] = chance.random() < 0.5
                service.ask("POST", f"/network/{nwid}", {key: wanted[nwid][key]})
            elif act == "restart" and chance.random() < RESTARTS:
                number = chance.choice([signal.SIGTERM, signal.SIGKILL])
                assert service.stop(number) == (0 if number == signal.SIGTERM else -number)
                service.start()
        wait_for(f"what sequence {seed} says", lambda: as_wanted(service, wanted))


def as_wanted(service: Service, wanted: dict[str, dict[str, bool]]) -> bool:
    """Networks, their settings, devices and addresses; and nothing else on the host."""
    networks = {network["id"]: network for network in service.ask("GET", "/network")}
    if networks.keys() != wanted.keys():
        return False
    devices = {network["portDeviceName"] for network in networks.values()}
    if links(service.host) != {"lo", "eth0"} | devices:
        return False
    for nwid, settings in wanted.items():
        network = networks[nwid]
        if any(network[key] is not value for key, value in settings.items()):
            return False
        words = ["ip", "-j", "-6", "addr", "show", "dev", network["portDeviceName"]]
        (link,) = json.loads(service.host.run(words).stdout)
        present = {
            f"{a['local']}/{a['prefixlen']}" for a in link["addr_info"] if a["scope"] != "link"
        }
        if present != (set(network["assignedAddresses"]) if network["allowManaged"] else set()):
            return False
    return True


def test_without_privileges(lab: Lab) -> None:
    """An ordinary user: refused; with -U it runs, and a network shows its port error (Q10)."""
    home = lab.directory / "home"
    home.mkdir()
    lab.directory.chmod(0o755)
    os.chown(home, 65534, 65534)
    host = lab.host("a")
    as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    done = host.run([*as_nobody, *ONE, str(home)], check=False, env=ENV)
    assert (done.returncode, done.stderr) == (1, "zerotier-one: must be run as root (uid 0)\n")
    process = host.start([*as_nobody, *ONE, "-U", "-p9999", str(home)], env=ENV)
    service = Service(host, home)
    service.process = process
    service.wait_ready()
    service.cli("join", ADHOC)
    (network,) = service.get("/network")
    assert network["status"] == "PORT_ERROR"
    assert network["portError"] < 0
    assert network["portDeviceName"] == ""
    assert service.stop() == 0


def test_background(service: Service) -> None:
    """-d: the parent leaves at once, the pid file holds the child."""
    service.home.mkdir()
    done = service.host.run(
        ["sh", "-c", f"{' '.join(ONE)} -d {service.home} >/dev/null 2>&1"], env=ENV
    )
    assert done.returncode == 0
    try:
        service.wait_ready()
    finally:
        pid = int((service.home / "zerotier-one.pid").read_text())
        os.kill(pid, signal.SIGTERM)
    wait_for("its end", lambda: not (service.home / "zerotier-one.pid").exists())


def test_start_of_the_command_line(lab: Lab) -> None:
    """-v, -h and unknown words answer without a service and without privileges."""
    for words, code, expected in (
        (["-v"], 0, "1.14.1\n"),
        (["-h"], 0, "Usage: "),
        (["-p70000"], 1, "Usage: "),
        (["-q", "-v"], 0, "1.14.1\n"),
        (["-i", "nonsense"], 1, "Usage: -i <command>"),
    ):
        done = subprocess.run(
            [*ONE, *words], capture_output=True, text=True, env={**os.environ, **ENV}, check=False
        )
        assert done.returncode == code, words
        assert expected in done.stdout
