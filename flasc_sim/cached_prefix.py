"""Frozen lower layers computed once per example: of BERT, GPT-2, ViT and MobileNet.

Layers below the adapter never change, so what they make of an input never does. Training on
their stored output is training of the whole model, at the cost of the layers above alone; only the
rounding of sums may differ, with the examples that share a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Protocol, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from flasc_sim.datasets.images import collate_images
from flasc_sim.datasets.tokens import PadBatch

__all__ = [
    "PadStates",
    "StoredStates",
    "Texts",
    "layers_above",
    "layers_of",
    "skip_layers",
    "states_before",
    "store_image_states",
    "store_states",
]

_BATCH: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StoredStates(Dataset[tuple[Tensor, int]]):
    """Examples as (states, label); states are (tokens, width) in the encoder's dtype.

    `values` holds the states of all texts, one after another, shape (all tokens, width): row i has
    `lengths[i]` of them from `starts[i]` on. Subsets share it.
    """

    values: Tensor
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    labels: NDArray[np.int64]

    @classmethod
    def of(cls, values: Tensor, lengths: ArrayLike, labels: ArrayLike) -> StoredStates:
        """Take states in the order of their rows."""
        counts = np.asarray(lengths, dtype=np.int64)
        return cls(
            values=values,
            starts=np.cumsum(counts) - counts,
            lengths=counts,
            labels=np.asarray(labels, dtype=np.int64),
        )

    def __len__(self) -> int:
        return self.labels.size

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        start = int(self.starts[index])
        return self.values[start : start + int(self.lengths[index])], int(self.labels[index])

    def subset(self, rows: Sequence[int] | NDArray[np.int64]) -> StoredStates:
        chosen = np.asarray(rows, dtype=np.int64)
        return StoredStates(
            values=self.values,
            starts=self.starts[chosen],
            lengths=self.lengths[chosen],
            labels=self.labels[chosen],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PadStates:
    """A collate function that pads with zeros to the longest example of the batch.

    Its keys are those of a token batch: a model under `skip_layers` takes states for tokens.
    """

    def __call__(self, examples: Sequence[tuple[Tensor, int]]) -> dict[str, Tensor]:
        sequences = [states for states, _ in examples]
        lengths = torch.tensor([len(states) for states in sequences])
        padded = nn.utils.rnn.pad_sequence(sequences, batch_first=True)
        present = torch.arange(padded.shape[1]) < lengths.unsqueeze(1)
        return {
            "input_ids": padded,
            "attention_mask": present.to(torch.int64),
            "labels": torch.tensor([label for _, label in examples]),
        }


class Texts(Protocol):
    """Token ids and a label by row, as `TokenisedTexts` has them."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple[list[int], int]: ...


def store_states(model: nn.Module, texts: Texts, *, layers: int, pad_id: int) -> StoredStates:
    """Return what the first `layers` layers of `model.encoder` make of every text."""
    encoder = cast("nn.Module", model.encoder)
    pad = PadBatch(pad_id=pad_id)
    states: list[Tensor] = []
    lengths: list[int] = []
    labels: list[int] = []
    for first in range(0, len(texts), _BATCH):
        batch = pad([texts[row] for row in range(first, min(first + _BATCH, len(texts)))])
        mask = batch["attention_mask"]
        reached = states_before(encoder, layers, input_ids=batch["input_ids"], attention_mask=mask)
        states.append(reached[mask.to(torch.bool)])
        lengths += mask.sum(dim=1).tolist()
        labels += batch["labels"].tolist()
    return StoredStates.of(torch.cat(states), lengths, labels)


def store_image_states(
    model: nn.Module, images: Dataset[tuple[Tensor, ...]], *, layers: int
) -> TensorDataset:
    """Return (states, label) for every image, states as the first `layers` layers leave them."""
    encoder = cast("nn.Module", model.encoder)
    dtype = next(encoder.parameters()).dtype
    states: list[Tensor] = []
    labels: list[Tensor] = []
    for batch in DataLoader(images, batch_size=_BATCH, collate_fn=collate_images):
        pixels = batch["pixel_values"].to(dtype)
        states.append(states_before(encoder, layers, pixel_values=pixels))
        labels.append(batch["labels"])
    return TensorDataset(torch.cat(states), torch.cat(labels))


def states_before(encoder: nn.Module, layer: int, **inputs: Tensor) -> Tensor:
    """Return what the layer with this number would take. Raises ValueError where there is none."""
    reached: list[Tensor] = []

    def note(_: nn.Module, states: tuple[Tensor, ...]) -> None:
        reached.append(states[0])

    first = layers_above(encoder, layer).start
    handle = layers_of(encoder)[first].register_forward_pre_hook(note)
    try:
        with torch.inference_mode():
            encoder(**inputs)
    finally:
        handle.remove()
    return reached[0]


def layers_of(encoder: nn.Module) -> nn.ModuleList:
    """Return the stack of equal layers, wherever the encoder keeps it."""
    return max(
        (module for module in encoder.modules() if isinstance(module, nn.ModuleList)), key=len
    )


def layers_above(encoder: nn.Module, below: int) -> range:
    """Return the numbers of the layers that are left for an adapter above the lowest `below`.

    Raises ValueError where none is: PEFT takes no layers for all of them.
    """
    count = len(layers_of(encoder))
    if not 0 <= below < count:
        raise ValueError(
            f"of the model's {count} layers, 0 to {count - 1} can be without adapter, not {below}"
        )
    return range(below, count)


def skip_layers(model: nn.Module, *, layers: int) -> None:
    """Make `model` take the states of `states_before` this layer in place of tokens or pixels.

    Layers keep their numbers, so that an adapter on the others has the names it has on the whole.
    """
    encoder = cast("nn.Module", model.encoder)
    for name, stand_in in _STAND_INS.items():
        if hasattr(encoder, name):
            setattr(encoder, name, stand_in(getattr(encoder, name)))
    stack = layers_of(encoder)
    for number in range(layers):
        stack[number] = _PassStates()


class _PassStates(nn.Module):
    """Stands for a layer, and for what comes before the first."""

    def __init__(self, replaced: nn.Module | None = None) -> None:
        super().__init__()
        patches = getattr(replaced, "patch_embeddings", None)
        if patches is not None:
            # ViT asks for their dtype.
            self.patch_embeddings = patches

    def forward(
        self, states: Tensor | None = None, *_: object, **named: Tensor | None
    ) -> Tensor | None:
        return named["inputs_embeds"] if states is None else states


class _NoPositions(nn.Module):
    """Stands for position embeddings that are a part of the states already."""

    def __init__(self, _: nn.Module) -> None:
        super().__init__()

    def forward(self, position_ids: Tensor) -> Tensor:
        return torch.zeros((), device=position_ids.device)


# What comes before the layers: of BERT and ViT, of GPT-2, of MobileNet.
_STAND_INS: Final[Mapping[str, Callable[[nn.Module], nn.Module]]] = MappingProxyType(
    {"embeddings": _PassStates, "wpe": _NoPositions, "stem": _PassStates}
)
