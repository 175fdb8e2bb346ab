"""What frozen layers make of examples, kept on disk by what it was computed from."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from tempfile import mkstemp
from typing import Final, cast

import numpy as np
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor, from_numpy, nn
from torch.utils.data import TensorDataset

from client_sdk.peft_trainer import base_model_sha256
from flasc_sim.cached_prefix import StoredStates, Texts, store_image_states, store_states
from flasc_sim.datasets.images import DecodedImages
from flasc_sim.numerics import Numerics

__all__ = ["cached_image_states", "cached_states", "content_sha256", "token_rows"]

# A part of the key: a change of how states are computed or kept makes it another.
_FORMAT: Final = "stored states 2"


def cached_states(
    model: nn.Module, texts: Texts, *, layers: int, pad_id: int, folder: Path | None
) -> StoredStates:
    """Return `store_states`, read from `folder` where it has been computed before."""

    def compute() -> dict[str, Tensor]:
        states = store_states(model, texts, layers=layers, pad_id=pad_id)
        lengths, labels = from_numpy(states.lengths), from_numpy(states.labels)
        return {"values": states.values, "lengths": lengths, "labels": labels}

    stored = _kept(folder, _key(model, layers, token_rows(texts)), compute)
    return StoredStates.of(stored["values"], stored["lengths"].numpy(), stored["labels"].numpy())


def cached_image_states(
    model: nn.Module, images: DecodedImages, *, layers: int, folder: Path | None
) -> TensorDataset:
    """Return `store_image_states`, read from `folder` where it has been computed before."""

    def compute() -> dict[str, Tensor]:
        states, labels = store_image_states(model, images, layers=layers).tensors
        return {"states": states, "labels": labels}

    stored = _kept(folder, _key(model, layers, images.identity()), compute)
    return TensorDataset(stored["states"], stored["labels"])


def token_rows(texts: Texts) -> Iterator[bytes]:
    """Yield each text's label and tokens as bytes."""
    for row in range(len(texts)):
        tokens, label = texts[row]
        yield np.array([label, len(tokens), *tokens], dtype="<i8").tobytes()


def content_sha256(parts: Mapping[str, Iterable[bytes]], computed_by: nn.Module | None) -> str:
    """Return a digest of what trains and scores: of rows by part, each as bytes.

    `computed_by` is the whole model where some of its layers are computed once: what a workload
    builds then lacks them.
    """
    digest = hashlib.sha256()
    if computed_by is not None:
        digest.update(base_model_sha256(cast("PeftModel", computed_by)))
    for name, rows in parts.items():
        digest.update(name.encode())
        for row in rows:
            # Of each alone first, so that where one ends is a part of it.
            digest.update(hashlib.sha256(row).digest())
    return digest.hexdigest()


def _kept(
    folder: Path | None, key: str, compute: Callable[[], dict[str, Tensor]]
) -> dict[str, Tensor]:
    if folder is None:
        return compute()
    file = folder / f"states-{key}.safetensors"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        computed = compute()
        # Another process may be computing the same: whoever is last replaces equal bytes.
        descriptor, unfinished = mkstemp(dir=folder, prefix=f"{file.stem}.")
        os.close(descriptor)
        save_file(computed, unfinished)
        Path(unfinished).replace(file)
    return load_file(file)


def _key(model: nn.Module, layers: int, examples: Iterable[bytes]) -> str:
    # What they are computed on decides their last bits: models are not on a GPU yet.
    digest = hashlib.sha256(f"{_FORMAT}\n{layers}\n{Numerics.of('cpu')}\n".encode())
    # It only looks at what is frozen, whether an adapter is on it or not.
    digest.update(base_model_sha256(cast("PeftModel", model)))
    for example in examples:
        digest.update(hashlib.sha256(example).digest())
    return digest.hexdigest()[:32]
