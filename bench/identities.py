"""Identities with valid proofs of work in numbers, made once and kept in a file.

One takes about 50 ms of one core, so 20,000 take 17 minutes; a file that was begun is continued.
They are secrets of nobody: for load generators only.
"""

import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from zt.protocol.identity import Identity

CACHE = Path(tempfile.gettempdir()) / "zerotier-bench" / "identities"
BATCH = 20


def _generate(count: int) -> list[str]:
    return [Identity.generate(os.urandom).to_text(private=True) for _ in range(count)]


def _idle() -> None:
    os.nice(10)


def identities(count: int, *, cache: Path = CACHE, processes: int = 1) -> Sequence[Identity]:
    """The first ``count`` of the file, which is made longer as needed."""
    cache.parent.mkdir(parents=True, exist_ok=True)
    have = cache.read_text().split() if cache.exists() else []
    missing = count - len(have)
    if missing > 0:
        with (
            ProcessPoolExecutor(processes, initializer=_idle) as pool,
            cache.open("a") as file,
        ):
            for texts in pool.map(_generate, [BATCH] * -(-missing // BATCH)):
                file.write("\n".join(texts) + "\n")
                file.flush()
                have += texts
    return [Identity.parse(text) for text in have[:count]]
