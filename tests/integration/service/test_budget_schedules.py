"""No schedule of devices, operators and deaths makes a private task overspend.

`python -m benchmarks.budget_schedules` plays thousands of them.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.support.one_task import OneTask, in_memory
from tests.support.private_schedules import play_and_check

IN_MEMORY = 60
ON_DISK = 3


def test_no_schedule_overspends() -> None:
    deaths = [play_and_check(seed, in_memory) for seed in range(IN_MEMORY)]
    assert sum(deaths) > IN_MEMORY


def test_no_schedule_overspends_on_disk(on_disk: Callable[[], OneTask]) -> None:
    deaths = [play_and_check(seed, on_disk) for seed in range(ON_DISK)]
    assert sum(deaths) > ON_DISK
