"""Texts as tokens: made once, padded batch by batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from flasc_sim.datasets.examples import Examples

__all__ = ["MAX_TOKENS", "PadBatch", "TokenisedTexts"]

MAX_TOKENS = 24


class TokenisedTexts(Dataset[tuple[list[int], int]]):
    """Examples as (token ids, label), cut to `max_tokens`."""

    def __init__(
        self,
        examples: Examples,
        tokenizer: PreTrainedTokenizerBase,
        max_tokens: int = MAX_TOKENS,
    ) -> None:
        encoded = tokenizer(list(examples.texts), truncation=True, max_length=max_tokens)
        self._token_ids: list[list[int]] = encoded["input_ids"]
        self._labels = examples.labels

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[list[int], int]:
        return self._token_ids[index], self._labels[index]


@dataclass(frozen=True, slots=True, kw_only=True)
class PadBatch:
    """A collate function that pads to the longest example of the batch.

    Returns int64 tensors: input_ids and attention_mask (batch, tokens), labels (batch,).
    """

    pad_id: int

    def __call__(self, examples: Sequence[tuple[list[int], int]]) -> dict[str, Tensor]:
        width = max(len(tokens) for tokens, _ in examples)
        padded = [tokens + [self.pad_id] * (width - len(tokens)) for tokens, _ in examples]
        present = [[1] * len(tokens) + [0] * (width - len(tokens)) for tokens, _ in examples]
        return {
            "input_ids": torch.tensor(padded),
            "attention_mask": torch.tensor(present),
            "labels": torch.tensor([label for _, label in examples]),
        }
