"""Scores an exported adapter as devices do: the same trainer, the same batches, one thread."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import peft
import torch

from client_sdk.peft_trainer import PeftTrainer, adapter_weights, base_model_sha256
from client_sdk.trainer import Evaluation
from flasc_cli.errors import CliError
from flasc_sim.datasets.examples import Examples
from flasc_sim.datasets.tokens import PadBatch, TokenisedTexts
from flasc_sim.models import DtypeName, load_text_classifier, load_tokenizer

__all__ = ["load_adapted", "score_folder"]


def score_folder(
    folder: Path,
    parts: Sequence[Examples],
    *,
    model: str,
    labels: int,
    dtype: DtypeName,
    base_sha256: str | None = None,
) -> list[Evaluation]:
    """Load a PEFT folder on its base model and score each part by itself, in order.

    Raises CliError where the base model is not the one with `base_sha256`.
    """
    # Sums of floats depend on how many threads share them; a device has one.
    torch.set_num_threads(1)
    adapted = load_adapted(folder, model=model, labels=labels, dtype=dtype)
    if base_sha256 is not None and base_model_sha256(adapted).hex() != base_sha256:
        raise CliError(
            f"{model!r} in {dtype} is not the base model that the task was trained on; give the "
            "right one with --model and --dtype"
        )
    tokenizer = load_tokenizer(model)
    collate = PadBatch(pad_id=cast("int", tokenizer.pad_token_id))
    weights = adapter_weights(adapted)
    scores: list[Evaluation] = []
    for part in parts:
        held_out = TokenisedTexts(part, tokenizer)
        trainer = PeftTrainer(adapted, held_out, held_out, collate=collate)
        score = trainer.evaluate(weights)
        if score is None:
            raise AssertionError("a trainer with a held-out set scores it")
        scores.append(score)
    return scores


def load_adapted(folder: Path, *, model: str, labels: int, dtype: DtypeName) -> peft.PeftModel:
    """Load a PEFT folder onto its base model; trainable, as the trainer wants it."""
    if not (folder / "adapter_config.json").is_file():
        raise CliError(f"{folder} is no PEFT folder; write one with `flasc adapter export`")
    base = load_text_classifier(model, labels, dtype=dtype)
    try:
        return peft.PeftModel.from_pretrained(base, str(folder), is_trainable=True)
    except (ValueError, RuntimeError, json.JSONDecodeError) as error:
        raise CliError(f"{folder} does not fit {model!r}: {error}") from error
