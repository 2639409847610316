from collections.abc import Sequence

from zt._fast.tables import Tables

def bond_set(
    tables: Tables,
    address: int,
    policy: int,
    paths: Sequence[int | None],
    members: Sequence[tuple[int, int]],
    *,
    packets: int = 64,
) -> None: ...
def bond_clear(tables: Tables, address: int) -> None: ...
def bond_samples(
    tables: Tables, address: int
) -> list[tuple[list[tuple[int, int]], list[tuple[int, int]]]]: ...
def bond_flows(
    tables: Tables, address: int, now_ms: int, *, idle_ms: int, away: int = -1
) -> list[int]: ...
def flow_of(payload: bytes, ethertype: int) -> int: ...
