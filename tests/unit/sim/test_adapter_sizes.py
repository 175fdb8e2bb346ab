"""The paper's architectures, without their weights: what trains is as large as the authors' is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import peft
import pytest
import torch
import transformers
from torch import nn

from client_sdk.peft_trainer import adapter_layout
from flasc_core.layout import Role
from flasc_sim.image_models import ImageClassifier, image_targets
from flasc_sim.language_model import LanguageModel
from flasc_sim.models import TextClassifier, with_lora

RANKS = (1, 4, 16, 64)


def encoder_of(config: transformers.PretrainedConfig) -> nn.Module:
    encoder = cast("Any", transformers.AutoModel).from_config(config)
    encoder.pooler = None
    frozen: nn.Module = encoder.requires_grad_(False)
    return frozen


def a_vit(labels: int, rank: int) -> peft.PeftModel:
    """ViT-B/16 is what its configuration is by default."""
    encoder = encoder_of(transformers.ViTConfig())
    model = ImageClassifier(encoder, 768, labels, "vit")
    return with_lora(model, rank=rank, alpha=16, target_modules=image_targets(encoder))


def a_gpt2_classifier(rank: int) -> peft.PeftModel:
    encoder = encoder_of(transformers.GPT2Config())
    model = TextClassifier(encoder, 768, 20, "gpt2", pooling="last", bias=False)
    return with_lora(model, rank=rank, alpha=16)


def a_gpt2(rank: int) -> peft.PeftModel:
    return with_lora(
        LanguageModel(encoder_of(transformers.GPT2Config()), "gpt2"), rank=rank, alpha=16
    )


@pytest.mark.parametrize(
    ("made", "sizes", "head"),
    [
        (lambda rank: a_vit(10, rank), (44_554, 155_146, 597_514, 2_366_986), 7_690),
        (lambda rank: a_vit(17, rank), (49_937, 160_529, 602_897, 2_372_369), 13_073),
        (a_gpt2_classifier, (162_816, 605_184, 2_374_656, 9_452_544), 15_360),
        (a_gpt2, (147_456, 589_824, 2_359_296, 9_437_184), 0),
    ],
    ids=["cifar10", "flair", "newsgroups", "reddit"],
)
def test_an_adapter_has_the_size_of_the_authors_own(
    made: Callable[[int], peft.PeftModel], sizes: tuple[int, ...], head: int
) -> None:
    for rank, size in zip(RANKS, sizes, strict=True):
        # Shapes alone: no memory is filled.
        with torch.device("meta"):
            layout = adapter_layout(made(rank))
        assert layout.dim == size
        assert layout.size_of({Role.HEAD}) == head


def test_gpt2_s_adapter_is_split_as_the_authors_own() -> None:
    with torch.device("meta"):
        layout = adapter_layout(a_gpt2_classifier(16))
    assert layout.size_of({Role.LORA_A}) == 1_032_192
    assert layout.size_of({Role.LORA_B}) == 1_327_104


def test_an_encoder_without_query_and_value_maps_is_refused() -> None:
    with torch.device("meta"):
        encoder = encoder_of(transformers.GPT2Config())
    with pytest.raises(ValueError, match="no query and value maps among c_attn, c_fc, c_proj"):
        image_targets(encoder)
