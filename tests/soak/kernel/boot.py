"""Boot Debian's own kernel in an emulated machine and run the data path's tests on it.

``./dev kernel61 [PYTEST ARGUMENTS]``. The machine sees this one's files, read-only, and writes to
memory only; it has no disk and no network. It is emulated in software, and so it is slow.
"""

import gzip
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[3]
CACHE: Final = Path(sys.prefix) / "kernel61"
META_PACKAGE: Final = "linux-image-amd64"
RELEASE: Final = re.compile(r"linux-image-(6\.1\.\d+-\d+-amd64)\b")
MODULES: Final = (
    "virtio_pci", "9pnet_virtio", "9p",
    "veth", "vxlan", "dummy", "bridge", "br_netfilter", "af_packet",
    "sch_ingress", "cls_bpf", "crc32c_generic",
    "nf_tables", "nft_chain_nat", "nft_nat", "nft_masq", "nft_ct", "nft_numgen", "nft_objref",
    "nft_compat", "xt_mark", "xt_MASQUERADE", "xt_nat", "xt_tcpudp",
)  # fmt: skip
TESTS: Final = (
    "-q", "-p", "no:cacheprovider", "-o", "timeout=900", "--color=no",
    # There is no TCX before Linux 6.6, and the emulator is too slow to make a flood.
    "-k", "not tcx and not ours_on_the_device and not (overlay_run and flood)",
    "tests/integration/bpf",
)  # fmt: skip
FUZZ_RUNS: Final = 2_000
VERDICT: Final = "tests ended with"


def main(arguments: Sequence[str]) -> int:
    """The exit code of the tests in there."""
    kernel = _kernel(CACHE)
    archive = _archive(CACHE, kernel, list(arguments) or list(TESTS))
    return _boot(kernel / "boot" / f"vmlinuz-{_release(kernel)}", archive)


# --- the kernel ----------------------------------------------------------------------------------


def _kernel(cache: Path) -> Path:
    """The newest 6.1 that Debian has, unpacked and not installed."""
    there = cache / "root"
    if there.is_dir():
        return there
    shown = _output("apt-cache", "depends", META_PACKAGE)
    found = RELEASE.search(shown)
    if found is None:
        raise SystemExit(
            f"kernel61: {META_PACKAGE} is no Linux 6.1 here (this is Debian 12's): {shown}"
        )
    cache.mkdir(exist_ok=True)
    print(f"kernel61: fetching {found[0]}", flush=True)
    subprocess.run(["apt-get", "download", "-q", found[0]], check=True, cwd=cache)
    (package,) = cache.glob("linux-image-*.deb")
    half = cache / "half"
    shutil.rmtree(half, ignore_errors=True)
    subprocess.run(["dpkg-deb", "-x", package, half], check=True)
    package.unlink()
    return half.rename(there)


def _release(kernel: Path) -> str:
    (folder,) = (kernel / "lib" / "modules").iterdir()
    return folder.name


def _with_needs(kernel: Path, names: Sequence[str]) -> Iterator[Path]:
    """Module files, each after those it needs; what is built in has none."""
    known = {path.stem: path for path in (kernel / "lib" / "modules").rglob("*.ko")}
    seen: set[str] = set()

    def visit(name: str) -> Iterator[Path]:
        name = name if name in known else name.replace("_", "-")
        if name not in known or name in seen:
            return
        seen.add(name)
        needs = re.search(rb"\0depends=([^\0]*)\0", known[name].read_bytes())
        for need in needs[1].decode().split(",") if needs else ():
            yield from visit(need)
        yield known[name]

    for name in names:
        yield from visit(name)


# --- its first program ----------------------------------------------------------------------------

INIT: Final = """#!/bin/busybox sh
/bin/busybox mkdir -p /proc /host
/bin/busybox mount -t proc proc /proc
for module in $(/bin/busybox cat /modules/order); do
    /bin/busybox insmod /modules/$module || echo "cannot load $module"
done
m=/bin/busybox
$m mount -t 9p -o trans=virtio,version=9p2000.L,msize=1048576,ro,cache=loose host /host
for at in run mnt; do $m mount -t tmpfs tmpfs /host/$at; done
$m mount -t proc proc /host/proc
$m mount -t devtmpfs dev /host/dev
$m mount -t sysfs sys /host/sys
$m mount -t cgroup2 cgroup2 /host/sys/fs/cgroup
$m mount -t bpf bpf /host/sys/fs/bpf
$m mkdir -p /host/run/tmp /host/dev/shm
echo "kernel: $($m uname -r), $($m nproc) CPUs"
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/run/tmp TMPDIR=/run/tmp
export PYTHONDONTWRITEBYTECODE=1 LC_ALL=C.UTF-8 CM_FUZZ_RUNS=@RUNS@
$m chroot /host /bin/sh -c '/sbin/ip link set lo up; cd @ROOT@ && exec @COMMAND@'
echo "@VERDICT@ $?"
$m poweroff -f
"""


def _archive(cache: Path, kernel: Path, arguments: Sequence[str]) -> Path:
    """The first file system: busybox, the modules, and what to run."""
    folder = cache / "first"
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("bin", "modules", "dev"):
        (folder / name).mkdir(parents=True)
    shutil.copy(shutil.which("busybox") or "/bin/busybox", folder / "bin" / "busybox")
    modules = list(_with_needs(kernel, MODULES))
    for path in modules:
        shutil.copy(path, folder / "modules")
    (folder / "modules" / "order").write_text("\n".join(path.name for path in modules) + "\n")
    words = [sys.executable, "-m", "pytest", *arguments]
    init = folder / "init"
    init.write_text(
        INIT.replace("@ROOT@", shlex.quote(str(ROOT)))
        .replace("@COMMAND@", shlex.join(words).replace("'", "'\\''"))
        .replace("@RUNS@", os.environ.get("CM_FUZZ_RUNS", str(FUZZ_RUNS)))
        .replace("@VERDICT@", VERDICT)
    )
    init.chmod(0o755)
    names = "\n".join(sorted(str(path.relative_to(folder)) for path in folder.rglob("*")))
    packed = subprocess.run(
        ["cpio", "-o", "-H", "newc", "--quiet"],
        input=names.encode(), cwd=folder, check=True, stdout=subprocess.PIPE,
    ).stdout  # fmt: skip
    archive = cache / "first.gz"
    archive.write_bytes(gzip.compress(packed, 1))
    return archive


# --- the machine ----------------------------------------------------------------------------------


def _boot(image: Path, archive: Path) -> int:
    machine = subprocess.Popen(
        [
            "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max",
            "-smp", "2", "-m", "3072", "-nographic", "-no-reboot", "-nic", "none",
            "-virtfs",
            "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap",
            "-kernel", str(image), "-initrd", str(archive),
            "-append", "console=ttyS0 quiet panic=-1 rdinit=/init",
        ],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, errors="replace",
    )  # fmt: skip
    assert machine.stdout is not None
    code = 1
    for line in machine.stdout:
        print(line, end="", flush=True)
        if ended := re.search(rf"{VERDICT} (\d+)", line):
            code = int(ended[1])
    return machine.wait() or code


def _output(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
