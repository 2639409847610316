"""Each cipher kernel at each level this CPU has, and what stands on them, by size."""

import os
from collections.abc import Iterator
from typing import Any

import pytest
from nacl.bindings import crypto_scalarmult

from zt._fast import cipher
from zt._fast.memhash import memory_hard_hash

RUNS = 200
SIZES = [64, 200, 1432, 2800]


@pytest.fixture(params=cipher.levels())
def level(request: pytest.FixtureRequest) -> Iterator[str]:
    before = cipher.level()
    cipher.set_level(request.param)
    yield request.param
    cipher.set_level(before)


def run(benchmark: Any, operation: str, size: int) -> None:
    """Times RUNS runs a round; the round divided by them is in extra_info as nanoseconds."""
    benchmark(cipher.measure, operation, size, RUNS)
    if benchmark.stats is not None:
        seconds = benchmark.stats.stats.median / RUNS
        benchmark.extra_info["ns"] = round(seconds * 1e9)
        benchmark.extra_info["GiB/s"] = round(size / seconds / 2**30, 3)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("operation", ["salsa2012", "poly1305", "checksum"])
def test_kernel(benchmark: Any, level: str, operation: str, size: int) -> None:
    benchmark.group = f"{operation} {size}"
    run(benchmark, operation, size)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("operation", ["seal0", "seal1", "seal3", "open0", "open1", "open3"])
def test_armor(benchmark: Any, level: str, operation: str, size: int) -> None:
    benchmark.group = f"{operation} {size}"
    run(benchmark, operation, size)


def test_peer_key(benchmark: Any) -> None:
    benchmark(cipher.PeerKey, bytes(range(48)))


def test_memory_hard_hash(benchmark: Any) -> None:
    benchmark(memory_hard_hash, bytes(64))


def test_agreement(benchmark: Any) -> None:
    """X25519, what a stranger's first HELLO costs before its MAC can be checked."""
    secret, point = os.urandom(32), (9).to_bytes(32, "little")
    benchmark(crypto_scalarmult, secret, point)
