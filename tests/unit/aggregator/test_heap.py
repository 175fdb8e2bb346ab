"""How many heaps the C library keeps for a process's threads, as the library itself says."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

# All threads are alive at once, and each has taken something too large for Python's own pools.
_THREADS: Final = """
import ctypes, threading
from aggregator_service.heap import share_heap

share_heap()
together = threading.Barrier(5)
kept = []

def take():
    kept.append(bytearray(2_000))
    together.wait()

threads = [threading.Thread(target=take) for _ in range(4)]
for thread in threads:
    thread.start()
together.wait()
for thread in threads:
    thread.join()

libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
file = ctypes.c_void_p(libc.fopen(b"heaps.xml", b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
"""


def heaps(folder: Path, **environment: str) -> int:
    """How many a process with four threads has; tests run it apart, since it can't be undone."""
    given = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"}
    root = str(Path(__file__).parents[3])
    subprocess.run(
        [sys.executable, "-c", _THREADS],
        cwd=folder,
        env=given | {"PYTHONPATH": root} | environment,
        check=True,
    )
    return (folder / "heaps.xml").read_text().count("<heap nr=")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has heaps per thread")
def test_threads_share_one_heap_unless_the_operator_says_otherwise(tmp_path: Path) -> None:
    assert heaps(tmp_path) == 1
    assert heaps(tmp_path, MALLOC_ARENA_MAX="3") == 3
