"""Image classification with a pretrained encoder: what the workloads of images have in common."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray
from peft import PeftModel
from torch.utils.data import Dataset

from flasc_core.json_value import JsonValue
from flasc_sim.blueprint import base_model_name
from flasc_sim.cached_prefix import layers_above, skip_layers
from flasc_sim.datasets.images import DecodedImages, ImageShape, LabelledImages, collate_images
from flasc_sim.fields import read_fields
from flasc_sim.image_models import (
    ImageClassifier,
    count_micro_f1,
    image_targets,
    load_image_classifier,
    predict_classes,
)
from flasc_sim.models import DtypeName, with_lora
from flasc_sim.state_cache import cached_image_states, content_sha256
from flasc_sim.workload import AdapterShape, Sources, Workload

__all__ = ["ImageOptions", "image_workload", "read_options"]

# Fixed draws, the same for every run, so that differences between runs are of the same images.
_TRAIN_SEED: Final = 0
_SCORED_SEED: Final = 1
# By channel, mean and deviation: what encoders were pretrained with, and CIFAR-10's own.
_NORMALISED: Final[Mapping[str, Callable[[int], ImageShape]]] = MappingProxyType(
    {
        "half": lambda pixels: ImageShape(pixels=pixels),
        "cifar10": lambda pixels: ImageShape(
            pixels=pixels, mean=(0.4914, 0.4822, 0.4465), deviation=(0.2023, 0.1994, 0.2010)
        ),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageOptions:
    """Settings of a workload of images, which are resized to `pixels` by `pixels`.

    Layers below `frozen_layers` get no adapter; with `cached` what they make of an image is
    computed once. Devices own `train_share` of the shuffled training rows, the rest validates;
    where the data set has a part for that, devices own all. At most `scored` rows are scored, 0 for
    all of them.
    """

    model: str = "mobilenet-v1"
    dtype: str = "bfloat16"
    pixels: int = 96
    normalised: str = "half"
    frozen_layers: int = 9
    cached: bool = True
    train_share: float = 0.8
    scored: int = 2000

    def __post_init__(self) -> None:
        if self.dtype not in ("bfloat16", "float32"):
            raise ValueError(f"workload.dtype is bfloat16 or float32, not {self.dtype!r}")
        if self.normalised not in _NORMALISED:
            known = ", ".join(_NORMALISED)
            raise ValueError(f"workload.normalised is one of {known}, not {self.normalised!r}")
        if self.pixels < 1 or self.frozen_layers < 0 or self.scored < 0:
            raise ValueError("workload.pixels is at least 1, frozen_layers and scored at least 0")
        if not 0 < self.train_share <= 1:
            raise ValueError(f"workload.train_share is in (0, 1], not {self.train_share}")

    @property
    def skipped(self) -> int:
        """How many layers are computed once."""
        return self.frozen_layers if self.cached else 0


def read_options(options: Mapping[str, JsonValue]) -> ImageOptions:
    """Raises ValueError."""
    return read_fields(ImageOptions, options, "workload")


def image_workload(table: LabelledImages, options: ImageOptions, sources: Sources) -> Workload:
    """Decode images as they are needed, or compute the frozen layers where they are cached.

    The score is accuracy; of images that may be of several classes it is micro-averaged F1.
    """
    parts = _parts(table, options)
    shape = _NORMALISED[options.normalised](options.pixels)
    images = {name: DecodedImages(table, rows, shape) for name, rows in parts.items() if rows.size}
    model = _load(options, len(table.label_names), sources, seed=0) if options.skipped else None
    made = _datasets(images, model, options, sources)
    several = table.labels.ndim == 2
    train = parts["train"]
    return Workload(
        name=table.name,
        train=made["train"],
        held_out=made["held_out"],
        content_sha256=content_sha256(
            {name: part.identity() for name, part in images.items()}, model
        ),
        validation=made.get("validation"),
        labels=None if several else table.labels[train],
        owners=None if table.owners is None else table.owners[train],
        build=partial(_build, options, len(table.label_names), sources),
        base_model_name=base_model_name(options.model, options.dtype),
        collate=collate_images,
        predict=predict_classes if several else None,
        count=count_micro_f1 if several else None,
        facts={
            "data": table.name,
            "model": options.model,
            "dtype": options.dtype,
            "pixels": options.pixels,
            "layers_without_adapter": options.frozen_layers,
            "layers_computed_once": options.skipped,
            "score": "micro-F1 at 0.5" if several else "accuracy",
            **{f"{name}_rows": int(rows.size) for name, rows in parts.items()},
        },
    )


def _parts(table: LabelledImages, options: ImageOptions) -> dict[str, NDArray[np.int64]]:
    train = np.random.default_rng(_TRAIN_SEED).permutation(table.rows_of("train"))
    validation = table.rows_of("validation")
    if not validation.size:
        train, validation = np.split(train, [int(options.train_share * train.size)])
    scored = np.random.default_rng(_SCORED_SEED)
    limit = options.scored or None
    return {
        "train": train,
        "held_out": np.sort(scored.permutation(table.rows_of("test"))[:limit]),
        "validation": np.sort(scored.permutation(validation)[:limit]),
    }


def _datasets(
    images: Mapping[str, DecodedImages],
    model: ImageClassifier | None,
    options: ImageOptions,
    sources: Sources,
) -> dict[str, Dataset[Any]]:
    if model is None:
        return dict(images)
    return {
        name: cached_image_states(model, decoded, layers=options.skipped, folder=sources.cache)
        for name, decoded in images.items()
    }


def _load(options: ImageOptions, labels: int, sources: Sources, seed: int) -> ImageClassifier:
    return load_image_classifier(
        options.model,
        labels,
        dtype=cast("DtypeName", options.dtype),
        weights=sources.weights,
        seed=seed,
    )


def _build(
    options: ImageOptions, labels: int, sources: Sources, shape: AdapterShape, seed: int
) -> PeftModel:
    model = _load(options, labels, sources, seed)
    layers = layers_above(model.encoder, options.frozen_layers)
    targets = shape.target_modules or image_targets(model.encoder)
    if options.skipped:
        skip_layers(model, layers=options.skipped)
    return with_lora(
        model,
        rank=shape.rank,
        alpha=shape.lora_alpha,
        target_modules=list(targets),
        layers=layers,
        dropout=shape.dropout,
        seed=seed,
    )
