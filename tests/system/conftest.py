"""Real namespaces, TAP devices and processes, in labs that vanish with the test."""

from collections.abc import Iterator

import pytest

from bench.lab import Lab


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        yield lab
