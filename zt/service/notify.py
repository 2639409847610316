"""Tells systemd that the service is ready or stopping (sd_notify(3))."""

import os
import socket


def notify(state: str) -> bool:
    """Send `state` to the manager named in NOTIFY_SOCKET; False when there is none."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path or path[0] not in "/@":
        return False
    address = "\0" + path[1:] if path[0] == "@" else path
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.sendto(state.encode(), address)
    except OSError:
        return False
    return True
