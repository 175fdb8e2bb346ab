"""A text classifier of a few hundred weights in the Hugging Face manner, and examples for it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from torch.utils.data import Dataset

from client_sdk.peft_trainer import adapter_layout

__all__ = ["Examples", "TinyClassifier", "a_base_model", "a_peft_model", "start_of"]

CLASSES = 3


@dataclass
class Output:
    loss: Tensor | None
    logits: Tensor


class TinyClassifier(nn.Module):
    """Mean of token vectors, one hidden layer with dropout, one linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 8)
        self.hidden = nn.Linear(8, 8)
        self.dropout = nn.Dropout(0.5)
        self.register_buffer("scale", torch.tensor(1.5))
        self.classifier = nn.Linear(8, CLASSES)

    def forward(self, input_ids: Tensor, labels: Tensor | None = None) -> Output:
        pooled = self.embed(input_ids).mean(dim=1) * self.scale
        logits = self.classifier(self.dropout(torch.tanh(self.hidden(pooled))))
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return Output(loss=loss, logits=logits)


def a_base_model(seed: int = 0) -> TinyClassifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return TinyClassifier().eval()


def a_peft_model(
    base: TinyClassifier | None = None, *, rank: int = 2, dropout: float = 0.0, seed: int = 1
) -> PeftModel:
    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        lora_dropout=dropout,
        target_modules=["hidden"],
        modules_to_save=["classifier"],
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return get_peft_model(base or a_base_model(), config)


def start_of(model: nn.Module) -> NDArray[np.float32]:
    """Random everywhere, so that LoRA's B passes gradients on."""
    return np.random.default_rng(3).normal(0, 0.3, adapter_layout(model).dim).astype(np.float32)


class Examples(Dataset[dict[str, Tensor]]):
    """`size` texts of four tokens whose label is that of their first token."""

    def __init__(self, size: int = 10, seed: int = 2) -> None:
        made = torch.Generator().manual_seed(seed)
        self.input_ids = torch.randint(20, (size, 4), generator=made)
        self.labels = self.input_ids[:, 0] % CLASSES

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"input_ids": self.input_ids[index], "labels": self.labels[index]}
