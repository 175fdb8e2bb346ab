"""No schedule of devices, operators and deaths makes a private task overspend.

`python -m benchmarks.budget_schedules` plays thousands of them.
"""

from __future__ import annotations

import shutil
from itertools import count
from pathlib import Path

from aggregator_service.store.memory import MemoryBlobs
from aggregator_service.store.open import open_store
from tests.support.one_task import OneTask, in_memory
from tests.support.private_schedules import play_and_check

IN_MEMORY = 60
ON_DISK = 3


def test_no_schedule_overspends() -> None:
    deaths = [play_and_check(seed, in_memory) for seed in range(IN_MEMORY)]
    assert sum(deaths) > IN_MEMORY


def test_no_schedule_overspends_on_disk(sqlite_template: Path, tmp_path: Path) -> None:
    numbers = count()

    def on_disk() -> OneTask:
        path = tmp_path / f"{next(numbers)}.db"
        shutil.copyfile(sqlite_template, path)
        return OneTask(
            reopen=lambda: open_store(f"sqlite:///{path}", pool_size=1), blobs=MemoryBlobs()
        )

    deaths = [play_and_check(seed, on_disk) for seed in range(ON_DISK)]
    assert sum(deaths) > ON_DISK
