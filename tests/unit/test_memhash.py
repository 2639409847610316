"""The identity proof of work against the recorded data."""

from collections.abc import Callable
from typing import Any

import pytest

from zt._fast.memhash import memory_hard_hash


def test_memory_hard_hash(vectors: Callable[[str], Any]) -> None:
    data = vectors("identity.json")
    for case in data["memory_hard"]:
        assert memory_hard_hash(bytes.fromhex(case["public_key"])).hex() == case["final_digest"]
    for case in data["valid"]:
        digest = memory_hard_hash(bytes.fromhex(case["public_key"]))
        assert digest.hex() == case["memory_hard_digest"]


def test_refuses_other_lengths() -> None:
    with pytest.raises(ValueError):
        memory_hard_hash(bytes(63))
