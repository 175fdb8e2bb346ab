"""Untrained encoders of a few thousand weights, saved as pretrained ones are."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
import transformers
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn

from flasc_sim.mobilenet import MobileNet

__all__ = ["GPT2", "VIT", "a_mobilenet", "a_mobilenet_file", "an_encoder", "save_encoder"]

GPT2 = transformers.GPT2Config(n_embd=16, n_layer=3, n_head=2, vocab_size=12, n_positions=16)
VIT = transformers.ViTConfig(
    hidden_size=16,
    num_hidden_layers=3,
    num_attention_heads=2,
    intermediate_size=32,
    image_size=16,
    patch_size=8,
)


def an_encoder(config: transformers.PretrainedConfig) -> nn.Module:
    torch.manual_seed(3)
    encoder = cast("Any", transformers.AutoModel).from_config(config)
    encoder.pooler = None
    frozen: nn.Module = encoder.requires_grad_(False).eval()
    return frozen


def save_encoder(config: transformers.PretrainedConfig, folder: Path) -> Path:
    """Write weights, and a tokenizer whose words are the digits."""
    torch.manual_seed(3)
    cast("Any", transformers.AutoModel).from_config(config).save_pretrained(folder)
    words = {str(digit): digit for digit in range(10)} | {"<end>": 10, "<unknown>": 11}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unknown>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    cast("Any", transformers.PreTrainedTokenizerFast)(
        tokenizer_object=tokenizer, eos_token="<end>"
    ).save_pretrained(folder)
    return folder


def a_mobilenet() -> MobileNet:
    torch.manual_seed(3)
    model = MobileNet((4,) * 13 + (6,))
    for module in model.modules():
        # Otherwise 27 convolutions leave nothing of an image.
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.bias, 0.5)
    return model.requires_grad_(False).eval()


def a_mobilenet_file(file: Path) -> dict[str, Tensor]:
    """As published: other names than the module's, and a head that is not wanted."""
    tensors = {}
    for name, tensor in a_mobilenet().state_dict().items():
        parts = name.split(".")
        published = (
            ["conv1", *parts[1:]] if parts[0] == "stem" else [parts[2], parts[1], *parts[3:]]
        )
        tensors[".".join(published)] = tensor
    save_file({**tensors, "head.weight": torch.zeros(10, 6), "head.bias": torch.zeros(10)}, file)
    return tensors
