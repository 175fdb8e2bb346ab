"""Blobs in a folder: what a crash, a full disk and another process may do to them."""

from __future__ import annotations

import errno
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from aggregator_service.store.base import StoreUnavailable, WrongAddress
from aggregator_service.store.folder_blobs import FolderBlobs
from aggregator_service.store.open import open_blobs
from tests.support.patience import PATIENCE_SECONDS

HOUR = 3600


@contextmanager
def failing_fsync(monkeypatch: pytest.MonkeyPatch, number: int) -> Iterator[None]:
    """A disk that takes what is written and can not keep it."""

    def fail(_: Any) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        yield


@contextmanager
def recorded(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[str, str]]]:
    """What reaches the disk, in order: fsync of a file or folder, and renames."""
    steps: list[tuple[str, str]] = []
    fsync, replace = os.fsync, Path.replace

    def record_fsync(descriptor: int) -> None:
        steps.append(("fsync", str(Path(f"/proc/self/fd/{descriptor}").readlink())))
        fsync(descriptor)

    def record_replace(self: Path, target: Path) -> Path:
        steps.append(("rename", str(target)))
        return replace(self, target)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", record_fsync)
        patched.setattr(Path, "replace", record_replace)
        yield steps


def left_in(folder: Path) -> list[Path]:
    return list((folder / ".incoming").iterdir())


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc to name open files")
def test_a_put_syncs_the_file_before_its_name_and_then_every_folder_above(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "blobs"
    blobs = FolderBlobs(root)

    with recorded(monkeypatch) as steps:
        blobs.put("a/b/c", b"content")

    (first, incoming), *rest = steps
    assert first == "fsync"
    assert Path(incoming).parent == root / ".incoming"
    assert rest == [
        ("rename", str(root / "a/b/c")),
        ("fsync", str(root / "a/b")),
        ("fsync", str(root / "a")),
        ("fsync", str(root)),
    ]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc to name open files")
def test_a_repeated_put_still_makes_the_name_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    FolderBlobs(tmp_path).put("a/b", b"content")
    # Another process, which can not know how far the first one came.
    second = FolderBlobs(tmp_path)

    with recorded(monkeypatch) as steps:
        second.put("a/b", b"content")

    assert steps == [("fsync", str(tmp_path / "a")), ("fsync", str(tmp_path))]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_a_disk_that_fails_is_unavailable_and_leaves_no_blob(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    blobs = FolderBlobs(tmp_path)

    with failing_fsync(monkeypatch, number), pytest.raises(StoreUnavailable):
        blobs.put("a/b", b"content")
    with failing_fsync(monkeypatch, number), pytest.raises(StoreUnavailable):
        blobs.check_ready()

    assert list(blobs.keys("")) == []
    assert left_in(tmp_path) == []
    blobs.put("a/b", b"content")
    assert blobs.get("a/b") == b"content"


def test_a_full_disk_is_unavailable_until_there_is_room(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    signal = pytest.importorskip("signal")
    blobs = FolderBlobs(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        with pytest.raises(StoreUnavailable):
            blobs.put("large", bytes(2000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)

    assert list(blobs.keys("")) == []
    assert left_in(tmp_path) == []
    blobs.put("large", bytes(2000))
    assert blobs.get("large") == bytes(2000)


def test_what_a_crash_left_is_swept_and_what_is_being_written_is_not(tmp_path: Path) -> None:
    FolderBlobs(tmp_path).put("a/b", b"content")
    old, young = tmp_path / ".incoming" / "old", tmp_path / ".incoming" / "young"
    for path, age in ((old, HOUR + 60), (young, HOUR - 60)):
        path.write_bytes(b"half a bl")
        written = path.stat().st_mtime - age
        os.utime(path, (written, written))

    blobs = FolderBlobs(tmp_path)

    assert left_in(tmp_path) == [young]
    assert list(blobs.keys("")) == ["a/b"]


def test_a_folder_that_is_let_go_while_a_blob_is_put_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs, other = FolderBlobs(tmp_path), FolderBlobs(tmp_path)
    replace = Path.replace

    def forget_first(self: Path, target: Path) -> Path:
        monkeypatch.undo()
        other.forget("rounds/a")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", forget_first)
    blobs.put("rounds/a/updates/one", b"content")

    assert blobs.get("rounds/a/updates/one") == b"content"
    assert left_in(tmp_path) == []


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc to name open files")
def test_a_folder_that_another_process_let_go_of_is_made_durable_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs, other = FolderBlobs(tmp_path), FolderBlobs(tmp_path)
    blobs.put("a/b/c", b"content")
    other.delete("a/b/c")
    other.forget("a")

    with recorded(monkeypatch) as steps:
        blobs.put("a/b/c", b"content")

    assert steps[-2:] == [("fsync", str(tmp_path / "a")), ("fsync", str(tmp_path))]


def test_a_blob_that_can_not_be_moved_to_its_place_leaves_nothing(tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path)
    blobs.put("a/b", b"content")

    with pytest.raises(StoreUnavailable):
        blobs.put("a", b"content")

    assert left_in(tmp_path) == []


def test_writers_of_the_same_blob_do_not_disturb_each_other(tmp_path: Path) -> None:
    content = bytes(range(256)) * 1000
    failures: list[Exception] = []

    def write() -> None:
        blobs = FolderBlobs(tmp_path)
        try:
            for _ in range(10):
                blobs.put("a/b", content)
                assert blobs.get("a/b") == content
        except Exception as error:  # noqa: BLE001 - told to the test's own thread
            failures.append(error)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_SECONDS)

    assert failures == []
    assert left_in(tmp_path) == []


def test_a_folder_that_can_not_be_made_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(StoreUnavailable):
        FolderBlobs(tmp_path / "file" / "blobs")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other rights")
def test_blobs_are_their_owners_alone_whatever_the_folder_allows(tmp_path: Path) -> None:
    FolderBlobs(tmp_path / "new").put("a/b/c", b"content")
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    (tmp_path / "open").mkdir()
    # Whatever this user's umask takes away from new folders.
    (tmp_path / "open").chmod(0o755)
    umask = os.umask(0)
    try:
        FolderBlobs(tmp_path / "open").put("a/b/c", b"content")
    finally:
        os.umask(umask)
    assert (tmp_path / "open").stat().st_mode & 0o777 == 0o755
    for folder in ("new", "open"):
        for private in (".incoming", "a", "a/b"):
            assert (tmp_path / folder / private).stat().st_mode & 0o777 == 0o700
        assert (tmp_path / folder / "a" / "b" / "c").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_a_folder_is_opened_by_path_or_url(tmp_path: Path, form: str) -> None:
    open_blobs(form.format(tmp_path / "blobs")).put("a", b"content")

    assert (tmp_path / "blobs" / "a").read_bytes() == b"content"


def test_another_kind_of_url_is_refused() -> None:
    with pytest.raises(WrongAddress, match="s3"):
        open_blobs("s3://bucket/prefix")
