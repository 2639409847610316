"""Dropping root for a user that keeps only what TAP devices and sockets need (ch. 06, 1.5)."""

import ctypes
import logging
import os
import pwd
import struct
from pathlib import Path

from zt.service.errors import ServiceError

log = logging.getLogger("zt.service")

USER = "zerotier-one"

CAP_SETGID, CAP_SETUID = 6, 7
CAP_NET_BIND_SERVICE, CAP_NET_ADMIN, CAP_NET_RAW = 10, 12, 13
KEPT = (CAP_NET_ADMIN, CAP_NET_RAW, CAP_NET_BIND_SERVICE)
AMBIENT = (CAP_NET_ADMIN, CAP_NET_RAW)

PR_SET_DUMPABLE = 4
PR_SET_SECUREBITS = 28
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_IS_SET, PR_CAP_AMBIENT_RAISE = 1, 2
SECBIT_NOROOT, SECBIT_KEEP_CAPS = 1 << 0, 1 << 4
CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


def drop(home: Path) -> None:
    """Become the service's user if there is one; otherwise stay root. Raises ServiceError."""
    if os.geteuid() != 0:
        return
    try:
        entry = pwd.getpwnam(USER)
    except KeyError:
        return
    if _prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_NET_RAW) < 0:
        log.warning("the kernel has no ambient capabilities; staying root")
        return
    if _prctl(PR_SET_SECUREBITS, SECBIT_KEEP_CAPS | SECBIT_NOROOT) < 0:
        log.warning("secure bits cannot be set; staying root")
        return
    try:
        _own(home, entry.pw_uid, entry.pw_gid)
        _prctl(PR_SET_DUMPABLE, 0)  # no peeking while the process is in between
        _set_capabilities((*KEPT, CAP_SETUID, CAP_SETGID))
        os.setgroups([])  # root's groups would be an open back door (Q28)
        os.setgid(entry.pw_gid)
        os.setuid(entry.pw_uid)
        _set_capabilities(KEPT)
        for capability in AMBIENT:
            if _prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability) < 0:
                raise OSError(ctypes.get_errno(), "ambient capabilities")
        _prctl(PR_SET_DUMPABLE, 1)
    except OSError as error:
        raise ServiceError(f"privileges cannot be dropped to {USER}: {error}") from None


def _own(home: Path, uid: int, gid: int) -> None:
    """The whole tree belongs to the user; links are not followed."""
    os.chown(home, uid, gid, follow_symlinks=False)
    for folder, names, files in os.walk(home, followlinks=False):
        for name in (*names, *files):
            os.chown(os.path.join(folder, name), uid, gid, follow_symlinks=False)


def _prctl(option: int, *arguments: int) -> int:
    values = [ctypes.c_ulong(value) for value in (*arguments, 0, 0, 0, 0)[:4]]
    return int(_libc.prctl(option, *values))


def _set_capabilities(wanted: tuple[int, ...]) -> None:
    bits = sum(1 << capability for capability in wanted)
    header = ctypes.create_string_buffer(struct.pack("=Ii", CAPABILITY_VERSION_3, 0))
    # effective, permitted, inheritable: the low 32 bits, then the high ones
    data = ctypes.create_string_buffer(struct.pack("=6I", bits, bits, bits, 0, 0, 0))
    if _libc.capset(header, data) < 0:
        raise OSError(ctypes.get_errno(), "capset")
