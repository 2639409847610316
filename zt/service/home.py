"""The home folder: identity, tokens, worlds, joined networks and cached state (ch. 06, section 2).

Everything is written to a temporary file beside the target and renamed over it, so that neither a
reader nor a crash ever sees half a file; a write that would not change the bytes is left out.
"""

import fcntl
import os
import re
import secrets
import string
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from zt.protocol.address import NetworkId
from zt.protocol.errors import DecodeError
from zt.protocol.identity import Identity
from zt.protocol.world import World, WorldType
from zt.service.errors import ServiceError

TOKEN_LENGTH = 24
TOKEN_ALPHABET = string.ascii_lowercase + string.digits
TOKEN_BLANKS = " \r\n\t\0"
PEER_FILE_DAYS = 30

BUILT_IN_PLANET = Path(__file__).parent.parent / "data" / "planet"

_STATE_NAME = re.compile(
    r"planet|peers\.d/[0-9a-f]{10}\.peer|moons\.d/[0-9a-f]{16}\.moon|networks\.d/[0-9a-f]{16}\.conf"
)


class Home:
    """The files of one node. `path` is shown to users as it was given."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._pid_fd = -1

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    # --- start and stop ----------------------------------------------------------------------

    def create(self) -> None:
        """Make every missing component of the path (0755) and lock down existing secrets (0600).

        Raises ServiceError.
        """
        try:
            self.path.mkdir(mode=0o755, parents=True, exist_ok=True)
        except OSError as error:
            raise ServiceError(
                f"home folder {self.path} cannot be created: {error.strerror}"
            ) from None
        for name in ("identity.secret", "authtoken.secret"):
            with suppress(OSError):
                (self / name).chmod(0o600)

    def claim(self) -> None:
        """Write the pid file and hold a lock on it: one service per home. Raises ServiceError."""
        path = self / "zerotier-one.pid"
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise ServiceError(f"{path} cannot be written: {error.strerror}") from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(fd, 32).decode("ascii", "replace").strip() or "unknown"
            os.close(fd)
            raise ServiceError(
                f"another zerotier-one (pid {holder}) already runs on {self.path}"
            ) from None
        os.ftruncate(fd, 0)
        os.write(fd, str(os.getpid()).encode())
        self._pid_fd = fd

    def release(self) -> None:
        """Remove the pid file and let the next service claim the folder."""
        if self._pid_fd < 0:
            return
        (self / "zerotier-one.pid").unlink(missing_ok=True)
        os.close(self._pid_fd)
        self._pid_fd = -1

    def write_port(self, port: int) -> None:
        self.write("zerotier-one.port", str(port).encode())

    # --- plain files -------------------------------------------------------------------------

    def read(self, name: str) -> bytes | None:
        """The content of a file, None when it does not exist. Raises ServiceError."""
        try:
            return (self / name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ServiceError(f"{self / name} cannot be read: {error.strerror}") from None

    def write(self, name: str, data: bytes, mode: int = 0o644) -> None:
        """Replace a file as a whole; missing parent folders are made. Raises OSError."""
        path = self / name
        try:
            if path.read_bytes() == data:
                return
        except OSError:
            pass
        path.parent.mkdir(mode=0o755, exist_ok=True)
        write_atomic(path, data, mode)

    def delete(self, name: str) -> None:
        (self / name).unlink(missing_ok=True)

    def store(self, name: str, data: bytes | None) -> None:
        """Carry out a `Store` action. Names outside of the state files are refused (ValueError)."""
        if not _STATE_NAME.fullmatch(name):
            raise ValueError(f"not a state file: {name!r}")
        if data is None:
            self.delete(name)
        else:
            self.write(name, data)

    def load(self, name: str) -> bytes | None:
        """Answer a `Load` action: the bytes, None when there is nothing readable of that name."""
        if not _STATE_NAME.fullmatch(name):
            return None
        try:
            return (self / name).read_bytes()
        except OSError:
            return None

    # --- secrets -----------------------------------------------------------------------------

    def token(self, name: str) -> str:
        """`authtoken.secret` or `metricstoken.secret`, made at first use. Raises ServiceError."""
        data = self.read(name)
        if data is not None:
            token = data.decode("ascii", "replace").strip(TOKEN_BLANKS)
            if token:
                return token
            raise ServiceError(f"{self / name} is empty; remove it to have a new token made")
        token = "".join(secrets.choice(TOKEN_ALPHABET) for _ in range(TOKEN_LENGTH))
        try:
            self.write(name, token.encode(), 0o600)
        except OSError:
            # The reference names the same file for both tokens; so do scripts that match it.
            raise ServiceError(
                "authtoken.secret could not be written"
                " (try running with -U to prevent dropping of privileges)"
            ) from None
        return token

    def identity(self) -> Identity:
        """The node's identity, generated and written at first use. Raises ServiceError."""
        text = self.read("identity.secret")
        if text is None:
            identity = Identity.generate(os.urandom)
            self.write("identity.secret", identity.to_text(private=True).encode(), 0o600)
            self.write("identity.public", str(identity).encode())
            return identity
        try:
            identity = Identity.parse(text.decode("ascii", "replace").strip(TOKEN_BLANKS))
            good = identity.has_private and identity.private_matches() and identity.validate()
        except DecodeError:
            good = False
        if not good:
            raise ServiceError(
                "invalid identity loaded from disk. Please remove identity.public and"
                f" identity.secret from {self.path} and try again"
            )
        # A missing identity.public stays missing: that is how somebody keeps it off the disk.
        public = self.read("identity.public")
        if public is not None and public != str(identity).encode():
            self.write("identity.public", str(identity).encode())
        return identity

    def retire_identity(self) -> None:
        """Another key owns our address (ch. 06, 1.7): keep the old secret, start over without."""
        old = self.read("identity.secret")
        if old is not None:
            self.write("identity.secret.saved_after_collision", old, 0o600)
        self.delete("identity.secret")
        self.delete("identity.public")

    # --- worlds and networks -----------------------------------------------------------------

    def planet(self) -> World:
        """The planet of the home folder, else the built-in one, written there. Raises ServiceError.

        A built-in planet that is a valid update of the one on disk replaces it (ch. 03, 2.2).
        """
        built_in_data = BUILT_IN_PLANET.read_bytes()
        built_in = World.decode(built_in_data)
        data = self.read("planet")
        if data is None:
            self.write("planet", built_in_data)
            return built_in
        try:
            planet = World.decode(data)
        except DecodeError as error:
            raise ServiceError(f"{self / 'planet'} is damaged: {error}") from None
        if planet.type != WorldType.PLANET or not planet.roots:
            raise ServiceError(f"{self / 'planet'} is not a planet: it names no roots")
        if built_in.replaces(planet):
            self.write("planet", built_in_data)
            return built_in
        return planet

    def moons(self) -> Iterator[tuple[Path, World | None]]:
        """Every moon of `moons.d`; None in place of one that cannot be read."""
        for path in self._files("moons.d", r"[0-9a-f]{16}\.moon"):
            try:
                yield path, World.decode(path.read_bytes())
            except (OSError, DecodeError):
                yield path, None

    def networks(self) -> list[NetworkId]:
        """The networks to join at start: one per `networks.d/<16 hex>.conf`, an empty one too."""
        files = self._files("networks.d", r"[0-9a-f]{16}\.conf")
        return [NetworkId(int(path.name[:16], 16)) for path in files]

    def expire_peers(self, now_s: float) -> None:
        """Delete cached peers older than 30 days (ch. 06, 1.8)."""
        for path in self._files("peers.d", r".*\.peer"):
            with suppress(OSError):
                if now_s - path.stat().st_mtime > PEER_FILE_DAYS * 86400:
                    path.unlink()

    def _files(self, folder: str, pattern: str) -> list[Path]:
        try:
            found = sorted((self / folder).iterdir())
        except OSError:
            return []
        return [path for path in found if re.fullmatch(pattern, path.name) and path.is_file()]


def write_atomic(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Write `path` through a temporary file in the same folder and a rename. Raises OSError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        with open(fd, "wb", closefd=True) as file:
            file.write(data)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
