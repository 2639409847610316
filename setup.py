"""Extension modules only; everything else about the project stands in pyproject.toml.

Every ``zt/_fast/NAME.pyx`` becomes the extension ``zt._fast.NAME``. The C kernels in
``zt/_fast/kernels`` are compiled once and linked into each of them; instruction sets are chosen
per function with target attributes and at run time, so no ``-march`` flag appears here.

Environment:

``ZT_DEBUG=1``      no optimization, assertions on
``ZT_SANITIZE=...`` value for -fsanitize (``address,undefined`` or ``thread``)
``ZT_ANNOTATE=1``   also write Cython's annotated HTML
``ZT_NO_EXTENSIONS=1``  install without compiling (ci/setup)
"""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

FAST = Path("zt/_fast")
KERNELS = FAST / "kernels"

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
            extension.extra_objects = [*extension.extra_objects, *objects]
        super().build_extensions()

    def compile_kernels(self) -> list[str]:
        headers = max((h.stat().st_mtime for h in KERNELS.glob("*.h")), default=0.0)
        objects = []
        for source in sorted(KERNELS.glob("*.c")):
            target = Path(self.build_temp, source.with_suffix(".o"))
            objects.append(str(target))
            newest = max(headers, source.stat().st_mtime)
            if not self.force and target.exists() and target.stat().st_mtime > newest:
                continue
            self.compiler.compile(
                [str(source)],
                output_dir=self.build_temp,
                include_dirs=[str(KERNELS)],
                extra_postargs=COMPILE,
            )
        return objects


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


# `make build` compiles in place, once; installing the checkout in editable mode need not do it too.
SOURCES = [] if os.environ.get("ZT_NO_EXTENSIONS") else sorted(FAST.glob("*.pyx"))

setup(
    ext_modules=cythonize(
        [extension(source) for source in SOURCES],
        nthreads=os.cpu_count() or 1,
        annotate=bool(os.environ.get("ZT_ANNOTATE")),
        compiler_directives={"language_level": 3, "embedsignature": True},
        show_all_warnings=False,
    ),
    cmdclass={"build_ext": BuildExtensions},
)
