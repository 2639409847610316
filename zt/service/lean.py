"""Imports of single modules out of packages that would bring along all they have.

A node that does nothing else still pays for every module in each process: importing some packages
alone runs megabytes of code for commands and servers that the service never uses.
"""

import importlib.util
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def bare(package: str) -> Iterator[None]:
    """Within the block modules of `package` are imported without running the package itself."""
    if package in sys.modules:
        yield
        return
    spec = importlib.util.find_spec(package)
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)
    stand_in = types.ModuleType(package)
    stand_in.__path__ = list(spec.submodule_search_locations)
    sys.modules[package] = stand_in
    try:
        yield
    finally:
        del sys.modules[package]
