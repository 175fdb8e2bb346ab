"""A device with the real SDK as a process of its own, which a test ends wherever it likes.

It notes every training in a file, and prints what it has done at its end.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from client_sdk import Evaluation, Participant, RetryPolicy, TrainingPlan, TrainingResult
from flasc_core.layout import AdapterLayout, Role, TensorSpec
from tests.builders import digest
from tests.support.child import child
from tests.support.patience import PATIENCE_SECONDS

__all__ = ["MortalDevice", "flat_layout"]

_RETRIES: Final = RetryPolicy(
    max_attempts=50, first_delay_seconds=0.01, max_delay_seconds=0.1, total_seconds=60.0
)


def flat_layout(dim: int) -> AdapterLayout:
    return AdapterLayout(tensors=(TensorSpec(name="head", shape=(dim,), role=Role.HEAD),))


@dataclass(frozen=True, slots=True, kw_only=True)
class MortalDevice:
    """`folder` outlives the process, as a device's disk does."""

    port: int
    task: str
    credential: str
    dim: int
    folder: Path
    # Prints a line in the middle of training, and trains no further.
    stops_in_training: bool = False

    def start(self) -> AbstractContextManager[subprocess.Popen[str]]:
        """Ends with the block at the latest."""
        given = asdict(self) | {"folder": str(self.folder)}
        return child(
            [sys.executable, "-m", "tests.support.mortal_device", json.dumps(given)],
            stdin=subprocess.PIPE,
        )

    def run(self) -> dict[str, Any]:
        """Lets it work until its update is acknowledged; returns its summary."""
        with self.start() as process:
            output, _ = process.communicate(timeout=PATIENCE_SECONDS)
        assert process.returncode == 0
        summary: dict[str, Any] = json.loads(output)
        return summary

    def run_until(self, moment: Callable[[subprocess.Popen[str]], object]) -> None:
        """Kills it once `moment` returns."""
        with self.start() as process:
            moment(process)
        assert process.returncode == -signal.SIGKILL

    def through(self, port: int) -> MortalDevice:
        return replace(self, port=port)

    @property
    def trainings(self) -> list[str]:
        """A line for every training begun and for every one ended, over all processes."""
        return _log(self.folder).read_text().splitlines() if _log(self.folder).exists() else []


class NotedTrainer:
    def __init__(self, device: MortalDevice) -> None:
        self.layout: Final = flat_layout(device.dim)
        self.base_model_sha256: Final = digest("base model")
        self._device: Final = device

    def evaluate(self, weights: NDArray[np.float32]) -> Evaluation | None:
        del weights
        return None

    def train(
        self,
        weights: NDArray[np.float32],
        plan: TrainingPlan,
        seed: int,
        on_step: Callable[[int, int], None],
        trainable: NDArray[np.bool_] | None = None,
    ) -> TrainingResult:
        del plan
        self._note("begun")
        on_step(1, 2)
        if self._device.stops_in_training:
            print("training", flush=True)
            sys.stdin.read()
        on_step(2, 2)
        update = np.random.default_rng(seed).standard_normal(weights.size, dtype=np.float32)
        self._note("ended")
        return TrainingResult(update=update, examples=1, steps=2, loss_mean=1.0, seconds=1.0)

    def _note(self, what: str) -> None:
        with _log(self._device.folder).open("a") as log:
            log.write(f"{what}\n")


def _log(folder: Path) -> Path:
    return folder / "trainings"


def main(given: str) -> None:
    fields = json.loads(given)
    device = MortalDevice(**(fields | {"folder": Path(fields["folder"])}))
    with Participant(
        f"127.0.0.1:{device.port}",
        task=device.task,
        credential=device.credential,
        trainer=NotedTrainer(device),
        state_folder=device.folder / "state",
        insecure=True,
        call_retries=_RETRIES,
        # The service of these tests has something to do whenever it is asked.
        sleep=lambda _: None,
    ) as participant:
        summary = participant.run(until_finished=False)
    print(json.dumps(asdict(summary)))


if __name__ == "__main__":
    main(*sys.argv[1:])
