from collections.abc import Sequence

from zt._fast.switch import Switch

def replicate(
    switch: Switch,
    nwid: int,
    members: Sequence[int],
    dest_mac: int,
    source_mac: int,
    ethertype: int,
    payload: bytes,
    body: bytes,
    now_ms: int,
) -> tuple[list[int], list[int]]: ...
