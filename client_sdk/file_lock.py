"""A lock on a file that ends with the process that holds it, however that ends."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

__all__ = ["FileLock"]


class FileLock:
    """Held from construction to release().

    BlockingIOError where somebody else holds it, another OSError where it can not be locked.
    """

    def __init__(self, path: Path) -> None:
        self._file: Final = path.open("ab")
        try:
            _lock(self._file.fileno())
        except OSError as error:
            self._file.close()
            # Windows tells of a held lock as of a denied one.
            if isinstance(error, BlockingIOError | PermissionError):
                raise BlockingIOError(f"{path} is locked by another process") from error
            raise

    def release(self) -> None:
        """Safe to repeat."""
        self._file.close()


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
