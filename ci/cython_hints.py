"""Compiles every extension's Cython anew and fails on a performance hint or a warning.

A hint means that a function takes the GIL back to look for an exception: that costs more than
most of what our hot functions do.
"""

import subprocess
import sys
import tempfile
from pathlib import Path


def main() -> int:
    bad = 0
    sources = sorted(Path("zt/_fast").glob("*.pyx"))
    with tempfile.TemporaryDirectory() as scratch:
        for source in sources:
            done = subprocess.run(
                [sys.executable, "-m", "cython", "-3", "-o", f"{scratch}/{source.stem}.c", source],
                capture_output=True,
                text=True,
                check=False,
            )
            text = done.stdout + done.stderr
            if done.returncode or "performance hint" in text or "warning:" in text:
                print(f"{source}:\n{text}")
                bad += 1
    if not bad:
        print(f"cython: {len(sources)} extensions compile without hints")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
