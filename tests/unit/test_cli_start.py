"""Start-up of zerotier-cli: what it imports, and what it costs."""

import json
import resource
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
CPU_LIMIT_S = 0.1


def test_imports_the_standard_library_only() -> None:
    code = (
        "import json, sys; import zt.cli.main, zt.cli.extra;"
        "print(json.dumps(sorted({n.partition('.')[0] for n in sys.modules})))"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert set(json.loads(done.stdout)) - {"__main__"} <= {*sys.stdlib_module_names, "zt"}


def test_answers_at_once() -> None:
    """CPU time of the best of a few starts: the clock on the wall depends on the neighbours."""

    def start() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(
            [sys.executable, "-m", "zt.cli.main", "-v"], cwd=ROOT, capture_output=True, check=True
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(start() for _ in range(5)) < CPU_LIMIT_S
