"""Texts whose every token but the first is to be told from those before it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from flasc_sim.cached_prefix import PadStates, StoredStates
from flasc_sim.datasets.tokens import PadBatch

__all__ = ["NextTokens", "PadNextTokens", "StoredNextTokens"]

# What neither a loss nor a score counts.
_IGNORED: Final = -100


class NextTokens(Dataset[tuple[list[int], list[int]]]):
    """Examples as (token ids, the id after each), cut to `max_tokens`; one token is no example."""

    def __init__(
        self, texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_tokens: int
    ) -> None:
        encoded = tokenizer(list(texts), truncation=True, max_length=max_tokens + 1)
        ids: list[list[int]] = encoded["input_ids"]
        # Row numbers of the texts that are long enough.
        self.kept: Final = [row for row, tokens in enumerate(ids) if len(tokens) > 1]
        self._token_ids: Final = [ids[row] for row in self.kept]

    def __len__(self) -> int:
        return len(self._token_ids)

    def __getitem__(self, index: int) -> tuple[list[int], list[int]]:
        tokens = self._token_ids[index]
        return tokens[:-1], tokens[1:]

    def inputs(self) -> list[tuple[list[int], int]]:
        """Return token ids as `store_states` takes them, beside a label that says nothing."""
        return [(tokens[:-1], 0) for tokens in self._token_ids]

    def identity(self) -> Iterator[bytes]:
        """Yield what tells these rows from any others, their last tokens too."""
        for tokens in self._token_ids:
            yield np.array(tokens, dtype="<i8").tobytes()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StoredNextTokens(Dataset[tuple[Tensor, list[int]]]):
    """Examples as (states, the id after each token)."""

    states: StoredStates
    tokens: NextTokens

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int) -> tuple[Tensor, list[int]]:
        return self.states[index][0], self.tokens[index][1]


@dataclass(frozen=True, slots=True, kw_only=True)
class PadNextTokens:
    """A collate function that pads inputs as `inputs` does, and labels with what does not count."""

    inputs: PadBatch | PadStates

    def __call__(
        self, examples: Sequence[tuple[Tensor | list[int], list[int]]]
    ) -> dict[str, Tensor]:
        # Typed by which of the two data sets the examples are of.
        batch = self.inputs([(given, 0) for given, _ in examples])  # type: ignore[misc]
        labels = [torch.tensor(following) for _, following in examples]
        padded = nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=_IGNORED)
        return {**batch, "labels": padded}
