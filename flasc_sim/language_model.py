"""A pretrained decoder that tells the next token, with its own embeddings as output map."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from flasc_sim.models import ClassifierOutput, DtypeName, encode, load_encoder

__all__ = ["LanguageModel", "load_language_model"]


class LanguageModel(nn.Module):
    """GPT-2's arrangement: no head to train, and `labels` are the tokens that come next.

    Labels of -100, which padding and the last token have, do not count. `logits` is
    (batch, tokens, vocabulary), float32.
    """

    def __init__(self, encoder: nn.Module, name: str) -> None:
        super().__init__()
        self.encoder = encoder
        self.name_or_path = name

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None
    ) -> ClassifierOutput:
        states = encode(self.encoder, input_ids, attention_mask)
        embeddings = cast("Any", self.encoder).wte.weight
        logits = nn.functional.linear(states, embeddings).to(torch.float32)
        loss = None
        if labels is not None:
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        return ClassifierOutput(logits=logits, loss=loss)


def load_language_model(name: str, *, dtype: DtypeName) -> LanguageModel:
    """Load a frozen decoder of GPT-2's kind in evaluation mode. Raises OSError."""
    return LanguageModel(load_encoder(name, dtype=dtype), name).eval()
