"""Compiles the programs: `python -m bpf.build` writes bpf/obj, which is committed and shipped.

The result depends on the sources and on clang only: no host headers, no paths, no times in it.
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

PACKAGE: Final = Path(__file__).parent
SOURCES: Final = PACKAGE / "src"
OBJECTS: Final = PACKAGE / "obj"
CLANG_MAJOR: Final = 14
"""The committed objects are made with this version; another makes equivalent, not equal, code."""

_FLAGS: Final = (
    "-O2",
    "-g",
    "-target",
    "bpf",
    "-mcpu=v3",
    "-std=gnu11",
    "-nostdinc",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-fdebug-compilation-dir=.",
    "-Iinclude",
)


def names() -> list[str]:
    return sorted(path.name.removesuffix(".bpf.c") for path in SOURCES.glob("*.bpf.c"))


def compile_to(folder: Path, *, clang: str = "clang", strip: str = "llvm-strip") -> None:
    """Every object into `folder`. CalledProcessError carries the compiler's words."""
    for name in names():
        target = folder / f"{name}.o"
        subprocess.run(
            [clang, *_FLAGS, "-c", f"{name}.bpf.c", "-o", str(target)], cwd=SOURCES, check=True
        )
        subprocess.run([strip, "-g", str(target)], check=True)


def main() -> int:
    OBJECTS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        try:
            compile_to(Path(folder))
        except (subprocess.CalledProcessError, FileNotFoundError) as error:
            sys.stderr.write(f"the programs were not built: {error}\n")
            return 1
        for made in Path(folder).glob("*.o"):
            (OBJECTS / made.name).write_bytes(made.read_bytes())
            sys.stdout.write(f"{OBJECTS / made.name}: {made.stat().st_size} bytes\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
