"""What a device keeps across crashes: its unacknowledged update, its totals, the task, a download.

    participant.lock      held while a participant lives; two never share a folder
    participant.json      the task it belongs to, and what was counted
    pending-update        one trained, encoded, unacknowledged update; the bytes that are sent
    task-<sha256>         the task specification that check-in names
    download-<sha256>     a download, whole or the part that arrived

Every file is replaced as a whole and is durable before the call returns, except downloads, which
are checked against their digest instead. Others on the machine can read none of it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Final

from google.protobuf.message import DecodeError

from client_sdk._errors import StateDamaged, StateFolderError, StateFolderInUse
from client_sdk.file_lock import FileLock
from flasc_core.pb.v1 import device_service_pb2

__all__ = ["PartialDownload", "PendingUpdate", "StateFolder", "Totals"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Counted since the folder was made.

    `payload_bytes_sent` is all of update payloads that was handed to the network, in every attempt;
    `payload_bytes_received` is all download data that arrived, repeats included. Where a link
    breaks, or either side ends a call in its middle, what was under way is in its sender's count
    alone, and nobody here knows how much of it has left. Otherwise the service counts the same.
    """

    updates_accepted: int = 0
    evaluations_reported: int = 0
    payload_bytes_sent: int = 0
    payload_bytes_received: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingUpdate:
    """A trained update that the service has not acknowledged. Its bytes never change."""

    round_number: int
    max_unary_payload_bytes: int
    request: device_service_pb2.SubmitUpdateRequest

    def to_parts(self) -> tuple[bytes, bytes]:
        """Return what follows one another in the file; joined, the payload would be held twice."""
        meta = {
            "round_number": self.round_number,
            "max_unary_payload_bytes": self.max_unary_payload_bytes,
        }
        return json.dumps(meta).encode() + b"\n", self.request.SerializeToString()

    @classmethod
    def from_bytes(cls, data: bytes) -> PendingUpdate:
        """Raises StateDamaged."""
        meta, _, message = data.partition(b"\n")
        try:
            numbers = json.loads(meta)
            request = device_service_pb2.SubmitUpdateRequest.FromString(message)
            pending = cls(
                round_number=int(numbers["round_number"]),
                max_unary_payload_bytes=int(numbers["max_unary_payload_bytes"]),
                request=request,
            )
        except (DecodeError, KeyError, TypeError, ValueError) as error:
            raise StateDamaged("the stored update cannot be read") from error
        if hashlib.sha256(request.payload).digest() != request.header.payload_sha256:
            raise StateDamaged("the stored update is not what was written")
        return pending


