"""Runs a table's methods, and sums up what is finished.

    python -m benchmarks.paper newsgroups --data 20news_bydate.parquet --seeds 0 1 2
    python -m benchmarks.paper report

What is finished is left as it is, and what was stopped goes on, so that the first command may be
given again and again, and by several processes at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import torch

from benchmarks._report import RESULTS
from benchmarks.paper.report import report
from benchmarks.paper.tables import TABLES, plan_run
from flasc_cli.errors import CliError
from flasc_cli.simulating import run_all
from flasc_sim.workload import Sources

_FOLDER: Final = RESULTS / "paper"
_PAGE: Final = Path(__file__).parents[2] / "docs" / "reproduction.md"


def main(words: Sequence[str] | None = None) -> int:
    arguments = _arguments(words)
    if arguments.table == "report":
        report(arguments.folder, arguments.page)
        return 0
    torch.set_num_threads(1)
    # Seed by seed, so that every method has its first before any has its second.
    planned = [
        plan_run(arguments.table, method, seed, rounds=arguments.rounds)
        for seed in arguments.seeds
        for method in arguments.only or TABLES[arguments.table].methods
    ]
    sources = Sources(data=arguments.data, weights=arguments.weights, cache=arguments.cache)
    try:
        run_all(planned, sources, arguments.folder / arguments.table, checkpoint_every=10).check()
    except CliError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.paper", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("table", choices=[*TABLES, "report"])
    parser.add_argument("--data", type=Path, help="a copy of the data; fetched where left out")
    parser.add_argument("--weights", type=Path, help="MobileNet's file")
    parser.add_argument("--cache", type=Path, help="keeps what frozen layers make of the data")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", nargs="+", default=[], metavar="METHOD")
    parser.add_argument("--rounds", type=int, help="fewer than the task's, to try it out")
    parser.add_argument("--folder", type=Path, default=_FOLDER, help="where results are")
    parser.add_argument("--page", type=Path, default=_PAGE, help="gets the tables")
    arguments = parser.parse_args(words)
    if arguments.rounds is not None and arguments.folder == _FOLDER:
        parser.error("give --folder with --rounds: these are no results to keep")
    if arguments.table != "report":
        methods = TABLES[arguments.table].methods
        if unknown := [method for method in arguments.only if method not in methods]:
            parser.error(f"{arguments.table} has no {unknown[0]}; there are {', '.join(methods)}")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
