"""What users wrote on Reddit: which token comes next; owners are the users.

The texts come by `data`, a folder of JSON files as `flasc_sim.datasets.user_texts` has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray
from peft import PeftModel
from torch.utils.data import Dataset

from client_sdk.peft_trainer import Collate
from flasc_core.json_value import JsonValue
from flasc_sim.blueprint import base_model_name
from flasc_sim.cached_prefix import PadStates, layers_above, skip_layers
from flasc_sim.datasets.tokens import PadBatch
from flasc_sim.datasets.user_texts import UserTexts, read_user_texts
from flasc_sim.fields import read_fields
from flasc_sim.language_model import LanguageModel, load_language_model
from flasc_sim.models import DtypeName, load_tokenizer, with_lora
from flasc_sim.next_tokens import NextTokens, PadNextTokens, StoredNextTokens
from flasc_sim.state_cache import cached_states, content_sha256
from flasc_sim.workload import AdapterShape, Sources, Workload

__all__ = ["load", "read_options"]

# A fixed draw, the same for every run, so that differences between runs are of the same texts.
_SCORED_SEED: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageOptions:
    """Settings of a workload of next tokens.

    Layers below `frozen_layers` get no adapter; with `cached` what they make of a text is computed
    once. Texts are cut to `tokens`. At most `scored` are scored, 0 for all of them.
    """

    model: str = "gpt2"
    dtype: str = "float32"
    tokens: int = 64
    frozen_layers: int = 0
    cached: bool = True
    scored: int = 2000

    def __post_init__(self) -> None:
        if self.dtype not in ("bfloat16", "float32"):
            raise ValueError(f"workload.dtype is bfloat16 or float32, not {self.dtype!r}")
        if self.tokens < 1 or self.frozen_layers < 0 or self.scored < 0:
            raise ValueError("workload.tokens is at least 1, frozen_layers and scored at least 0")

    @property
    def skipped(self) -> int:
        """How many layers are computed once."""
        return self.frozen_layers if self.cached else 0


def read_options(options: Mapping[str, JsonValue]) -> LanguageOptions:
    """Raises ValueError."""
    return read_fields(LanguageOptions, options, "workload")


def load(options: LanguageOptions, sources: Sources) -> Workload:
    """The score is the share of tokens that are told right; padding does not count."""
    if sources.data is None:
        raise FileNotFoundError("Reddit's texts are not on a hub: give a folder with --data")
    table = read_user_texts(sources.data)
    held_out = np.random.default_rng(_SCORED_SEED).permutation(np.flatnonzero(table.held_out))
    rows = {
        "train": np.flatnonzero(~table.held_out),
        "held_out": np.sort(held_out[: options.scored or None]),
    }
    tokenizer = load_tokenizer(options.model)
    texts = {name: [table.texts[row] for row in some.tolist()] for name, some in rows.items()}
    tokens = {name: NextTokens(some, tokenizer, options.tokens) for name, some in texts.items()}
    model = _load(options) if options.skipped else None
    made, collate = _examples(tokens, cast("int", tokenizer.pad_token_id), model, options, sources)
    return Workload(
        name="Reddit",
        train=made["train"],
        held_out=made["held_out"],
        content_sha256=content_sha256(
            {name: some.identity() for name, some in tokens.items()}, model
        ),
        owners=_owners(table, rows["train"], tokens["train"]),
        build=partial(_build, options),
        base_model_name=base_model_name(options.model, options.dtype),
        collate=collate,
        facts={
            "data": "Reddit",
            "model": options.model,
            "dtype": options.dtype,
            "tokens": options.tokens,
            "layers_without_adapter": options.frozen_layers,
            "layers_computed_once": options.skipped,
            "score": "token accuracy",
            **{f"{name}_rows": len(some) for name, some in tokens.items()},
        },
    )


def _owners(table: UserTexts, rows: NDArray[np.int64], tokens: NextTokens) -> NDArray[np.int64]:
    return table.owners[rows[tokens.kept]]


def _examples(
    tokens: Mapping[str, NextTokens],
    pad_id: int,
    model: LanguageModel | None,
    options: LanguageOptions,
    sources: Sources,
) -> tuple[Mapping[str, Dataset[Any]], Collate]:
    if model is None:
        return tokens, PadNextTokens(inputs=PadBatch(pad_id=pad_id))
    stored = {
        name: StoredNextTokens(
            states=cached_states(
                model, some.inputs(), layers=options.skipped, pad_id=pad_id, folder=sources.cache
            ),
            tokens=some,
        )
        for name, some in tokens.items()
    }
    return stored, PadNextTokens(inputs=PadStates())


def _load(options: LanguageOptions) -> LanguageModel:
    return load_language_model(options.model, dtype=cast("DtypeName", options.dtype))


def _build(options: LanguageOptions, shape: AdapterShape, seed: int) -> PeftModel:
    model = _load(options)
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
