"""Run as `python -m flasc_cli.demo.device SETTINGS`: one device, with its own data and model.

It takes part in one task after another until each has ended, and tells what it does as JSON lines
on stdout.
"""

from __future__ import annotations

import json
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch

from client_sdk import Participant, RetryPolicy
from client_sdk.events import Event
from client_sdk.peft_trainer import PeftTrainer
from flasc_cli.demo.settings import DeviceSettings
from flasc_sim.datasets import DeviceExamples, divide, load_texts
from flasc_sim.datasets.tokens import PadBatch, TokenisedTexts
from flasc_sim.models import DtypeName, load_text_classifier, load_tokenizer, with_lora

# The service is on this machine and comes back at once if it goes.
_SESSION_RETRIES = RetryPolicy(
    max_attempts=120, first_delay_seconds=0.5, max_delay_seconds=3.0, total_seconds=300.0
)


def main() -> None:
    settings = DeviceSettings.read(Path(sys.argv[1]))
    # All devices of the demo share the machine's cores, and sums must not depend on how many.
    torch.set_num_threads(1)
    trainer = make_trainer(settings)
    for task in settings.addresses:
        if not take_part(settings, task, trainer):
            return


def take_part(settings: DeviceSettings, task: str, trainer: PeftTrainer) -> bool:
    """Return whether the task came to its end; it does not where the device is told to stop."""
    participant = Participant(
        settings.addresses[task],
        task=task,
        credential=settings.credential,
        trainer=trainer,
        state_folder=Path(settings.state_folder) / task,
        insecure=True,
        on_event=lambda event: tell(task, event),
        session_retries=_SESSION_RETRIES,
    )
    with participant:
        signal.signal(signal.SIGTERM, lambda *_: participant.stop())
        summary = participant.run()
    _print({"event": "Summary", "task": task, **asdict(summary)})
    return summary.finished


def make_trainer(settings: DeviceSettings) -> PeftTrainer:
    demo = settings.demo
    table = load_texts(demo.dataset, data=Path(demo.data) if demo.data else None)
    own: DeviceExamples = divide(
        table, settings.index, demo.devices, held_out_limit=demo.held_out, seed=demo.seed
    )
    tokenizer = load_tokenizer(demo.model)
    model = load_text_classifier(
        demo.model, len(table.label_names), dtype=cast("DtypeName", demo.dtype), seed=demo.seed
    )
    return PeftTrainer(
        with_lora(model, rank=demo.rank, alpha=demo.rank, seed=demo.seed),
        TokenisedTexts(own.train, tokenizer),
        TokenisedTexts(own.held_out, tokenizer),
        collate=PadBatch(pad_id=cast("int", tokenizer.pad_token_id)),
    )


def tell(task: str, event: Event) -> None:
    _print({"event": type(event).__name__, "task": task, **asdict(event)})


def _print(fields: dict[str, Any]) -> None:
    print(json.dumps(fields, default=bytes.hex), flush=True)


if __name__ == "__main__":
    main()
