"""How fast the ciphers are on one core, with the best level this CPU has."""

from zt._fast import cipher

PACKET = 2800
"""Bytes: what a full frame of a network with the default MTU makes."""

TRIALS = 100
RUNS = 1000
"""Runs between two looks at the clock: some tenths of a millisecond."""

OPERATIONS = {
    "salsa2012": "salsa2012",
    "poly1305": "poly1305",
    "aes_gmac_siv_seal": "seal3",
    "aes_gmac_siv_open": "open3",
    "salsa2012_poly1305_seal": "seal1",
    "salsa2012_poly1305_open": "open1",
}


def kernel_speeds() -> dict[str, float]:
    """Bytes per second by operation: the best of many short trials.

    The best and not the mean, because whatever else the machine does can only slow a trial down.
    """
    best = cipher.level()
    cipher.set_level(cipher.levels()[-1])
    try:
        return {name: _speed(operation) for name, operation in OPERATIONS.items()}
    finally:
        cipher.set_level(best)


def _speed(operation: str) -> float:
    return PACKET * RUNS / min(cipher.measure(operation, PACKET, RUNS) for _ in range(TRIALS))
