"""Frozen layers of every architecture can be computed once without changing what is trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import nn
from torch.utils.data import Dataset, TensorDataset

from client_sdk.peft_trainer import Collate, PeftTrainer, adapter_layout, adapter_weights
from client_sdk.trainer import TrainingPlan
from flasc_core.layout import AdapterLayout
from flasc_sim.cached_prefix import (
    PadStates,
    layers_of,
    skip_layers,
    store_image_states,
    store_states,
)
from flasc_sim.datasets.images import collate_images
from flasc_sim.datasets.tokens import PadBatch
from flasc_sim.image_models import ImageClassifier, image_targets, load_image_classifier
from flasc_sim.language_model import LanguageModel
from flasc_sim.mobilenet import MobileNet, load_mobilenet
from flasc_sim.models import TextClassifier, with_lora
from flasc_sim.next_tokens import NextTokens, PadNextTokens, StoredNextTokens
from tests.support.tiny_encoders import GPT2, VIT, a_mobilenet, a_mobilenet_file, an_encoder

LAYERS = 2
PLAN = TrainingPlan(
    local_epochs=2, max_steps=0, batch_size=2, learning_rate=0.5, momentum=0.9, weight_decay=0.0
)
TEXTS = [([4, 9, 2, 7], 0), ([3], 1), ([8, 8, 5], 0), ([1, 2, 3, 4, 5, 6], 1), ([7, 0], 1)]


class Words:
    """Stands where a tokenizer does: a word is a digit."""

    def __call__(self, texts: list[str], *, truncation: bool, max_length: int) -> dict[str, Any]:
        assert truncation
        return {"input_ids": [[int(word) for word in text.split()][:max_length] for text in texts]}


def a_classifier() -> TextClassifier:
    torch.manual_seed(4)
    return TextClassifier(an_encoder(GPT2), 16, 2, "tiny", pooling="last", bias=False)


def images(pixels: int) -> TensorDataset:
    drawn = torch.Generator().manual_seed(5)
    return TensorDataset(torch.randn(5, 3, pixels, pixels, generator=drawn), torch.arange(5) % 3)


def an_image_classifier(encoder: nn.Module, width: int) -> ImageClassifier:
    torch.manual_seed(4)
    return ImageClassifier(encoder, width, 3, "tiny")


def trained(
    model: nn.Module,
    dataset: Dataset[Any],
    collate: Collate,
    *,
    targets: list[str] | None = None,
    skipped: bool,
) -> tuple[AdapterLayout, NDArray[np.float32]]:
    encoder = cast("nn.Module", model.encoder)
    upper = range(LAYERS, len(layers_of(encoder)))
    if skipped:
        skip_layers(model, layers=LAYERS)
    adapted = with_lora(model, rank=2, alpha=8, target_modules=targets, layers=upper, seed=1)
    # A is drawn and B is zero: from here on both are moved.
    start = adapter_weights(adapted) + np.float32(0.01)
    trainer = PeftTrainer(adapted, dataset, dataset, collate=collate)
    score = trainer.evaluate(start)
    assert score is not None
    update = trainer.train(start, PLAN, 5, lambda step, total: None).update
    return adapter_layout(adapted), np.append(update, np.float32(score.loss_sum))


def assert_equal(
    whole: tuple[AdapterLayout, NDArray[np.float32]],
    stored: tuple[AdapterLayout, NDArray[np.float32]],
) -> None:
    assert stored[0] == whole[0]
    assert np.count_nonzero(whole[1]) > 0.5 * whole[1].size
    # The examples that share a batch differ between the two, and with them the order of sums.
    np.testing.assert_allclose(stored[1], whole[1], rtol=0, atol=1e-5 * np.abs(whole[1]).max())


def test_of_gpt2_as_a_classifier() -> None:
    whole = trained(a_classifier(), cast("Dataset[Any]", TEXTS), PadBatch(pad_id=0), skipped=False)
    states = store_states(a_classifier(), TEXTS, layers=LAYERS, pad_id=0)
    assert_equal(whole, trained(a_classifier(), states, PadStates(), skipped=True))


def test_of_gpt2_as_a_language_model() -> None:
    def model() -> LanguageModel:
        return LanguageModel(an_encoder(GPT2), "tiny")

    texts = [" ".join(map(str, tokens)) for tokens, _ in TEXTS]
    tokens = NextTokens(texts, cast("Any", Words()), 5)
    assert tokens.kept == [0, 2, 3, 4]
    assert tokens[2] == ([1, 2, 3, 4, 5], [2, 3, 4, 5, 6])

    whole = trained(model(), tokens, PadNextTokens(inputs=PadBatch(pad_id=0)), skipped=False)
    states = store_states(model(), tokens.inputs(), layers=LAYERS, pad_id=0)
    stored = StoredNextTokens(states=states, tokens=tokens)
    assert_equal(whole, trained(model(), stored, PadNextTokens(inputs=PadStates()), skipped=True))


def test_padding_is_no_token_that_is_scored() -> None:
    model = LanguageModel(an_encoder(GPT2), "tiny")
    tokens = NextTokens(["1 2 3 4", "5 6"], cast("Any", Words()), 8)
    adapted = with_lora(model, rank=1, alpha=1)
    trainer = PeftTrainer(adapted, tokens, tokens, collate=PadNextTokens(inputs=PadBatch(pad_id=0)))
    score = trainer.evaluate(adapter_weights(adapted))
    assert score is not None
    assert score.total == 4


@pytest.mark.parametrize(
    ("encoder", "pixels", "width"),
    [(lambda: an_encoder(VIT), 16, 16), (a_mobilenet, 32, 6)],
    ids=["vit", "mobilenet"],
)
def test_of_image_encoders(encoder: Callable[[], nn.Module], pixels: int, width: int) -> None:
    def model() -> ImageClassifier:
        return an_image_classifier(encoder(), width)

    targets = image_targets(encoder())
    whole = trained(model(), images(pixels), collate_images, targets=targets, skipped=False)
    states = store_image_states(model(), images(pixels), layers=LAYERS)
    assert_equal(whole, trained(model(), states, collate_images, targets=targets, skipped=True))


def test_images_of_several_classes_at_once_have_a_loss_for_each() -> None:
    model = an_image_classifier(an_encoder(VIT), 16)
    batch = {"pixel_values": images(16).tensors[0], "labels": torch.tensor([[0, 1, 1]] * 5)}
    output = model(**batch)
    chances = torch.sigmoid(output.logits)
    expected = -torch.log(torch.cat([1 - chances[:, :1], chances[:, 1:]], dim=1)).mean()
    torch.testing.assert_close(output.loss, expected)


def test_mobilenet_pads_right_and_below_where_it_strides() -> None:
    stem = MobileNet((1,) * 14).stem.eval()
    nn.init.zeros_(stem.conv.weight)
    # Looks at one place of each window: the corner on the right and below.
    stem.conv.weight.data[:, :, 2, 2] = 1
    seen = stem(torch.ones(1, 3, 4, 4))[0, 0]
    assert (seen > 0).tolist() == [[True, False], [False, False]]


def test_mobilenet_is_read_from_the_names_it_is_published_with(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    a_mobilenet_file(file)
    loaded = load_mobilenet(file).state_dict()
    assert all(
        torch.equal(loaded[name], value) for name, value in a_mobilenet().state_dict().items()
    )
    model = load_image_classifier("mobilenet-v1", 4, dtype="float32", weights=file, seed=2)
    assert model.classifier.weight.shape == (4, 6)
    assert not any(parameter.requires_grad for parameter in model.encoder.parameters())


def test_a_file_that_is_no_mobilenet_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    tensors = a_mobilenet_file(file)
    del tensors["pw.12.bn.weight"]
    save_file(tensors, file)
    with pytest.raises(ValueError, match="holds no MobileNet v1"):
        load_mobilenet(file)
    with pytest.raises(FileNotFoundError, match="--weights"):
        load_image_classifier("mobilenet-v1", 4, dtype="float32")
