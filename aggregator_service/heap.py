"""The C library's heap, which all threads of the service share.

glibc gives each thread one of its own, and what one thread has let go no other can take: buffers
that gRPC's threads filled once lie idle while a worker checks the same upload. Under Python's
global lock heaps of their own gain threads nothing. `benchmarks.large_adapter` shows what is held,
with MALLOC_ARENA_MAX=0 what would be by glibc's own choice.
"""

from __future__ import annotations

import ctypes
import os
import platform
from typing import Final

__all__ = ["share_heap"]

# From glibc's <malloc.h>; see mallopt(3).
_M_ARENA_MAX: Final = -8


def share_heap() -> None:
    """Keep all threads of this process to one heap; call it before any is started.

    Does nothing where the C library is not glibc, or where MALLOC_ARENA_MAX says how many heaps.
    """
    if platform.libc_ver()[0] == "glibc" and "MALLOC_ARENA_MAX" not in os.environ:
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)
