"""Frozen lower layers computed once per text, for encoders of BERT's shape.

Layers below the adapter never change, so what they make of a text never does either. Training on
their stored output is training of the whole model, at the cost of the layers above alone; only the
rounding of sums may differ, with the texts that share a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset

from flasc_sim.datasets.tokens import PadBatch, TokenisedTexts
from flasc_sim.models import TextClassifier

__all__ = ["PadStates", "StoredStates", "skip_layers", "store_states"]

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


def store_states(
    model: TextClassifier, texts: TokenisedTexts, *, layers: int, pad_id: int
) -> StoredStates:
    """Return what the first `layers` layers of the encoder make of every text."""
    pad = PadBatch(pad_id=pad_id)
    states: list[Tensor] = []
    lengths: list[int] = []
    labels: list[int] = []
    for first in range(0, len(texts), _BATCH):
        batch = pad([texts[row] for row in range(first, min(first + _BATCH, len(texts)))])
        mask = batch["attention_mask"]
        with torch.inference_mode():
            output = cast("Any", model.encoder)(
                input_ids=batch["input_ids"], attention_mask=mask, output_hidden_states=True
            )
        reached = output.hidden_states[layers]
        states.append(reached[mask.to(torch.bool)])
        lengths += mask.sum(dim=1).tolist()
        labels += batch["labels"].tolist()
    return StoredStates.of(torch.cat(states), lengths, labels)


def skip_layers(model: TextClassifier, *, layers: int) -> None:
    """Make `model` take the states that `store_states` gave, in place of token ids.

    Layers keep their numbers, so that an adapter on the others has the names it has on the whole.
    """
    encoder = cast("Any", model.encoder)
    encoder.embeddings = _PassStates()
    for number in range(layers):
        encoder.encoder.layer[number] = _PassStates()


class _PassStates(nn.Module):
    """Stands for embeddings, which are called by name, and for a layer, which is not."""

    def forward(self, input_ids: Tensor, *_: object, **__: object) -> Tensor:
        return input_ids
