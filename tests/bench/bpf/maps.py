"""Writing maps from Python: an entry, many, a table. `python tests/bench/bpf/maps.py`."""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from bpf.datapath import load
from bpf.layout import IpcacheKey, IpcacheValue
from bpf.layout_lb import pack_rev_nat
from bpf.specs import DatapathSettings
from tests.support.bpf import private_bpffs


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        root = stack.enter_context(private_bpffs(folder / "bpf")) / "clustermesh"
        print(f"load, nothing pinned    {timed(lambda: load(root).close()) * 1e3:8.1f} ms")
        print(f"load, everything pinned {timed(lambda: load(root).close()) * 1e3:8.1f} ms")
        datapath = stack.enter_context(load(root, DatapathSettings()))
        ipcache, tables = datapath.maps.ipcache, datapath.maps.tables4
        value = IpcacheValue(0x10009, bytes(4)).pack()
        entries = [(IpcacheKey(n.to_bytes(4, "big"), 32).pack(), value) for n in range(200_000)]
        single = statistics.median(
            timed(lambda: ipcache.put_many(entries[:1])) for _ in range(2000)
        )
        print(f"put one                 {single * 1e6:8.1f} us")
        many = timed(lambda: ipcache.put_many(entries))
        print(f"put 200,000             {many / len(entries) * 1e6:8.2f} us each")
        listed = timed(lambda: dict(ipcache.items()))
        print(f"list 200,000            {listed / len(entries) * 1e6:8.2f} us each")
        dropped = timed(lambda: ipcache.drop_many([key for key, _ in entries]))
        print(f"drop 200,000            {dropped / len(entries) * 1e6:8.2f} us each")
        table = bytes(1021 * 4)
        one = statistics.median(timed(lambda: tables.swap([b"\0\1"], table)) for _ in range(20))
        print(f"swap one table          {one * 1e3:8.1f} ms (the kernel waits for its readers)")
        swaps = [([pack_rev_nat(n)], table) for n in range(1, 2001)]
        many = timed(lambda: tables.swap_many(swaps))
        print(f"swap 2,000 tables       {many / len(swaps) * 1e3:8.2f} ms each")


if __name__ == "__main__":
    main()