class PartialDownload:
    """A download on its way; `size` is where it resumes. Raises StateFolderError."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def size(self) -> int:
        with _told(self._path):
            return self._path.stat().st_size if self._path.exists() else 0

    def append(self, data: bytes) -> None:
        with _told(self._path), open(self._path, "ab", opener=_open_private) as file:
            file.write(data)

    def read(self) -> bytes:
        with _told(self._path):
            return self._path.read_bytes() if self._path.exists() else b""

    def discard(self) -> None:
        with _told(self._path):
            self._path.unlink(missing_ok=True)


class StateFolder:
    """One participant's folder. Raises StateFolderInUse on opening, StateFolderError anywhere."""

    def __init__(self, folder: Path, *, task: str) -> None:
        self._folder: Final = folder
        self._task: Final = task
        with _told(folder):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            try:
                self._lock = FileLock(folder / "participant.lock")
            except BlockingIOError as error:
                raise StateFolderInUse(f"another participant is using {folder}") from error
        try:
            with _told(self._ledger_path):
                self._totals, self._last_accepted = self._load()
        except StateFolderError:
            self._lock.release()
            raise

    def close(self) -> None:
        self._lock.release()

    @property
    def totals(self) -> Totals:
        return self._totals

    # -- the update that waits for its receipt

    def load_pending(self) -> PendingUpdate | None:
        path = self._pending_path
        with _told(path):
            return PendingUpdate.from_bytes(path.read_bytes()) if path.exists() else None

    def save_pending(self, pending: PendingUpdate) -> None:
        _replace(self._pending_path, *pending.to_parts())

    def drop_pending(self) -> None:
        with _told(self._pending_path):
            self._pending_path.unlink(missing_ok=True)
            _sync_folder(self._folder)

    # -- what was counted

    def count_received(self, size_bytes: int) -> None:
        received = self._totals.payload_bytes_received + size_bytes
        self._count(replace(self._totals, payload_bytes_received=received))

    def count_sent(self, size_bytes: int) -> None:
        sent = self._totals.payload_bytes_sent + size_bytes
        self._count(replace(self._totals, payload_bytes_sent=sent))

    def count_accepted(self, pending: PendingUpdate) -> None:
        """Counts an update once, though a crash may bring its receipt a second time."""
        accepted = pending.request.header.assignment_id.hex()
        if accepted == self._last_accepted:
            return
        accepted_updates = self._totals.updates_accepted + 1
        self._save(replace(self._totals, updates_accepted=accepted_updates), accepted)

    def count_evaluation(self) -> None:
        reported = self._totals.evaluations_reported + 1
        self._count(replace(self._totals, evaluations_reported=reported))

    # -- the task specification

    def load_task_spec(self) -> bytes:
        """Return the newest stored specification whose name is its digest; empty without one."""
        for path in self._files("task-"):
            with _told(path):
                data = path.read_bytes()
            if path.name == f"task-{hashlib.sha256(data).hexdigest()}":
                return data
        return b""

    def save_task_spec(self, data: bytes) -> None:
        name = f"task-{hashlib.sha256(data).hexdigest()}"
        _replace(self._folder / name, data)
        self._remove_others("task-", keep=name)

    # -- downloads

    def open_download(self, sha256: bytes) -> PartialDownload:
        name = f"download-{sha256.hex()}"
        self._remove_others("download-", keep=name)
        return PartialDownload(self._folder / name)

    @property
    def _pending_path(self) -> Path:
        return self._folder / "pending-update"

    @property
    def _ledger_path(self) -> Path:
        return self._folder / "participant.json"

    def _load(self) -> tuple[Totals, str]:
        if not self._ledger_path.exists():
            return Totals(), ""
        try:
            ledger = json.loads(self._ledger_path.read_text())
            task, last_accepted = str(ledger["task"]), str(ledger["last_accepted"])
            totals = Totals(**{f.name: int(ledger["totals"][f.name]) for f in fields(Totals)})
        except (KeyError, TypeError, ValueError) as error:
            raise StateDamaged(f"{self._ledger_path} cannot be read; delete the folder") from error
        if task != self._task:
            raise StateFolderError(
                f"{self._folder} belongs to task {task!r}; give {self._task!r} a folder of its own"
            )
        return totals, last_accepted

    def _count(self, totals: Totals) -> None:
        self._totals = totals
        try:
            self._save(totals, self._last_accepted)
        except StateFolderError as error:
            # A full disk ends no work for it; the next count that can be kept has this one.
            _log.warning("totals were not kept: %s", error)

    def _save(self, totals: Totals, last_accepted: str) -> None:
        ledger = {"task": self._task, "totals": asdict(totals), "last_accepted": last_accepted}
        _replace(self._ledger_path, json.dumps(ledger, indent=1).encode())
        self._totals, self._last_accepted = totals, last_accepted

    def _files(self, prefix: str) -> Iterator[Path]:
        yield from sorted(self._folder.glob(f"{prefix}*"))

    def _remove_others(self, prefix: str, *, keep: str) -> None:
        for path in self._files(prefix):
            if path.name != keep:
                with _told(path):
                    path.unlink(missing_ok=True)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """What the file system refuses is the app's to mend: raises StateFolderError that says what."""
    try:
        yield
    except OSError as error:
        raise StateFolderError(f"{path} can not be used: {error.strerror or error}") from error


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _replace(path: Path, *parts: bytes) -> None:
    # The mark stands first in the name, so that no reader's pattern finds a half-written file.
    temporary = path.with_name(f"writing-{path.name}")
    with _told(path):
        try:
            with open(temporary, "wb", opener=_open_private) as file:
                file.writelines(parts)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError:
            # Half a file on a full disk is the first thing to go.
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    if sys.platform == "win32":
        # Windows has no handle to a folder; its file system orders renames itself.
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
