"""Shared by the unit tests."""

import resource
from collections.abc import Iterator

import pytest

from zt.protocol.identity import Identity

# Two nodes of no recording, so that what is not about recorded data does not need any.
FIRST = (
    "d34ad7f422:0:e8a7a2dce6423243f63f468e1b0bfb6eca78893e7f71019f89dbc01884339f12"
    "2208e8464ab7cf63dc09abccb063ba8c1b035c3e831a26704893333198eb0a58"
    ":4b5e119e7ec0e071665c6f207889da2130517400b918ebf8aa6114dfb2335c01"
    "457c769f39d8644199c0e5bdbcfbc85b37ce91cbde1fc1b0ea6b44f130436dd7"
)
SECOND = (
    "864e7aafe4:0:24f7fe6507877dfaac2c83e54dbfbc4e30178a5cf06396a99828bac46f794f30"
    "93735d3c49f61dd84a1afb012fa07f96b608d9d30d3c305813d4ec402bb19687"
    ":3fc6ac5ccbf28bfb57a23df03c46587f7e6d7eda6ed0f996833ef10f6d8455eb"
    "fe5518cbe8dfe59296946bd26935a014be3a2b7c73a420c339a0f94237376d09"
)


@pytest.fixture
def identity() -> Identity:
    """An identity with its private key."""
    return Identity.parse(FIRST)


@pytest.fixture
def other_identity() -> Identity:
    return Identity.parse(SECOND)


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """For tests with more than a thousand connections."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4096 if before[1] == resource.RLIM_INFINITY else min(4096, before[1])
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], wanted), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)
