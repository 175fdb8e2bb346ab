"""Blobs as files of one folder, durable when `put` returns.

    .incoming/<random> ──write, fsync──▶ rename to its key ──▶ fsync of the folders above it

A crash leaves either the whole blob or none; what it leaves in .incoming is swept at a later start.
Blobs belong to their owner alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from itertools import takewhile
from pathlib import Path
from typing import BinaryIO, Final
from uuid import uuid4

from aggregator_service.store.base import StoreUnavailable
from aggregator_service.store.blobs import BlobMissing, check_key, check_prefix

__all__ = ["FolderBlobs"]

_INCOMING: Final = ".incoming"
# No write takes this long, so older files belong to a process that has died.
_STALE: Final = timedelta(hours=1)
# Folders that a process remembers; one more fsync is all that it costs to forget them.
_MAX_DURABLE: Final = 4_096
# What opening a file says where there is none, or where its key names a folder.
_ABSENT: Final = (FileNotFoundError, IsADirectoryError, NotADirectoryError)


class FolderBlobs:
    """Several processes may share a folder of one host; a network folder must keep fsync's word."""

    def __init__(self, folder: Path) -> None:
        """Makes the folder, for its owner alone; raises StoreUnavailable where that fails."""
        self._folder = folder
        self._incoming = folder / _INCOMING
        # Folders whose names are known to be on disk.
        self._durable: set[Path] = set()
        with _unavailable(f"the blob folder {folder} can not be used"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._incoming.mkdir(mode=0o700, exist_ok=True)
            _sync_folder(folder.parent)
            self._sweep()

    def put(self, key: str, data: bytes) -> None:
        target = self._path(key)
        with _unavailable(f"blob {key} can not be written"):
            if not target.is_file():
                self._write(target, data)
            # For a blob that is there already too: who put it may not have come this far.
            _sync_folder(target.parent)
            self._sync_names(target.parent)

    def get(self, key: str) -> bytes:
        with self._open(key) as file:
            return file.read()

    def read(self, key: str, offset: int, length: int) -> bytes:
        if offset < 0 or length < 0:
            raise ValueError("offset and length must not be negative")
        with self._open(key) as file:
            file.seek(offset)
            return file.read(length)

    def delete(self, key: str) -> None:
        path = self._path(key)
        with _unavailable(f"blob {key} can not be deleted"), suppress(*_ABSENT):
            path.unlink()

    def keys(self, prefix: str) -> Iterator[str]:
        check_prefix(prefix)
        start = self._folder / prefix.rpartition("/")[0]
        for folder, subfolders, files in os.walk(start):
            if _INCOMING in subfolders:
                subfolders.remove(_INCOMING)
            for file in files:
                key = Path(folder, file).relative_to(self._folder).as_posix()
                if key.startswith(prefix):
                    yield key

    def forget(self, folder: str) -> None:
        top = self._path(folder)
        for emptied, _, _ in os.walk(top, topdown=False):
            # One that is not empty, or gone already, is somebody else's to remove.
            with suppress(OSError):
                Path(emptied).rmdir()

    def check_ready(self) -> None:
        with _unavailable(f"the blob folder {self._folder} can not be written"):
            self._write_incoming(b"ready?").unlink()

    def _path(self, key: str) -> Path:
        check_key(key)
        return self._folder / key

    @contextmanager
    def _open(self, key: str) -> Iterator[BinaryIO]:
        path = self._path(key)
        with _unavailable(f"blob {key} can not be read"):
            try:
                file = path.open("rb")
            except _ABSENT:
                raise BlobMissing(key) from None
            with file:
                yield file

    def _write(self, target: Path, data: bytes) -> None:
        incoming = self._write_incoming(data)
        try:
            try:
                self._move(incoming, target)
            except FileNotFoundError:
                # Somebody let go of the folder, which was empty, at the same time.
                self._move(incoming, target)
        except OSError:
            incoming.unlink(missing_ok=True)
            raise

    def _move(self, incoming: Path, target: Path) -> None:
        folder = target.parent
        if not folder.is_dir():
            # This process may have known one of that name, which another has let go of.
            self._durable.discard(folder)
            self._make(folder)
        incoming.replace(target)

    def _make(self, folder: Path) -> None:
        # mkdir's mode is that of the last folder alone.
        parents = takewhile(self._folder.__ne__, folder.parents)
        for made in (*reversed(list(parents)), folder):
            made.mkdir(mode=0o700, exist_ok=True)

    def _write_incoming(self, data: bytes) -> Path:
        incoming = self._incoming / uuid4().hex
        try:
            with open(incoming, "xb", opener=_open_private) as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            # Half a file on a full disk is the first thing to go.
            with suppress(OSError):
                incoming.unlink(missing_ok=True)
            raise
        return incoming

    def _sync_names(self, folder: Path) -> None:
        """Makes the names of `folder` and of those above it durable, once per process."""
        if folder in self._durable:
            return
        for above in folder.parents:
            if not above.is_relative_to(self._folder):
                break
            _sync_folder(above)
        if len(self._durable) >= _MAX_DURABLE:
            self._durable.clear()
        self._durable.add(folder)

    def _sweep(self) -> None:
        """Compares the file system's times with each other, never with this machine's clock."""
        probe = self._write_incoming(b"")
        stale = probe.stat().st_mtime - _STALE.total_seconds()
        probe.unlink()
        for left in self._incoming.iterdir():
            # Another process may be done with its file, or be sweeping too.
            with suppress(FileNotFoundError):
                if left.stat().st_mtime < stale:
                    left.unlink()


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _unavailable(message: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreUnavailable(f"{message}: {error.strerror}") from error
