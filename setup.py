"""Extension modules only; everything else about the project stands in pyproject.toml.

Every ``zt/_fast/NAME.pyx`` becomes the extension ``zt._fast.NAME``. The C kernels in
``zt/_fast/kernels`` are compiled once and linked into each of them; instruction sets are chosen
per function with target attributes and at run time, so no ``-march`` flag appears here. What Cython
needs for memoryviews is half of every module that uses them: it is compiled once, as ``_shared``.

Environment:

``ZT_DEBUG=1``      no optimization, assertions on
``ZT_SANITIZE=...`` value for -fsanitize (``address,undefined`` or ``thread``)
``ZT_ANNOTATE=1``   also write Cython's annotated HTML
``ZT_NO_EXTENSIONS=1``  install without compiling (ci/setup)
"""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

FAST = Path("zt/_fast")
KERNELS = FAST / "kernels"
SHARED = "zt._fast._shared"

COMPILE = ["-std=gnu11", "-Wall", "-Wextra", "-Wno-unused-parameter", "-fvisibility=hidden"]
LINK: list[str] = ["-pthread"]
sanitize = os.environ.get("ZT_SANITIZE")
if os.environ.get("ZT_DEBUG"):
    COMPILE += ["-O0", "-g3", "-UNDEBUG"]
elif sanitize:
    COMPILE += ["-O1", "-g"]
else:
    COMPILE += ["-O3", "-g1", "-fno-semantic-interposition"]
if sanitize:
    COMPILE += [f"-fsanitize={sanitize}", "-fno-omit-frame-pointer"]
    LINK += [f"-fsanitize={sanitize}"]
# What Cython generates is not ours to keep free of these.
COMPILE_GENERATED = [
    *COMPILE,
    "-Wno-unused-function",
    "-Wno-sign-compare",
    "-Wno-missing-field-initializers",
]


class BuildExtensions(build_ext):
    """Compiles the kernels to objects once, then links them into every extension."""

    def build_extensions(self) -> None:
        objects = self.compile_kernels()
        for extension in self.extensions:
            if extension.name != SHARED:
                extension.extra_objects = [*extension.extra_objects, *objects]
        super().build_extensions()

    def compile_kernels(self) -> list[str]:
        headers = max((h.stat().st_mtime for h in KERNELS.glob("*.h")), default=0.0)

        def compile_kernel(source: Path) -> str:
            target = Path(self.build_temp, source.with_suffix(".o"))
            newest = max(headers, source.stat().st_mtime)
            if self.force or not target.exists() or target.stat().st_mtime <= newest:
                self.compiler.compile(
                    [str(source)],
                    output_dir=self.build_temp,
                    include_dirs=[str(KERNELS)],
                    extra_postargs=COMPILE,
                )
            return str(target)

        with ThreadPoolExecutor(int(self.parallel or 1)) as pool:
            return list(pool.map(compile_kernel, sorted(KERNELS.glob("*.c"))))


def extension(source: Path) -> Extension:
    return Extension(
        f"zt._fast.{source.stem}",
        [str(source)],
        include_dirs=[str(KERNELS), str(FAST)],
        # A changed kernel must relink, a changed header recompile.
        depends=[str(p) for pattern in ("*.h", "*.c") for p in sorted(KERNELS.glob(pattern))],
        extra_compile_args=COMPILE_GENERATED,
        extra_link_args=LINK,
    )


# The largest begins; it makes memoryviews and touches no packet, so more would only take longer.
shared = Extension(
    SHARED, [str(FAST / "_shared.c")], extra_compile_args=[*COMPILE_GENERATED, "-O1"]
)
EXTENSIONS = [shared, *map(extension, sorted(FAST.glob("*.pyx")))]
# `make build` compiles in place, once; installing the checkout in editable mode need not do it too.
if os.environ.get("ZT_NO_EXTENSIONS"):
    EXTENSIONS.clear()

setup(
    ext_modules=cythonize(
        EXTENSIONS,
        shared_utility_qualified_name=SHARED,
        nthreads=os.cpu_count() or 1,
        annotate=bool(os.environ.get("ZT_ANNOTATE")),
        compiler_directives={"language_level": 3, "embedsignature": True},
        show_all_warnings=False,
    ),
    cmdclass={"build_ext": BuildExtensions},
)
