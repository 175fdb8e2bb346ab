"""Pretrained image encoders under a linear head: ViT from a hub, MobileNet from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, cast

import torch
from torch import Tensor, nn

from client_sdk.peft_trainer import Batch
from flasc_sim.mobilenet import MobileNet, load_mobilenet
from flasc_sim.models import ClassifierOutput, DtypeName, linear_maps, load_encoder

__all__ = [
    "ImageClassifier",
    "count_micro_f1",
    "image_targets",
    "load_image_classifier",
    "predict_classes",
]

_DTYPES: Final = {"bfloat16": torch.bfloat16, "float32": torch.float32}
# Query and value, as older and newer releases of transformers call them.
_ATTENTION: Final = frozenset({"query", "value", "q_proj", "v_proj"})


class ImageClassifier(nn.Module):
    """The first of the encoder's last states, then one linear map in float32.

    Labels of shape (batch, classes) say for each class whether the image is of it; the loss is
    then the mean binary cross-entropy, otherwise the mean cross-entropy.
    """

    def __init__(self, encoder: nn.Module, hidden_size: int, num_labels: int, name: str) -> None:
        super().__init__()
        self.encoder = encoder
        self.classifier = nn.Linear(hidden_size, num_labels)
        self.name_or_path = name

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> ClassifierOutput:
        dtype = next(self.encoder.parameters()).dtype
        states = self.encoder(pixel_values=pixel_values.to(dtype)).last_hidden_state
        logits = self.classifier(states[:, 0].to(torch.float32))
        return ClassifierOutput(
            logits=logits, loss=None if labels is None else _loss(logits, labels)
        )


def load_image_classifier(
    name: str, num_labels: int, *, dtype: DtypeName, weights: Path | None = None, seed: int = 0
) -> ImageClassifier:
    """Load a frozen encoder under a fresh head drawn from `seed`.

    `weights` is the safetensors file of "mobilenet-v1"; any other name is a folder's or a hub's.
    Raises OSError and ValueError.
    """
    if name != "mobilenet-v1":
        encoder = load_encoder(name, dtype=dtype)
    elif weights is None:
        raise FileNotFoundError("mobilenet-v1 needs a file of weights: give it with --weights")
    else:
        encoder = load_mobilenet(weights, _DTYPES[dtype])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        width = cast("Any", encoder).config.hidden_size
        return ImageClassifier(encoder, width, num_labels, name).eval()


def image_targets(encoder: nn.Module) -> list[str]:
    """What gets LoRA by default: attention's query and value maps, or MobileNet's 1x1 convolutions.

    ValueError for an encoder that has neither.
    """
    if isinstance(encoder, MobileNet):
        return ["pw.conv"]
    found = sorted(_ATTENTION & linear_maps(encoder).keys())
    if len(found) != 2:
        raise ValueError(f"no query and value maps among {', '.join(sorted(linear_maps(encoder)))}")
    return found


def predict_classes(model: nn.Module, batch: Batch) -> Tensor:
    """Say for each class whether its chance is above a half, as 0 or 1: (batch, classes)."""
    logits: Tensor = model(**batch).logits
    return (logits > 0).to(torch.int64)


def count_micro_f1(predicted: Tensor, labels: Tensor) -> tuple[int, int]:
    """Return 2 TP and 2 TP + FP + FN over all classes: their sums' ratio is micro-averaged F1."""
    twice_hits = 2 * int((predicted * labels).sum())
    return twice_hits, twice_hits + int((predicted != labels).sum())


def _loss(logits: Tensor, labels: Tensor) -> Tensor:
    if labels.ndim == 2:
        return nn.functional.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))
    return nn.functional.cross_entropy(logits, labels)
