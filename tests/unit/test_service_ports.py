"""The secondary port: chosen anew when the node hears nobody, and never if it is not wanted."""

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest

from zt.service.daemon import Daemon
from zt.service.localconf import parse
from zt.service.prepare import Ports


@pytest.mark.parametrize(
    ("settings", "secondary", "changes"),
    [
        ({}, 20_000, True),
        ({"secondaryPort": 20_000}, 20_000, False),
        # In the original it appears after two minutes without a root (chapter 03, Q20).
        ({"allowSecondaryPort": False}, 0, False),
        ({"allowSecondaryPort": False, "secondaryPort": 20_000}, 0, False),
    ],
)
def test_another_secondary_port_when_offline(
    settings: dict[str, Any], secondary: int, changes: bool
) -> None:
    conf = parse(json.dumps({"settings": settings}).encode())
    daemon = SimpleNamespace(conf=conf, ports=Ports(9993, secondary))
    Daemon._change_secondary_port(cast("Daemon", daemon))
    assert (daemon.ports.secondary != secondary) == changes
