"""Local training and evaluation against torch by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from torch.utils.data import DataLoader

from client_sdk import TrainingFailed, TrainingPlan, TrainingResult
from client_sdk.peft_trainer import (
    PeftTrainer,
    adapter_layout,
    adapter_weights,
    base_model_sha256,
    load_adapter_weights,
)
from flasc_core.layout import Role
from flasc_core.methods import RankPenalty, TrainRule, steps_down
from tests.support.tiny_model import Examples, a_base_model, a_peft_model, start_of

PLAN = TrainingPlan(
    local_epochs=2, max_steps=0, batch_size=4, learning_rate=0.1, momentum=0.9, weight_decay=0.0
)
Vector = NDArray[np.float32]


def ignore_steps(step: int, total: int) -> None:
    pass


def trained(model: PeftModel, plan: TrainingPlan = PLAN, seed: int = 5) -> TrainingResult:
    return PeftTrainer(model, Examples()).train(start_of(model), plan, seed, ignore_steps)


# -- training


def test_training_leaves_the_base_model_as_it_was() -> None:
    model = a_peft_model()
    before = base_model_sha256(model)
    trained(model)
    assert base_model_sha256(model) == before


def by_hand(model: PeftModel, start: Vector, plan: TrainingPlan, seed: int) -> Vector:
    """The same local run in plain torch, momentum written out."""
    load_adapter_weights(model, start)
    parameters = [p for p in model.parameters() if p.requires_grad]
    velocities = [torch.zeros_like(p) for p in parameters]
    order = torch.Generator().manual_seed(seed)
    loader = DataLoader(Examples(), batch_size=plan.batch_size, shuffle=True, generator=order)
    model.eval()
    for _ in range(plan.local_epochs):
        for batch in loader:
            loss = model(**batch).loss
            gradients = torch.autograd.grad(loss, parameters)
            for p, v, g in zip(parameters, velocities, gradients, strict=True):
                decayed = g + plan.weight_decay * p.detach()
                v.mul_(plan.momentum).add_(decayed)
                p.data.sub_(plan.learning_rate * v)
    return np.concatenate([p.detach().numpy().ravel() for p in parameters]) - start


@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_local_training_is_sgd_with_momentum(weight_decay: float) -> None:
    plan = replace(PLAN, weight_decay=weight_decay)
    expected = by_hand(a_peft_model(), start_of(a_peft_model()), plan, 5)
    result = trained(a_peft_model(), plan)
    np.testing.assert_allclose(result.update, expected, atol=1e-6)
    assert np.abs(result.update).max() > 0.01
    assert (result.steps, result.examples) == (6, 10)


def test_the_same_seed_gives_the_same_update_and_another_does_not() -> None:
    model = a_peft_model(dropout=0.5)
    first = trained(model)
    # Whatever the app drew in between.
    torch.rand(1)
    again, other = trained(model), trained(model, seed=6)
    assert first.update.tobytes() == again.update.tobytes()
    assert first.loss_mean == again.loss_mean
    assert first.update.tobytes() != other.update.tobytes()


def test_every_seed_that_the_protocol_can_carry_trains() -> None:
    for seed in (0, 2**63, 2**64 - 1):
        assert trained(a_peft_model(dropout=0.5), seed=seed).steps == 6


def test_training_leaves_the_apps_random_state_alone() -> None:
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    trained(a_peft_model(dropout=0.5))
    assert torch.equal(torch.rand(3), expected)


def test_no_momentum_survives_from_one_assignment_to_the_next() -> None:
    model = a_peft_model()
    trainer = PeftTrainer(model, Examples())
    start = start_of(model)
    first = trainer.train(start, PLAN, 5, ignore_steps)
    again = trainer.train(start, PLAN, 5, ignore_steps)
    assert first.update.tobytes() == again.update.tobytes()


def test_all_of_the_adapter_trains_though_most_of_the_download_is_zero() -> None:
    model = a_peft_model()
    layout = adapter_layout(model)
    start = start_of(model)
    # A download without any of A: gradients reach it through B.
    start[layout.indices_of([Role.LORA_A])] = 0
    result = PeftTrainer(model, Examples()).train(start, PLAN, 5, ignore_steps)
    for role in Role:
        assert np.any(result.update[layout.indices_of([role])])


@pytest.mark.parametrize("frozen", [[Role.LORA_A], [Role.LORA_A, Role.LORA_B], [Role.HEAD]])
def test_roles_that_do_not_train_stay_as_they_are(frozen: list[Role]) -> None:
    model = a_peft_model()
    layout = adapter_layout(model)
    trainable = np.ones(layout.dim, dtype=np.bool_)
    trainable[layout.indices_of(frozen)] = False
    plan = replace(PLAN, weight_decay=0.01)
    result = PeftTrainer(model, Examples()).train(start_of(model), plan, 5, ignore_steps, trainable)
    assert not result.update[~trainable].any()
    for role in set(Role) - set(frozen):
        assert result.update[layout.indices_of([role])].any()
    # The next assignment may train all of it.
    assert adapter_layout(model) == layout


def test_single_coordinates_stay_as_they_are_against_momentum_and_weight_decay() -> None:
    model = a_peft_model()
    trainable = np.random.default_rng(1).random(adapter_layout(model).dim) < 0.5
    plan = replace(PLAN, weight_decay=0.01)
    trainer = PeftTrainer(model, Examples())
    result = trainer.train(start_of(model), plan, 5, ignore_steps, trainable)
    assert not result.update[~trainable].any()
    assert result.update[trainable].any()


def test_penalised_ranks_shrink_and_the_reported_loss_leaves_the_penalty_out() -> None:
    model = a_peft_model(rank=4)
    layout = adapter_layout(model)
    penalty = RankPenalty(from_rank=2, factor=5.0)
    plan = replace(PLAN, max_steps=1, learning_rate=0.01)
    plain = trained(model, plan)
    pressed = trained(model, replace(plan, rank_penalty=penalty))

    def tail(result: TrainingResult) -> float:
        parts = layout.split(start_of(model) + result.update)
        (a,) = (part for name, part in parts.items() if "lora_A" in name)
        (b,) = (part for name, part in parts.items() if "lora_B" in name)
        return float(np.linalg.norm(a[2:]) * np.linalg.norm(b[:, 2:]))

    assert tail(pressed) < tail(plain)
    assert pressed.loss_mean == plain.loss_mean
    rule = TrainRule(rank_penalty=penalty)
    start = start_of(model)
    assert steps_down(rule, layout, start, start + pressed.update)


def test_a_mask_that_lets_everything_train_changes_nothing() -> None:
    model = a_peft_model(dropout=0.5)
    everything = np.ones(adapter_layout(model).dim, dtype=np.bool_)
    trainer = PeftTrainer(model, Examples())
    masked = trainer.train(start_of(model), PLAN, 5, ignore_steps, everything)
    assert masked.update.tobytes() == trained(model).update.tobytes()


def test_a_coordinate_that_training_never_touches_is_exactly_zero() -> None:
    config = LoraConfig(r=2, target_modules=["embed"], modules_to_save=["classifier"])
    model = get_peft_model(a_base_model(), config)
    layout = adapter_layout(model)
    start = start_of(model)
    result = PeftTrainer(model, Examples(size=2)).train(start, PLAN, 5, ignore_steps)
    used = set(Examples(size=2).input_ids.ravel().tolist())
    embedding_a = layout.split(result.update)[layout.tensors[0].name]
    untouched = [token for token in range(20) if token not in used]
    assert embedding_a.shape == (2, 20)
    assert untouched
    assert not embedding_a[:, untouched].any()
    assert embedding_a[:, sorted(used)].any()


def test_the_update_is_relative_to_what_was_given() -> None:
    model = a_peft_model()
    start = start_of(model)
    result = PeftTrainer(model, Examples()).train(start, PLAN, 5, ignore_steps)
    np.testing.assert_array_equal(adapter_weights(model) - start, result.update)
    assert result.update.dtype == np.float32


@pytest.mark.parametrize(("max_steps", "steps", "examples"), [(0, 6, 10), (2, 2, 8), (7, 6, 10)])
def test_training_ends_at_max_steps_or_with_its_epochs(
    max_steps: int, steps: int, examples: int
) -> None:
    told: list[tuple[int, int]] = []
    result = PeftTrainer(model := a_peft_model(), Examples()).train(
        start_of(model), replace(PLAN, max_steps=max_steps), 5, lambda *now: told.append(now)
    )
    assert (result.steps, result.examples) == (steps, examples)
    assert told == [(step, steps) for step in range(1, steps + 1)]


def test_the_mean_loss_is_per_example_though_the_last_batch_is_smaller() -> None:
    model = a_peft_model()
    result = trained(model, replace(PLAN, learning_rate=0.0))
    examples = Examples()
    with torch.no_grad():
        logits = model(input_ids=examples.input_ids).logits
        expected = float(nn.functional.cross_entropy(logits, examples.labels))
    assert result.loss_mean == pytest.approx(expected, rel=1e-5)
    assert not result.update.any()


def test_lora_dropout_is_active_while_the_base_models_is_not() -> None:
    modes: dict[str, bool] = {}
    model = a_peft_model(dropout=0.5)

    def look(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        modes.update({n: m.training for n, m in model.named_modules()})
        loss: Tensor = model(**batch).loss
        return loss

    PeftTrainer(model, Examples(), loss=look).train(start_of(model), PLAN, 5, ignore_steps)
    drops = {n: modes[n] for n, m in model.named_modules() if isinstance(m, nn.Dropout)}
    assert drops == {
        "base_model.model.dropout": False,
        "base_model.model.hidden.lora_dropout.default": True,
    }
    assert not modes["base_model.model.hidden.base_layer"]
    assert not modes["base_model.model.classifier.modules_to_save.default"]


def test_an_empty_data_set_is_a_failure_of_training() -> None:
    model = a_peft_model()
    with pytest.raises(TrainingFailed, match="no training examples"):
        PeftTrainer(model, Examples(size=0)).train(start_of(model), PLAN, 5, ignore_steps)


def test_training_that_diverges_says_so() -> None:
    with pytest.raises(TrainingFailed, match="diverged"):
        trained(a_peft_model(), replace(PLAN, learning_rate=1e38, local_epochs=3))


def test_what_on_step_raises_ends_training() -> None:
    class Stop(Exception):
        pass

    def stop(step: int, total: int) -> None:
        raise Stop

    model = a_peft_model()
    with pytest.raises(Stop):
        PeftTrainer(model, Examples()).train(start_of(model), PLAN, 5, stop)


# -- evaluation


def evaluated(**settings: Any) -> tuple[int, int, float]:
    model = a_peft_model(dropout=0.5)
    trainer = PeftTrainer(model, Examples(), Examples(size=70, seed=4), **settings)
    result = trainer.evaluate(start_of(model))
    assert result is not None
    return result.correct, result.total, result.loss_sum


def test_evaluation_counts_in_evaluation_mode() -> None:
    model = a_peft_model(dropout=0.5)
    load_adapter_weights(model, start_of(model))
    examples = Examples(size=70, seed=4)
    model.eval()
    with torch.inference_mode():
        logits = model(input_ids=examples.input_ids).logits
        losses = nn.functional.cross_entropy(logits, examples.labels, reduction="sum")
    correct, total, loss_sum = evaluated()
    assert (correct, total) == (int((logits.argmax(-1) == examples.labels).sum()), 70)
    assert loss_sum == pytest.approx(float(losses), rel=1e-5)


def test_a_loss_and_predictions_of_the_apps_own_count_the_same() -> None:
    def loss(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        return nn.functional.cross_entropy(model(batch["input_ids"]).logits, batch["labels"])

    def predict(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        best: Tensor = model(batch["input_ids"]).logits.argmax(-1)
        return best

    assert evaluated() == evaluated(loss=loss) == evaluated(predict=predict, loss=loss)


def masked(size: int, *places: int) -> Examples:
    examples = Examples(size=size)
    for place in places:
        examples.labels[place] = -100
    return examples


def test_labels_that_are_masked_do_not_count() -> None:
    model = a_peft_model()
    result = PeftTrainer(model, Examples(), masked(8, 3)).evaluate(start_of(model))
    assert result is not None
    assert result.total == 7


def test_a_batch_without_a_label_is_passed_over() -> None:
    model = a_peft_model()
    # The last batch that is scored, and one of the batches of one that are trained, have none.
    trainer = PeftTrainer(model, masked(5, 2), masked(65, 64))
    scored = trainer.evaluate(start_of(model))
    assert scored is not None
    assert scored == PeftTrainer(model, Examples(), masked(64)).evaluate(start_of(model))
    steps: list[int] = []
    plan = replace(PLAN, batch_size=1, local_epochs=1)
    result = trainer.train(start_of(model), plan, 5, lambda step, _: steps.append(step))
    assert (result.examples, result.steps) == (4, 4)
    assert steps == [1, 2, 3, 4, 5]


def test_examples_without_any_label_train_nothing() -> None:
    model = a_peft_model()
    with pytest.raises(TrainingFailed, match="label"):
        PeftTrainer(model, masked(2, 0, 1)).train(start_of(model), PLAN, 5, ignore_steps)


def test_without_held_out_examples_there_is_no_evaluation() -> None:
    model = a_peft_model()
    assert PeftTrainer(model, Examples()).evaluate(start_of(model)) is None


def test_predictions_of_another_shape_are_not_compared() -> None:
    with pytest.raises(TrainingFailed, match="predict function"):
        evaluated(predict=lambda model, batch: batch["input_ids"])


def test_a_collate_function_of_the_apps_own_makes_the_batches() -> None:
    def collate(items: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        return {name: torch.stack([item[name] for item in items]) for name in items[0]}

    assert evaluated(collate=collate) == evaluated()
