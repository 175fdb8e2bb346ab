"""The decoder of docs/, which knows nothing of ours, under the limits of one that does."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Final

import numpy as np

from flasc_core.errors import Refusal
from flasc_core.sparse import SparseVector
from flasc_core.wire import DecodeLimits, decode

__all__ = ["REFERENCE", "REFERENCE_PATH", "check_agreement", "read_by_reference"]

REFERENCE_PATH: Final = Path(__file__).parents[2] / "docs" / "reference_decoder.py"


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location(REFERENCE_PATH.stem, REFERENCE_PATH)
    if spec is None or spec.loader is None:
        raise ImportError(REFERENCE_PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


REFERENCE: Final = _load()


def read_by_reference(payload: bytes, limits: DecodeLimits) -> SparseVector | None:
    """What the reference decoder reads, or None where it finds fault."""
    try:
        dim, indices, values = REFERENCE.decode(payload, limits.max_abs_value)
    except ValueError:
        return None
    if dim != limits.dim or not limits.min_nnz <= len(indices) <= limits.max_nnz:
        return None
    return SparseVector(
        dim=dim,
        indices=np.array(indices, dtype=np.int64),
        values=np.array(values, dtype=np.float32),
    )


def check_agreement(payload: bytes, limits: DecodeLimits) -> SparseVector | Refusal:
    """Return what our decoder makes of the payload; AssertionError if the other differs."""
    found: SparseVector | Refusal
    try:
        found = decode(payload, limits)
    except Refusal as refusal:
        found = refusal
    expected = read_by_reference(payload, limits)
    if expected is None:
        assert isinstance(found, Refusal), "only the reference decoder refuses"
    else:
        assert found == expected, "the reference decoder reads another vector"
    return found
