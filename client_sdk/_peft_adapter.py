"""A PEFT model's adapter as one vector, its layout and configuration, and the model under it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel
from torch import nn

from flasc_core.layout import AdapterLayout, Role, TensorSpec

__all__ = [
    "adapter_layout",
    "adapter_weights",
    "base_model_sha256",
    "load_adapter_weights",
    "peft_config_json",
    "read_vector",
    "trainable_parameters",
    "write_vector",
]


def adapter_layout(model: nn.Module) -> AdapterLayout:
    """Return the trainable tensors in named_parameters() order; what is not LoRA's A or B is HEAD.

    ValueError for a model that trains nothing, or anything that is not float32.
    """
    return AdapterLayout(
        tensors=tuple(
            TensorSpec(name=name, shape=tuple(parameter.shape), role=_role(name))
            for name, parameter in trainable_parameters(model).items()
        )
    )


def adapter_weights(model: nn.Module) -> NDArray[np.float32]:
    """Return a copy of the trainable tensors as one vector in the layout's order."""
    return read_vector(trainable_parameters(model).values())


def load_adapter_weights(model: nn.Module, vector: NDArray[np.float32]) -> None:
    """Write `vector` into the model's trainable tensors; ValueError for another size."""
    write_vector(trainable_parameters(model).values(), vector)


def read_vector(parameters: Iterable[nn.Parameter]) -> NDArray[np.float32]:
    tensors = [parameter.detach().reshape(-1) for parameter in parameters]
    return cast("NDArray[np.float32]", torch.cat(tensors).cpu().numpy())


def write_vector(parameters: Collection[nn.Parameter], vector: NDArray[np.float32]) -> None:
    """ValueError for a vector of another size."""
    size = sum(parameter.numel() for parameter in parameters)
    if vector.shape != (size,):
        raise ValueError(f"the vector has shape {vector.shape}, the adapter ({size},)")
    # A copy, since torch has no tensors that only read.
    values = torch.tensor(vector, dtype=torch.float32)
    start = 0
    with torch.no_grad():
        for parameter in parameters:
            end = start + parameter.numel()
            parameter.copy_(values[start:end].reshape(parameter.shape))
            start = end


def base_model_sha256(model: PeftModel) -> bytes:
    """Return the digest of the frozen model under the adapter, whatever PEFT wraps around it.

    SHA-256 over "NAME DTYPE AXISxAXIS\\n" and the little-endian bytes of each frozen parameter and
    persistent buffer, in the order of names, and names are the base model's own. What trains is not
    part of it, and neither are the originals that `modules_to_save` replaces: those start random
    and are never used.
    """
    trained = {_base_name(name) for name, p in model.named_parameters() if p.requires_grad}
    frozen = {
        _base_name(name): tensor
        for name, tensor in model.state_dict().items()
        if not _is_of_adapter(name)
    }
    digest = hashlib.sha256()
    for name in sorted(frozen.keys() - trained):
        tensor = frozen[name].detach().cpu().contiguous()
        shape = "x".join(map(str, tensor.shape))
        dtype = str(tensor.dtype).removeprefix("torch.")
        digest.update(f"{name} {dtype} {shape}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.digest()


def peft_config_json(model: PeftModel) -> str:
    """Return the active adapter's adapter_config.json as PEFT reads it, with sorted keys.

    A base model that was loaded from a folder is named by the folder's last part: paths of one
    machine mean nothing to another.
    """
    config = model.peft_config[model.active_adapter].to_dict()
    base = config.get("base_model_name_or_path")
    if base and Path(base).is_absolute():
        config["base_model_name_or_path"] = Path(base).name
    return json.dumps(config, indent=2, sort_keys=True, default=_plain)


def _plain(value: object) -> object:
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"a PEFT configuration holds a {type(value).__name__}")


def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not named:
        raise ValueError("the model trains nothing; was it loaded with is_trainable=True?")
    for name, parameter in named.items():
        if parameter.dtype != torch.float32:
            # A coordinate that training leaves alone would come back rounded, not unchanged.
            raise ValueError(f"{name!r} is {parameter.dtype}; cast what trains to float32")
    return named


def _role(name: str) -> Role:
    parts = name.split(".")
    if "lora_A" in parts or "lora_embedding_A" in parts:
        return Role.LORA_A
    if "lora_B" in parts or "lora_embedding_B" in parts:
        return Role.LORA_B
    return Role.HEAD


def _is_of_adapter(name: str) -> bool:
    parts = name.split(".")
    return any(
        part.startswith("lora_") or part in ("modules_to_save", "original_module") for part in parts
    )


def _base_name(name: str) -> str:
    return name.removeprefix("base_model.model.").replace(".base_layer.", ".")
