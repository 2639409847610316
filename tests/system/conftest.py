"""Real namespaces, TAP devices and processes, in labs that vanish with the test."""

from collections.abc import Iterator

import pytest

from bench import lab as laboratory
from bench.lab import Lab

# Several tests run at once, and the machine may have more to do: what is awaited may come late.
laboratory.patience = 4.0


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        yield lab
