"""What an operator's machine makes of a model, so that servers need no torch: a task's tensors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from client_sdk.peft_trainer import (
    adapter_layout,
    adapter_weights,
    base_model_sha256,
    peft_config_json,
)
from flasc_core.layout import AdapterLayout
from flasc_sim.cached_prefix import layers_above
from flasc_sim.models import (
    DtypeName,
    load_text_classifier,
    measured_dtype,
    with_lora,
)

__all__ = ["Blueprint", "base_model_name", "draw_blueprint", "split_base_model_name"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Blueprint:
    """`weights` is the initial adapter, float32 of shape (layout.dim,)."""

    base_model_name: str
    base_model_sha256: bytes
    layout: AdapterLayout
    weights: NDArray[np.float32]
    peft_config_json: str


def draw_blueprint(
    model: str,
    num_labels: int,
    *,
    rank: int,
    alpha: int,
    target_modules: list[str] | None = None,
    layers_without_adapter: int = 0,
    dropout: float = 0.0,
    dtype: DtypeName = "auto",
    seed: int = 0,
) -> Blueprint:
    """Load the model, put the adapter on it, and read off what the service must know.

    The lowest `layers_without_adapter` layers get none. Raises ValueError where no layer is left.
    """
    chosen = measured_dtype() if dtype == "auto" else dtype
    classifier = load_text_classifier(model, num_labels, dtype=chosen, seed=seed)
    # None is all of them, and what is beside them.
    without = layers_without_adapter
    layers = layers_above(classifier.encoder, without) if without else None
    adapted = with_lora(
        classifier,
        rank=rank,
        alpha=alpha,
        target_modules=target_modules,
        layers=layers,
        dropout=dropout,
        seed=seed,
    )
    return Blueprint(
        base_model_name=base_model_name(model, chosen),
        base_model_sha256=base_model_sha256(adapted),
        layout=adapter_layout(adapted),
        weights=adapter_weights(adapted),
        peft_config_json=peft_config_json(adapted),
    )


def base_model_name(model: str, dtype: str) -> str:
    """Name what devices must load: the dtype is a part of the model's identity."""
    return f"{model}@{dtype}"


def split_base_model_name(name: str) -> tuple[str, DtypeName]:
    """Undo `base_model_name`; a name without a dtype leaves it to be measured."""
    model, _, dtype = name.rpartition("@")
    match dtype:
        case "bfloat16" | "float32" if model:
            return model, dtype
        case _:
            return name, "auto"
