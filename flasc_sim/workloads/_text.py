"""Text classification with a pretrained encoder: what the workloads of texts have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, cast

import numpy as np
from peft import PeftModel
from torch.utils.data import Dataset

from client_sdk.peft_trainer import Collate
from flasc_core.json_value import JsonValue
from flasc_sim.blueprint import base_model_name
from flasc_sim.cached_prefix import PadStates, layers_above, skip_layers
from flasc_sim.datasets.examples import LabelledTexts
from flasc_sim.datasets.tokens import PadBatch, TokenisedTexts
from flasc_sim.fields import read_fields
from flasc_sim.models import (
    DtypeName,
    Pooling,
    TextClassifier,
    load_text_classifier,
    load_tokenizer,
    with_lora,
)
from flasc_sim.state_cache import cached_states, content_sha256, token_rows
from flasc_sim.workload import AdapterShape, Sources, Workload

__all__ = ["TextOptions", "read_text_options", "text_workload"]

# Fixed draws, the same for every run, so that differences between runs are of the same texts.
_TRAIN_SEED: Final = 0
_SCORED_SEED: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class TextOptions:
    """Settings of a workload of texts.

    `pooling` is "mean", or "last" for decoders. Layers below `frozen_layers` get no adapter; with
    `cached` what they make of a text is computed once. Devices own `train_share` of the shuffled
    training rows; the rest validates. At most `scored` rows are scored, 0 for all of them.
    """

    model: str = "minilm"
    dtype: str = "bfloat16"
    pooling: str = "mean"
    tokens: int = 64
    frozen_layers: int = 0
    cached: bool = True
    train_share: float = 0.8
    scored: int = 2000

    def __post_init__(self) -> None:
        if self.dtype not in ("bfloat16", "float32"):
            raise ValueError(f"workload.dtype is bfloat16 or float32, not {self.dtype!r}")
        if self.pooling not in ("mean", "last"):
            raise ValueError(f"workload.pooling is mean or last, not {self.pooling!r}")
        if self.tokens < 1 or self.frozen_layers < 0 or self.scored < 0:
            raise ValueError("workload.tokens is at least 1, frozen_layers and scored at least 0")
        if not 0 < self.train_share <= 1:
            raise ValueError(f"workload.train_share is in (0, 1], not {self.train_share}")

    @property
    def skipped(self) -> int:
        """How many layers are computed once."""
        return self.frozen_layers if self.cached else 0


def read_text_options(options: Mapping[str, JsonValue], **defaults: JsonValue) -> TextOptions:
    """`defaults` are the workload's own. Raises ValueError."""
    return read_fields(TextOptions, {**defaults, **options}, "workload")


def text_workload(table: LabelledTexts, options: TextOptions, sources: Sources) -> Workload:
    """Tokenise, and compute the frozen layers where they are to be cached."""
    order = np.random.default_rng(_TRAIN_SEED).permutation(np.flatnonzero(~table.held_out))
    train = order[: int(options.train_share * order.size)]
    validation = np.sort(order[train.size :][: options.scored or None])
    scored = np.random.default_rng(_SCORED_SEED).permutation(np.flatnonzero(table.held_out))
    held_out = np.sort(scored[: options.scored or None])
    rows = {"train": train, "held_out": held_out, "validation": validation}
    parts = {name: table.take(chosen) for name, chosen in rows.items()}
    model = _load(options, len(table.label_names), seed=0) if options.skipped else None
    tokenizer = load_tokenizer(options.model)
    texts = {
        name: TokenisedTexts(examples, tokenizer, options.tokens)
        for name, examples in parts.items()
        if examples.texts
    }
    made, collate = _datasets(texts, cast("int", tokenizer.pad_token_id), model, options, sources)
    return Workload(
        name=table.name,
        train=made["train"],
        held_out=made["held_out"],
        content_sha256=content_sha256(
            {name: token_rows(some) for name, some in texts.items()}, model
        ),
        validation=made.get("validation"),
        labels=table.labels[train],
        owners=table.owners[train],
        build=partial(_build, options, len(table.label_names)),
        base_model_name=base_model_name(options.model, options.dtype),
        collate=collate,
        facts={
            "data": table.name,
            "model": options.model,
            "dtype": options.dtype,
            "pooling": options.pooling,
            "tokens": options.tokens,
            "layers_without_adapter": options.frozen_layers,
            "layers_computed_once": options.skipped,
            "train_rows": train.size,
            "validation_rows": validation.size,
            "held_out_rows": held_out.size,
        },
    )


def _datasets(
    texts: Mapping[str, TokenisedTexts],
    pad_id: int,
    model: TextClassifier | None,
    options: TextOptions,
    sources: Sources,
) -> tuple[dict[str, Dataset[Any]], Collate]:
    if model is None:
        return dict(texts), PadBatch(pad_id=pad_id)
    stored: dict[str, Dataset[Any]] = {
        name: cached_states(
            model, tokenised, layers=options.skipped, pad_id=pad_id, folder=sources.cache
        )
        for name, tokenised in texts.items()
    }
    return stored, PadStates()


def _build(options: TextOptions, labels: int, shape: AdapterShape, seed: int) -> PeftModel:
    model = _load(options, labels, seed)
    layers = layers_above(model.encoder, options.frozen_layers)
    if options.skipped:
        skip_layers(model, layers=options.skipped)
    return with_lora(
        model,
        rank=shape.rank,
        alpha=shape.lora_alpha,
        target_modules=None if shape.target_modules is None else list(shape.target_modules),
        layers=layers,
        dropout=shape.dropout,
        seed=seed,
    )


def _load(options: TextOptions, labels: int, seed: int) -> TextClassifier:
    return load_text_classifier(
        options.model,
        labels,
        dtype=cast("DtypeName", options.dtype),
        pooling=cast("Pooling", options.pooling),
        seed=seed,
    )
