"""The C kernels by themselves: recorded data and random inputs at every level, at page borders.

tests/kernels/check.c does the work; ci/sanitize runs it with sanitizers, ci/aarch64 on ARM.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import vectors_dir
from tests.kernels.cases import lines
from zt._fast import cipher

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def check(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled checker. A compiler is there, or the extensions would not be."""
    build = tmp_path_factory.mktemp("kernels")
    # The very objects that the extensions are linked with; make compiles those that are outdated.
    for built in ROOT.glob("build/temp.*/zt/_fast/kernels/*.o"):
        shutil.copy2(built, build)
    command = ["make", "-s", "-C", str(ROOT / "tests/kernels"), f"BUILD={build}"]
    made = subprocess.run(
        [*command, f"-j{os.cpu_count()}"], capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr
    return build / "check"


def test_every_level(check: Path, pytestconfig: pytest.Config) -> None:
    cases = list(lines(vectors_dir(pytestconfig)))
    done = subprocess.run(
        [check, "1"], input="\n".join(cases), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith(f"{len(cases)} recorded cases")
    assert done.stdout.split(" at the levels ")[1].split() == list(cipher.levels())
