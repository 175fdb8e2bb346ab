"""An initial adapter that somebody hands in, checked tensor by tensor."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load

from aggregator_service.app.export_adapter import peft_name
from flasc_core.errors import Reason, Refusal
from flasc_core.layout import AdapterLayout, TensorSpec

__all__ = ["read_adapter"]


def read_adapter(layout: AdapterLayout, data: bytes) -> NDArray[np.float32]:
    """The weights in layout order, shape (dim,), from a safetensors file.

    Tensors are float32 and named as in the layout, or as PEFT saves them. Refuses
    MALFORMED_MESSAGE, LAYOUT_MISMATCH and NON_FINITE, each with the tensor at fault.
    """
    try:
        tensors = load(data)
    except (SafetensorError, KeyError, ValueError) as error:
        raise Refusal(
            Reason.MALFORMED_MESSAGE, f"the adapter is no safetensors file of arrays: {error}"
        ) from None
    by_saved_name = {peft_name(spec.name): spec.name for spec in layout.tensors}
    named = {by_saved_name.get(name, name): tensor for name, tensor in tensors.items()}
    known = {spec.name for spec in layout.tensors}
    extra = sorted(named.keys() - known)
    if extra:
        raise Refusal(
            Reason.LAYOUT_MISMATCH, f"the layout has no tensor {extra[0]!r}", tensor=extra[0]
        )
    for spec in layout.tensors:
        _check(spec, named.get(spec.name))
    return layout.join(named)


def _check(spec: TensorSpec, tensor: NDArray[np.generic] | None) -> None:
    if tensor is None:
        raise Refusal(
            Reason.LAYOUT_MISMATCH, f"the adapter lacks tensor {spec.name!r}", tensor=spec.name
        )
    if tensor.dtype != np.float32 or tensor.shape != spec.shape:
        raise Refusal(
            Reason.LAYOUT_MISMATCH,
            f"tensor {spec.name!r} is {tensor.dtype} of shape {list(tensor.shape)}; the layout "
            f"wants float32 of shape {list(spec.shape)}",
            tensor=spec.name,
        )
    if not np.isfinite(tensor).all():
        raise Refusal(
            Reason.NON_FINITE,
            f"tensor {spec.name!r} holds NaN or infinite values",
            tensor=spec.name,
        )
