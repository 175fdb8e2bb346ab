"""What frozen layers make of texts, kept on disk by what it was computed from."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Final, cast

import numpy as np
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import from_numpy

from client_sdk.peft_trainer import base_model_sha256
from flasc_sim.cached_prefix import StoredStates, store_states
from flasc_sim.datasets.tokens import TokenisedTexts
from flasc_sim.models import TextClassifier

__all__ = ["cached_states"]

# A part of the key: a change of how states are computed or kept makes it another.
_FORMAT: Final = "stored states 1"


def cached_states(
    model: TextClassifier,
    texts: TokenisedTexts,
    *,
    layers: int,
    pad_id: int,
    folder: Path | None,
) -> StoredStates:
    """Return `store_states`, read from `folder` where it has been computed before."""
    if folder is None:
        return store_states(model, texts, layers=layers, pad_id=pad_id)
    file = folder / f"states-{_key(model, texts, layers)}.safetensors"
    if file.exists():
        return _read(file)
    states = store_states(model, texts, layers=layers, pad_id=pad_id)
    folder.mkdir(parents=True, exist_ok=True)
    # Another process may be computing the same: whoever is last replaces equal bytes.
    unfinished = file.with_suffix(f".{os.getpid()}")
    save_file(
        {
            "values": states.values,
            "lengths": from_numpy(states.lengths),
            "labels": from_numpy(states.labels),
        },
        unfinished,
    )
    unfinished.replace(file)
    return states


def _read(file: Path) -> StoredStates:
    stored = load_file(file)
    return StoredStates.of(stored["values"], stored["lengths"].numpy(), stored["labels"].numpy())


def _key(model: TextClassifier, texts: TokenisedTexts, layers: int) -> str:
    digest = hashlib.sha256(f"{_FORMAT}\n{layers}\n{len(texts)}\n".encode())
    # It only looks at what is frozen, whether an adapter is on it or not.
    digest.update(base_model_sha256(cast("PeftModel", model)))
    for row in range(len(texts)):
        tokens, label = texts[row]
        digest.update(np.array([label, len(tokens), *tokens], dtype="<i8").tobytes())
    return digest.hexdigest()[:32]
