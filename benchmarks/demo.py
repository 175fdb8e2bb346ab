"""`flasc demo` as it comes: bytes at all sockets against dense float32 LoRA's, and the accuracy.

    python -m benchmarks.demo --seeds 0 1 2

Every seed is a whole demo, with a service and ten device processes that run both tasks. Takes four
minutes a seed on two quiet cores; `--summaries` takes what demos that have run left instead.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any, Final

from benchmarks._report import Goal, write_report
from flasc_sim.figures import figure

_TIMES_FEWER: Final = 25


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--summaries", type=Path, nargs="+", default=[], metavar="FILE")
    given, _ = parser.parse_known_args()
    summaries: list[Mapping[str, Any]] = [json.loads(file.read_bytes()) for file in given.summaries]
    summaries = summaries or [_run(seed) for seed in given.seeds]
    goal = Goal(
        name=f"socket bytes, as a share of dense float32's; 1/{_TIMES_FEWER}",
        at_most=1 / _TIMES_FEWER,
        worst=max(_carried(one) / one["dense"]["socket_bytes"] for one in summaries),
    )
    file = write_report("demo", [], [_row(one) for one in summaries], [goal])
    _plot(summaries, file.with_suffix(".svg"))


def _run(seed: int) -> Mapping[str, Any]:
    with TemporaryDirectory() as name:
        folder = Path(name)
        options = ["--data-folder", str(folder / "data"), "--seed", str(seed)]
        summary = folder / "summary.json"
        subprocess.run(
            [sys.executable, "-m", "flasc_cli", "demo", *options, "--summary", str(summary)],
            check=True,
        )
        found: dict[str, Any] = json.loads(summary.read_bytes())
        return found


def _carried(summary: Mapping[str, Any]) -> int:
    return sum(
        device["socket_bytes_sent"] + device["socket_bytes_received"]
        for device in summary["devices"]
    )


def _row(summary: Mapping[str, Any]) -> dict[str, str | float]:
    dense = summary["dense"]
    return {
        "seed": summary["settings"]["seed"],
        "devices": len(summary["devices"]),
        "rounds": summary["rounds"],
        "trainable_values": summary["trainable_values"],
        "held_out_examples": summary["held_out_examples"],
        "accuracy_before": summary["accuracy_before"],
        "accuracy_after": summary["accuracy_after"],
        "dense_accuracy_after": dense["accuracy_after"],
        "cost_in_points": 100 * (dense["accuracy_after"] - summary["accuracy_after"]),
        "socket_bytes": _carried(summary),
        "dense_socket_bytes": dense["socket_bytes"],
        "times_fewer": dense["socket_bytes"] / _carried(summary),
        "seconds_per_round": summary["seconds_per_round"],
    }


def _plot(summaries: Sequence[Mapping[str, Any]], file: Path) -> None:
    runs = {
        "sparse, 6 bits": [(one["accuracy_per_round"], _carried(one)) for one in summaries],
        "dense, float32": [
            (one["dense"]["accuracy_per_round"], one["dense"]["socket_bytes"]) for one in summaries
        ],
    }
    with figure(file) as drawn:
        axes = drawn.subplots()
        for color, (name, found) in enumerate(runs.items()):
            carried = mean(size for _, size in found) / 1e6
            label = f"{name}: {carried:.1f} MB at all sockets"
            for accuracies, _ in found:
                percent = [100 * accuracy for accuracy in accuracies]
                axes.plot(range(len(percent)), percent, color=f"C{color}", marker=".", label=label)
                label = ""
        axes.set_xlabel("rounds done")
        axes.set_ylabel("held-out accuracy, %")
        axes.set_title("The demo's task: Debian sections, ten devices, MiniLM", fontsize=10)
        axes.legend()


if __name__ == "__main__":
    main()
