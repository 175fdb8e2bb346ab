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


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=10_000_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments, _ = parser.parse_known_args()
    options = [f"-runs={arguments.runs}", f"-seed={arguments.seed}", "-print_final_stats=1"]
    found = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.run", *options],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if found.returncode != 0:
        sys.stderr.write(found.stderr)
        return found.returncode
    figures = {name: int(value) for name, value in _FIGURE.findall(found.stderr)}
    row: dict[str, str | float] = {
        "seed": arguments.seed,
        "inputs": figures["number_of_executed_units"],
        "inputs_per_second": figures["average_exec_per_sec"],
        "peak_rss_mb": figures["peak_rss_mb"],
        "findings": 0,
        "atheris": version("atheris"),
        "isal": version("isal") if find_spec("isal") else "not installed",
    }
    # Over the whole run, with the interpreter, the coverage and the corpus.
    goal = Goal(name="MiB of the whole process", at_most=1024, worst=figures["peak_rss_mb"])
    write_report("fuzzed_inputs", [], [row], [goal])
    return 0


if __name__ == "__main__":
    sys.exit(main())
