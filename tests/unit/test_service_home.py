"""The home folder: files, modes, damage, one service at a time (ch. 06, 1.6, 1.7 and 2)."""

import re
from pathlib import Path

import pytest

from zt.protocol.identity import Identity
from zt.protocol.world import World
from zt.service.errors import ServiceError
from zt.service.home import BUILT_IN_PLANET, Home
from zt.service.main import Usage, parse


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "deep" / "home")
    home.create()
    return home


def test_first_start_makes_what_is_missing(home: Home) -> None:
    identity = home.identity()
    assert identity.validate()
    assert (home / "identity.secret").read_text() == identity.to_text(private=True)
    assert (home / "identity.public").read_text() == identity.to_text()
    assert mode(home / "identity.secret") == 0o600
    assert mode(home / "identity.public") == 0o644
    for name in ("authtoken.secret", "metricstoken.secret"):
        assert re.fullmatch("[a-z0-9]{24}", home.token(name))
        assert mode(home / name) == 0o600
    assert home.planet() == World.decode(BUILT_IN_PLANET.read_bytes())
    assert (home / "planet").read_bytes() == BUILT_IN_PLANET.read_bytes()
    # The second start finds the same.
    assert home.identity() == identity
    assert home.token("authtoken.secret") == (home / "authtoken.secret").read_text()


def test_token_with_blanks(home: Home) -> None:
    (home / "authtoken.secret").write_text(" secret\t\r\n\0")
    assert home.token("authtoken.secret") == "secret"


@pytest.mark.parametrize("damage", ["", "garbage", "wrong address", "public only", "foreign key"])
def test_damaged_identity(home: Home, identity: Identity, damage: str) -> None:
    secret = identity.to_text(private=True)
    text = {
        "wrong address": "0123456789" + secret[10:],
        "public only": identity.to_text(),
        "foreign key": identity.to_text() + ":" + "11" * 64,
    }.get(damage, damage)
    (home / "identity.secret").write_text(text)
    with pytest.raises(ServiceError, match=r"identity\.secret from .*home"):
        home.identity()


def test_identity_public(home: Home, identity: Identity) -> None:
    """A different one is put right, a missing one stays missing."""
    (home / "identity.secret").write_text(identity.to_text(private=True) + "\n")
    home.identity()
    assert not (home / "identity.public").exists()
    (home / "identity.public").write_text("something else")
    home.identity()
    assert (home / "identity.public").read_text() == identity.to_text()


def test_damaged_planet(home: Home) -> None:
    (home / "planet").write_bytes(BUILT_IN_PLANET.read_bytes()[:100])
    with pytest.raises(ServiceError, match=r"home/planet is damaged"):
        home.planet()


def test_one_service_per_home(home: Home) -> None:
    home.claim()
    assert (home / "zerotier-one.pid").read_text().isdigit()
    second = Home(home.path)
    with pytest.raises(ServiceError, match=r"another zerotier-one \(pid \d+\) already runs on"):
        second.claim()
    home.release()
    assert not (home / "zerotier-one.pid").exists()
    second.claim()
    second.release()


def test_home_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ServiceError, match="file/home cannot be created"):
        Home(tmp_path / "file" / "home").create()


def test_state_files(home: Home) -> None:
    name = "peers.d/0123456789.peer"
    assert home.load(name) is None
    home.store(name, b"one")
    stamp = (home / name).stat().st_ino
    home.store(name, b"one")
    assert (home / name).stat().st_ino == stamp  # the same bytes are not written again
    assert home.load(name) == b"one"
    home.store(name, None)
    assert home.load(name) is None
    for outside in ("../x", "local.conf", "peers.d/../identity.secret", "peers.d/x.peer"):
        with pytest.raises(ValueError, match="not a state file"):
            home.store(outside, b"")
        assert home.load(outside) is None
    assert [path.name for path in (home / "peers.d").iterdir()] == []


def test_networks_to_join(home: Home) -> None:
    folder = home / "networks.d"
    folder.mkdir()
    for name in ("82b3038cb6000002.conf", "short.conf", "82b3038cb6000001.local.conf"):
        (folder / name).touch()
    assert [str(nwid) for nwid in home.networks()] == ["82b3038cb6000002"]


def test_command_line() -> None:
    assert parse(["-p9994", "-U", "-d", "/home"]).port == 9994
    assert parse(["-pabc"]).port == 0
    assert parse([]).port is None
    for words, code in ((["-p70000"], 1), (["-x"], 0), (["--version"], 0), (["a", "b"], 0)):
        with pytest.raises(Usage) as usage:
            parse(words)
        assert usage.value.code == code
