"""Thousands of random lives of private tasks, none of which may overspend.

Devices, operators, deaths of the service and time come in random order; after every step an oracle
that knows nothing of reservations reckons what has been published and acknowledged, and the
budget must cover it. About ten minutes for 10,000:

    python -m benchmarks.budget_schedules --schedules 10000
"""

from __future__ import annotations

import argparse
import sys

from benchmarks._report import Goal, write_report
from tests.support.one_task import in_memory
from tests.support.private_schedules import play_and_check

_PROGRESS_EVERY = 100


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--schedules", type=int, default=1_000)
    # `python -m benchmarks` gives every benchmark the same arguments.
    schedules: int = parser.parse_known_args()[0].schedules
    deaths = overspent = 0
    for seed in range(schedules):
        try:
            deaths += play_and_check(seed, in_memory)
        except AssertionError as error:
            overspent += 1
            print(f"\nschedule {seed}: {error}")
        if not (seed + 1) % _PROGRESS_EVERY:
            print(f"\r{seed + 1} of {schedules}", end="", flush=True)
    print()
    write_report(
        "budget_schedules",
        [],
        [{"schedules": schedules, "deaths": deaths, "overspent": overspent}],
        [Goal(name="schedules that overspend", at_most=0, worst=overspent)],
    )
    return 1 if overspent else 0


if __name__ == "__main__":
    sys.exit(main())
