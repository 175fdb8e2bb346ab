"""What is on disk, and what it is worth after a crash."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from client_sdk._errors import StateDamaged, StateFolderError, StateFolderInUse
from client_sdk._state import PendingUpdate, StateFolder, Totals
from flasc_core.pb.v1 import device_service_pb2 as pb
from tests.support.patience import PATIENCE_SECONDS

ROOT = Path(__file__).parents[3]


def a_pending(payload: bytes = b"payload\nwith a line", number: int = 4) -> PendingUpdate:
    header = pb.UpdateHeader(
        assignment_id=number.to_bytes(16, "big"), payload_sha256=hashlib.sha256(payload).digest()
    )
    return PendingUpdate(
        round_number=number,
        max_unary_payload_bytes=100,
        request=pb.SubmitUpdateRequest(header=header, payload=payload),
    )


Reopen = Callable[[], StateFolder]


@pytest.fixture
def reopen(tmp_path: Path) -> Iterator[Reopen]:
    """Open the folder once more; whoever held it before has ended."""
    opened: list[StateFolder] = []

    def again() -> StateFolder:
        for state in opened:
            state.close()
        opened.append(StateFolder(tmp_path, task="t"))
        return opened[-1]

    yield again
    for state in opened:
        state.close()


@pytest.fixture
def state(reopen: Reopen) -> StateFolder:
    return reopen()


def test_a_pending_update_comes_back_as_it_was(state: StateFolder, reopen: Reopen) -> None:
    state.save_pending(a_pending())
    assert reopen().load_pending() == a_pending()


def test_a_dropped_update_does_not_come_back(state: StateFolder, reopen: Reopen) -> None:
    state.save_pending(a_pending())
    state.drop_pending()
    assert reopen().load_pending() is None


def test_dropping_nothing_is_harmless(state: StateFolder) -> None:
    state.drop_pending()
    assert state.load_pending() is None


def test_every_flipped_or_missing_byte_of_a_pending_payload_is_noticed() -> None:
    whole = b"".join(a_pending().to_parts())
    start = whole.index(b"payload\n")
    for position in range(start, len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 0x20
        with pytest.raises(StateDamaged):
            PendingUpdate.from_bytes(bytes(damaged))
    for length in range(len(whole)):
        with pytest.raises(StateDamaged):
            PendingUpdate.from_bytes(whole[:length])


def test_a_half_written_file_is_never_read(
    state: StateFolder, reopen: Reopen, tmp_path: Path
) -> None:
    state.save_pending(a_pending())
    (tmp_path / "writing-pending-update").write_bytes(b"half")
    (tmp_path / "writing-task-00").write_bytes(b"half")
    again = reopen()
    assert again.load_pending() == a_pending()
    assert again.load_task_spec() == b""


def test_an_update_is_counted_once_however_often_its_receipt_comes(
    state: StateFolder, reopen: Reopen
) -> None:
    state.count_accepted(a_pending(b"12345"))
    again = reopen()
    again.count_accepted(a_pending(b"12345"))
    assert again.totals == Totals(updates_accepted=1)
    again.count_accepted(a_pending(b"123", number=5))
    assert again.totals == Totals(updates_accepted=2)


def test_bytes_both_ways_and_evaluations_add_up(state: StateFolder, reopen: Reopen) -> None:
    state.count_received(10)
    state.count_received(5)
    state.count_sent(7)
    state.count_sent(1)
    state.count_evaluation()
    assert reopen().totals == Totals(
        payload_bytes_sent=8, payload_bytes_received=15, evaluations_reported=1
    )


def test_a_damaged_ledger_says_what_to_do(state: StateFolder, tmp_path: Path) -> None:
    state.close()
    (tmp_path / "participant.json").write_text("{")
    with pytest.raises(StateDamaged, match="delete the folder"):
        StateFolder(tmp_path, task="t")
    # The lock is free again.
    (tmp_path / "participant.json").unlink()
    StateFolder(tmp_path, task="t").close()


def test_one_specification_is_kept_and_a_damaged_one_is_not_used(
    state: StateFolder, tmp_path: Path
) -> None:
    state.save_task_spec(b"first")
    state.save_task_spec(b"second")
    assert state.load_task_spec() == b"second"
    (path,) = tmp_path.glob("task-*")
    path.write_bytes(b"damaged")
    assert state.load_task_spec() == b""


def test_another_download_replaces_what_is_left_of_the_last(
    state: StateFolder, tmp_path: Path
) -> None:
    first = state.open_download(b"\x01" * 32)
    first.append(b"abc")
    first.append(b"de")
    assert (state.open_download(b"\x01" * 32).size, first.read()) == (5, b"abcde")
    assert state.open_download(b"\x02" * 32).size == 0
    assert first.size == 0
    assert first.read() == b""


def test_a_folder_is_held_by_one_participant_at_a_time(
    state: StateFolder, reopen: Reopen, tmp_path: Path
) -> None:
    with pytest.raises(StateFolderInUse):
        StateFolder(tmp_path, task="t")
    reopen().close()


def test_the_lock_ends_with_the_process_that_held_it(tmp_path: Path) -> None:
    script = (
        "import os, pathlib\n"
        "from client_sdk._state import StateFolder\n"
        f"state = StateFolder(pathlib.Path({str(tmp_path)!r}), task='t')\n"
        "os._exit(5)\n"
    )
    died = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, check=False, timeout=PATIENCE_SECONDS
    )
    assert died.returncode == 5
    StateFolder(tmp_path, task="t").close()


# -- what a file system refuses


def test_a_folder_that_can_not_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "state").write_bytes(b"a file")
    with pytest.raises(StateFolderError, match="state"):
        StateFolder(tmp_path / "state", task="t")


def test_what_can_not_be_written_is_told_and_byte_totals_go_on(
    state: StateFolder, tmp_path: Path
) -> None:
    # Folders where the files would be written.
    for name in ("pending-update", "participant.json"):
        (tmp_path / f"writing-{name}").mkdir()
    with pytest.raises(StateFolderError, match="pending-update"):
        state.save_pending(a_pending())
    state.count_sent(5)
    state.count_evaluation()
    assert state.totals == Totals(evaluations_reported=1, payload_bytes_sent=5)
    with pytest.raises(StateFolderError, match=r"participant\.json"):
        state.count_accepted(a_pending())

    (tmp_path / "writing-participant.json").rmdir()
    state.count_accepted(a_pending())
    assert state.totals == Totals(updates_accepted=1, evaluations_reported=1, payload_bytes_sent=5)


def test_a_full_disk_keeps_no_half_of_a_file(
    state: StateFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StateFolderError, match="no space"):
        state.save_pending(a_pending())
    assert list(tmp_path.glob("writing-*")) == []


def test_totals_that_can_not_be_read_are_told_and_leave_the_folder_free(tmp_path: Path) -> None:
    (tmp_path / "participant.json").mkdir()
    with pytest.raises(StateFolderError, match=r"participant\.json"):
        StateFolder(tmp_path, task="t")
    (tmp_path / "participant.json").rmdir()
    StateFolder(tmp_path, task="t").close()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other rights")
def test_nobody_else_can_read_an_update(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    state = StateFolder(folder, task="t")
    state.save_pending(a_pending())
    state.open_download(b"digest").append(b"part")
    state.count_sent(1)
    state.close()
    assert folder.stat().st_mode & 0o077 == 0
    files = [path for path in folder.iterdir() if path.name != "participant.lock"]
    assert len(files) == 3
    assert all(path.stat().st_mode & 0o077 == 0 for path in files)
