"""A simulator: whole nodes (control plane and switch) in one process, in virtual time.

    net = Network(seed=1)
    root = net.add_root()
    a, b = net.add_host(), net.add_host(nat=net.add_nat(PORT_RESTRICTED))
    net.run(5_000)                       # ms
    a.send(b, b"hello"); net.run(1_000)
    assert b.received and a.direct(b)

Everything random follows from the seed, so that a run can be repeated exactly. Identities are
genuine but for their proof of work, which would take minutes for thousands of them: `Validate` is
answered with yes.
"""

from tests.sim.host import Host
from tests.sim.nat import (
    FULL_CONE,
    PORT_RESTRICTED,
    RESTRICTED,
    SEQUENTIAL,
    SYMMETRIC,
    Nat,
    NatKind,
)
from tests.sim.network import Link, Network

__all__ = [
    "FULL_CONE",
    "PORT_RESTRICTED",
    "RESTRICTED",
    "SEQUENTIAL",
    "SYMMETRIC",
    "Host",
    "Link",
    "Nat",
    "NatKind",
    "Network",
]
