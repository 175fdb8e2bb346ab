"""Run as `python -m flasc_cli.demo.check_export FOLDER SETTINGS BASE_SHA256`: score an adapter.

A fresh process that shares nothing with the run but the folder: it loads the adapter with PEFT and
scores it on every device's held-out examples, device by device as they do.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import cast

from flasc_cli.demo.settings import DemoSettings
from flasc_cli.scoring import score_folder
from flasc_sim.datasets import divide, load_texts
from flasc_sim.models import DtypeName


def main() -> None:
    folder, demo = Path(sys.argv[1]), DemoSettings(**json.loads(sys.argv[2]))
    table = load_texts(demo.dataset, data=Path(demo.data) if demo.data else None)
    parts = [
        divide(table, index, demo.devices, held_out_limit=demo.held_out, seed=demo.seed).held_out
        for index in range(demo.devices)
    ]
    scores = score_folder(
        folder,
        parts,
        model=demo.model,
        labels=len(table.label_names),
        dtype=cast("DtypeName", demo.dtype),
        base_sha256=sys.argv[3],
    )
    result = {
        "correct": sum(score.correct for score in scores),
        "total": sum(score.total for score in scores),
        "loss_sum": sum(score.loss_sum for score in scores),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
