"""Start-up of zerotier-cli: what it imports, and what it does not."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
SLOW = {
    *("argparse", "asyncio", "concurrent.futures", "ctypes", "email", "http.client", "inspect"),
    *("logging", "multiprocessing", "ssl", "subprocess", "tempfile", "urllib.request"),
    *("shutil", "tarfile", "zt.cli.extra", "zt._fast"),
}
MODULES_LIMIT = 100


def test_imports_the_standard_library_only() -> None:
    code = (
        "import json, sys; import zt.cli.main, zt.cli.extra;"
        "print(json.dumps(sorted({n.partition('.')[0] for n in sys.modules})))"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert set(json.loads(done.stdout)) - {"__main__"} <= {*sys.stdlib_module_names, "zt"}


def test_starts_without_what_is_slow_to_import() -> None:
    """What it takes is measured by `python -m bench api`; here is what decides it."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-S", "-m", "zt.cli.main", "-v"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert done.stdout == "1.14.1\n"
    assert "zt.cli.client" in imported
    assert not imported & SLOW
    assert len(imported) < MODULES_LIMIT
