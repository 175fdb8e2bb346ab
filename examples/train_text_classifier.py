"""A device that fine-tunes a text classifier with the others of its task. Copy it and change it.

    pip install 'flasc-service[train]'
    export FLASC_CREDENTIAL=fld_...          # what `flasc device enroll` printed
    python train_text_classifier.py --server flasc.example.com:443 --task mail-folders \\
        --model sentence-transformers/all-MiniLM-L6-v2 --labels work,family,ads --data mail.csv

The CSV file has the columns `text` and `label`. Nothing in it leaves this machine: what is sent are
the largest changes of a small adapter, and counts. Stop it at any time; started again with the same
state folder, it goes on where it was.
"""

from __future__ import annotations

import argparse
import csv
import logging
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers.pytorch_utils import Conv1D

from client_sdk import Event, Participant, ParticipantError, Summary
from client_sdk.events import Evaluated, Finished, Refused, Retrying, Trained, Uploaded
from client_sdk.peft_trainer import PeftTrainer

# One example in five is never trained on; the device scores each new adapter on them.
HOLDOUT_EVERY = 5
MAX_TOKENS = 128


@dataclass(frozen=True)
class Output:
    logits: Tensor
    loss: Tensor | None


class TextClassifier(nn.Module):
    """A pretrained encoder, the mean of its last states, and a linear head.

    The module names are part of the task: this is the model that `flasc task create` makes.
    """

    def __init__(self, encoder: nn.Module, hidden_size: int, classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.classifier = nn.Linear(hidden_size, classes)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None
    ) -> Output:
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask)
        present = attention_mask.unsqueeze(-1).float()
        summed = (states.last_hidden_state.float() * present).sum(dim=1)
        logits = self.classifier(summed / present.sum(dim=1).clamp(min=1))
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return Output(logits=logits, loss=loss)


class Texts(Dataset[dict[str, Any]]):
    def __init__(self, rows: Sequence[tuple[str, int]]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        text, label = self._rows[index]
        return {"text": text, "label": label}


def load_rows(path: Path, labels: list[str]) -> list[tuple[str, int]]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = [(row["text"], row["label"]) for row in csv.DictReader(file)]
    unknown = {label for _, label in rows} - set(labels)
    if unknown:
        raise SystemExit(f"{path} has labels that --labels does not name: {sorted(unknown)}")
    return [(text, labels.index(label)) for text, label in rows]


def build_model(source: str, classes: int, rank: int, dtype: str) -> peft.PeftModel:
    """Build what the task was created with; a check-in says what differs if it is not."""
    encoder = transformers.AutoModel.from_pretrained(
        source, dtype=getattr(torch, dtype), attn_implementation="eager"
    )
    # Means are taken instead, and an adapter on an unused layer would never learn.
    encoder.pooler = None
    linear = [
        name.rpartition(".")[2]
        for name, module in encoder.named_modules()
        if isinstance(module, nn.Linear | Conv1D)
    ]
    model = TextClassifier(encoder, encoder.config.hidden_size, classes)
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=rank,
        target_modules=sorted(set(linear)),
        modules_to_save=["classifier"],
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in encoder.modules()),
    )
    return peft.get_peft_model(model, config)


def build_trainer(options: argparse.Namespace) -> PeftTrainer:
    labels = options.labels.split(",")
    rows = load_rows(options.data, labels)
    tokenizer = transformers.AutoTokenizer.from_pretrained(options.model)

    def collate(items: list[dict[str, Any]]) -> dict[str, Tensor]:
        batch = tokenizer(
            [item["text"] for item in items],
            padding=True,
            truncation=True,
            max_length=MAX_TOKENS,
            return_tensors="pt",
        )
        return {
            "input_ids": batch["input_ids"],
            "attention_mask": batch["attention_mask"],
            "labels": torch.tensor([item["label"] for item in items]),
        }

    return PeftTrainer(
        build_model(options.model, len(labels), options.rank, options.dtype),
        Texts([row for n, row in enumerate(rows) if n % HOLDOUT_EVERY]),
        Texts(rows[::HOLDOUT_EVERY]),
        collate=collate,
        device=options.device,
    )


def tell(event: Event) -> None:
    match event:
        case Evaluated(round_number=number, evaluation=found):
            share = found.correct / max(found.total, 1)
            print(f"round {number}: {share:.1%} of {found.total} held-out examples right")
        case Trained(round_number=number, steps=steps, loss_mean=loss):
            print(f"round {number}: {steps} steps, mean loss {loss:.3f}")
        case Uploaded(round_number=number, payload_bytes=size):
            print(f"round {number}: sent {size:,} bytes")
        case Refused(round_number=number, message=message):
            print(f"round {number}: too late or refused: {message}")
        case Retrying(call=call, delay_seconds=delay, cause=cause):
            print(f"{call}: trying again in {delay:.0f} s: {cause}")
        case Finished(final_version=version):
            print(f"the task is finished with adapter version {version}")
        case _:
            pass


def take_part(options: argparse.Namespace) -> Summary:
    participant = Participant(
        options.server,
        task=options.task,
        credential=os.environ["FLASC_CREDENTIAL"],
        trainer=build_trainer(options),
        state_folder=options.state,
        insecure=options.insecure,
        on_event=tell,
    )
    # Training in progress is given up, and its place in the round goes to another device.
    signal.signal(signal.SIGTERM, lambda *_: participant.stop())
    with participant:
        return participant.run()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--server", required=True, help="host:port of the device service")
    parser.add_argument("--task", required=True)
    parser.add_argument("--model", required=True, help="a hub's model or a local folder")
    parser.add_argument("--labels", required=True, help="all classes, in the task's order")
    parser.add_argument("--data", required=True, type=Path, help="CSV with text and label")
    parser.add_argument("--state", type=Path, default=Path("flasc-state"))
    parser.add_argument("--rank", type=int, default=16, help="LoRA rank of the task")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--insecure", action="store_true", help="no TLS; only on one's own machine")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING)

    try:
        summary = take_part(options)
    except ParticipantError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    print(
        f"{summary.updates_accepted} updates, {summary.payload_bytes_sent:,} bytes sent, "
        f"{summary.payload_bytes_received:,} bytes received"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
