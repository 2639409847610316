"""Shared by the unit tests."""

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from zt.protocol.identity import Identity


@pytest.fixture
def identity(vectors: Callable[[str], Any]) -> Identity:
    """An identity with its private key, out of the recorded ones."""
    text = json.dumps(vectors("identity.json"))
    found = re.search(r"[0-9a-f]{10}:0:[0-9a-f]{128}:[0-9a-f]{128}", text)
    assert found is not None
    return Identity.parse(found[0])
