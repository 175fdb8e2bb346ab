"""An adapter version as files that PEFT loads, made from values alone and the same every time."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum, unique
from hashlib import sha256
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from aggregator_service.domain.adapters import Adapter
from aggregator_service.domain.downloads import Masters, device_weights
from aggregator_service.domain.tasks import Task
from flasc_core.layout import AdapterLayout

__all__ = ["Export", "WeightsKind", "peft_name", "peft_tensors"]

# PEFT's own names inside an adapter folder.
_CONFIG: Final = "adapter_config.json"
_TENSORS: Final = "adapter_model.safetensors"
_CARD: Final = "README.md"
# The adapter's name, last in a parameter's name or last but one: lora_A.default.weight.
_ADAPTER_NAME: Final = re.compile(r"\.default(?=(\.[^.]+)?$)")
# The earliest time that a zip can name: archives of the same files are the same bytes.
_NO_TIME: Final = (1980, 1, 1, 0, 0, 0)


@unique
class WeightsKind(StrEnum):
    """Which of an adapter's two sets of weights."""

    # The decoded download: what devices run and score.
    MASKED = "masked"
    # P: every weight that the server keeps. What training goes on from.
    MASTER = "master"


_MEANING: Final[Mapping[WeightsKind, str]] = MappingProxyType(
    {
        WeightsKind.MASKED: (
            "masked: the master weights under the method's download mask as they are sent, and "
            "elsewhere zero, or the initial adapter where devices draw one. These are the weights "
            "that devices run, of the tier that downloads most where there are several, and that "
            "reported accuracies belong to."
        ),
        WeightsKind.MASTER: (
            "master: all weights that the server keeps. Devices never ran these as they are; "
            "reported accuracies belong to the masked weights."
        ),
    }
)


def peft_name(tensor: str) -> str:
    """The name under which PEFT saves what `named_parameters()` calls `tensor`."""
    return _ADAPTER_NAME.sub("", tensor.replace("modules_to_save.default.", ""))


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """One adapter version of a task."""

    task: Task
    adapter: Adapter
    masters: Masters

    def weights(self, kind: WeightsKind) -> NDArray[np.float32]:
        """Shape (dim,), in layout order."""
        if kind is WeightsKind.MASTER:
            return self.masters.weights
        return device_weights(self.task.config, self.masters)

    def safetensors(self, kind: WeightsKind) -> bytes:
        return peft_tensors(self.task.config.layout, self.weights(kind))

    def peft_zip(self, kind: WeightsKind) -> bytes:
        """The content of a folder for `PeftModel.from_pretrained`, and a card that explains it."""
        tensors = self.safetensors(kind)
        files = {
            _CARD: self._card(kind, tensors).encode(),
            _CONFIG: self.task.config.peft_config_json.encode(),
            _TENSORS: tensors,
        }
        return _zip(files)

    def _card(self, kind: WeightsKind, tensors: bytes) -> str:
        task, adapter = self.task, self.adapter
        base = task.config.base_model
        return (
            f"# {task.name}, version {adapter.version}\n\n"
            f"A LoRA adapter from federated fine-tuning, for `PeftModel.from_pretrained`.\n\n"
            f"Weights: {_MEANING[kind]}\n\n"
            f"| | |\n|---|---|\n"
            f"| task | `{task.name}` (`{task.id}`) |\n"
            f"| version | {adapter.version}, the mean of {adapter.divisor} updates |\n"
            f"| weights | {kind} |\n"
            f"| values under the mask | {adapter.mask_nnz} of {task.config.layout.dim} |\n"
            f"| layout fingerprint | `{task.config.layout.fingerprint.hex()}` |\n"
            f"| base model | {base.name} |\n"
            f"| base model SHA-256, over its frozen tensors | `{base.sha256.hex()}` |\n"
            f"| SHA-256 of `{_TENSORS}` | `{sha256(tensors).hexdigest()}` |\n"
        )


def peft_tensors(layout: AdapterLayout, weights: NDArray[np.float32]) -> bytes:
    """Encode a vector as the safetensors file of a PEFT folder."""
    # One entry of metadata at most: the format keeps them in no particular order.
    return save(
        {
            peft_name(name): np.ascontiguousarray(tensor)
            for name, tensor in layout.split(weights).items()
        },
        metadata={"format": "pt"},
    )


def _zip(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name, date_time=_NO_TIME)
            # Readable by everyone, written the same on every system.
            entry.external_attr = 0o644 << 16
            entry.create_system = 3
            archive.writestr(entry, data)
    return buffer.getvalue()
