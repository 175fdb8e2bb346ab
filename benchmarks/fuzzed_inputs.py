"""The decoder under ten million inputs of a fuzzer that is guided by coverage; 20 minutes.

Needs the `fuzz` extra. What an input is and what must hold of it: tests/fuzz/README.md. Ends with
the fuzzer's own status where it finds something.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec

from benchmarks._report import Goal, write_report

# As libFuzzer prints them at its end.
_FIGURE = re.compile(r"^stat::(\w+): +(\d+)$", re.MULTILINE)
# By the instrumentation, not by what it instruments: for every three inputs that atheris sees it
# keeps an object, so that a process of its own is begun for every so many.
_RUNS_PER_PROCESS = 2_500_000


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=10_000_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments, _ = parser.parse_known_args()
    parts: list[dict[str, int]] = []
    for first in range(0, arguments.runs, _RUNS_PER_PROCESS):
        runs = min(_RUNS_PER_PROCESS, arguments.runs - first)
        found = _fuzz(runs, arguments.seed + len(parts))
        if found.returncode != 0:
            sys.stderr.write(found.stderr)
            return found.returncode
        figures = {name: int(value) for name, value in _FIGURE.findall(found.stderr)}
        parts.append(figures)
        done, peak = first + runs, figures["peak_rss_mb"]
        print(f"{done:,} of {arguments.runs:,} inputs, no finding, {peak} MiB", flush=True)
    peak = max(part["peak_rss_mb"] for part in parts)
    row: dict[str, str | float] = {
        "seed": arguments.seed,
        "inputs": sum(part["number_of_executed_units"] for part in parts),
        "processes": len(parts),
        "inputs_per_second": min(part["average_exec_per_sec"] for part in parts),
        "peak_rss_mb": peak,
        "findings": 0,
        "atheris": version("atheris"),
        "isal": version("isal") if find_spec("isal") else "not installed",
    }
    # Of a whole process, with the interpreter, the coverage and the corpus.
    goal = Goal(name="MiB of a process", at_most=512, worst=peak)
    write_report("fuzzed_inputs", [], [row], [goal])
    return 0


def _fuzz(runs: int, seed: int) -> subprocess.CompletedProcess[str]:
    options = [f"-runs={runs}", f"-seed={seed}", "-print_final_stats=1"]
    return subprocess.run(
        [sys.executable, "-m", "tests.fuzz.run", *options],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )


if __name__ == "__main__":
    sys.exit(main())
