"""Manual pages, completion, dashboard and unit speak of what there is."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from zt.cli.idtool import COMMANDS as IDTOOL_COMMANDS
from zt.cli.main import COMMANDS, EXTRA, HELP, LONG_OPTIONS
from zt.service.localconf import SETTINGS

ROOT = Path(__file__).parent.parent.parent
PACKAGING = ROOT / "packaging"


def page(name: str) -> str:
    return (ROOT / "docs/man" / name).read_text().replace("\\-", "-").replace("\\fR", "")


def test_manual_pages_name_every_command() -> None:
    cli = page("zerotier-cli.1")
    for command in (*COMMANDS, *EXTRA, *LONG_OPTIONS):
        assert re.search(rf"\b{command}\b|{command}", cli) or command == "listbonds", command
    idtool = page("zerotier-idtool.1")
    for command in IDTOOL_COMMANDS:
        assert command in idtool, command
    for command in EXTRA:
        assert f"\n  {command}" in HELP


@pytest.mark.skipif(shutil.which("man") is None, reason="needs man")
@pytest.mark.parametrize("path", sorted((ROOT / "docs/man").iterdir()), ids=lambda p: p.name)
def test_manual_pages_are_formatted(path: Path) -> None:
    done = subprocess.run(
        ["man", "--warnings", "-l", str(path)], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    assert "SYNOPSIS" in done.stdout


def complete(*words: str) -> set[str]:
    """What bash would offer after these words."""
    script = PACKAGING / "completion/zerotier-cli"
    line = " ".join(f"'{word}'" for word in words)
    command = (
        f"source {script}; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1};"
        ' _zerotier_cli 2>/dev/null; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_completion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "networks.d").mkdir()
    for name in ("82b3038cb6000001.conf", "82b3038cb6000001.local.conf", "junk.conf"):
        (tmp_path / "networks.d" / name).touch()
    monkeypatch.setenv("ZEROTIER_HOME", str(tmp_path))
    assert {*COMMANDS, *EXTRA} <= complete("zerotier-cli", "")
    assert complete("zerotier-cli", "-j", "lis") == {
        "listpeers", "listnetworks", "listmoons", "listbonds",
    }  # fmt: skip
    assert complete("zerotier-cli", "leave", "") == {"82b3038cb6000001"}
    assert complete("zerotier-cli", "set", "82b3038cb6000001", "allowD") == {
        "allowDefault=", "allowDNS=",
    }  # fmt: skip


def test_dashboard_shows_metrics_that_exist() -> None:
    text = (ROOT / "zt/service/metrics.py").read_text()
    dashboard = json.loads((PACKAGING / "grafana/zerotier-one.json").read_text())
    expressions = [t["expr"] for panel in dashboard["panels"] for t in panel["targets"]]
    names = set(re.findall(r"\b(?:zt|controller)_\w+", " ".join(expressions)))
    assert len(names) > 8
    for name in names:
        assert f'"{name.removesuffix("_bucket")}"' in text, name


def test_operations_names_every_setting() -> None:
    text = (ROOT / "docs/operations.md").read_text()
    internal = {
        "vault", "log", "privateKeyFile", "cpuPinningEnabled",
        "softwareUpdate", "softwareUpdateChannel", "softwareUpdateDist", "ssoRedirectURL",
    }  # fmt: skip
    for key in SETTINGS - internal:
        assert f"`{key}`" in text, key


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_unit_is_accepted(tmp_path: Path) -> None:
    """By systemd itself, with a command in place of the one that is not installed here."""
    unit = (PACKAGING / "systemd/zerotier-one.service").read_text()
    copy = tmp_path / "zerotier-one.service"
    copy.write_text(unit.replace("/usr/sbin/zerotier-one", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(copy)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "path",
    [p for folder in ("deb", "docker") for p in sorted((PACKAGING / folder).iterdir())],
    ids=lambda p: p.name,
)
def test_scripts_are_shell(path: Path) -> None:
    first = path.read_text().partition("\n")[0]
    if first.startswith("#!"):
        shell = "bash" if "bash" in first else "sh"
        assert path.stat().st_mode & 0o111
        subprocess.run([shell, "-n", str(path)], check=True)
