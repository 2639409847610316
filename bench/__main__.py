"""Runs the benchmarks.

python -m bench [--quick]        micro benchmarks, then the end-to-end suite
python -m bench micro [--quick]  kernels and data plane in memory
python -m bench endtoend ...     whole programs; see --help
python -m bench api ...          the local API under load; see --help
python -m bench root ...         a root with thousands of peers, under floods; see --help
python -m bench kernels --json   bytes per second of each kernel, one core, best level
"""

import json
import os
import subprocess
import sys

from bench import api, endtoend, root

OUTPUT = endtoend.OUTPUT / "micro.json"


def micro(quick: bool) -> int:
    """The pytest-benchmark suites of this folder; the exit status."""
    OUTPUT.parent.mkdir(parents=True, exist_ok=True)
    argv = [sys.executable, "-m", "pytest", "-q", "bench", f"--benchmark-json={OUTPUT}"]
    argv += ["--benchmark-only", "--benchmark-columns=median,ops,rounds", "--benchmark-sort=name"]
    if quick:
        argv += ["-m", "not slow", "--benchmark-max-time=0.05", "--benchmark-min-rounds=2"]
    return subprocess.run(argv, check=False).returncode


def kernels() -> None:
    from bench.kernels import kernel_speeds

    print(json.dumps(kernel_speeds()))


def main() -> None:
    words = sys.argv[1:]
    quick = "--quick" in words
    match words:
        case ["kernels", "--json"]:
            kernels()
        case ["micro"] | ["micro", "--quick"]:
            sys.exit(micro(quick))
        case ["endtoend", *options]:
            endtoend.main(options)
        case ["api", *options]:
            api.main(options)
        case ["root", *options]:
            root.main(options)
        case [] | ["--quick"]:
            status = micro(quick)
            if os.geteuid() == 0:
                endtoend.main(words)
            else:
                print("the end-to-end suite needs root: it builds network namespaces")
            sys.exit(status)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
