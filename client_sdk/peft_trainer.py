"""Trains any PEFT model on a device's own examples, and reads and writes its adapter as a vector.

Apart from what it is made of, the only module of the SDK that imports torch and peft. The functions
that it exports beside the trainer also serve operators, who make a task from a model.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from typing import Any, Final, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from client_sdk._errors import TrainingFailed
from client_sdk._peft_adapter import (
    adapter_layout,
    adapter_weights,
    base_model_sha256,
    load_adapter_weights,
    peft_config_json,
    read_vector,
    trainable_parameters,
    write_vector,
)
from client_sdk.trainer import Evaluation, TrainingPlan, TrainingResult
from flasc_core.layout import AdapterLayout
from flasc_core.methods.ranks import lora_modules

__all__ = [
    "Batch",
    "Collate",
    "Count",
    "Loss",
    "PeftTrainer",
    "Predict",
    "adapter_layout",
    "adapter_weights",
    "base_model_sha256",
    "load_adapter_weights",
    "peft_config_json",
]

Batch: TypeAlias = Mapping[str, Tensor]
Loss: TypeAlias = Callable[[nn.Module, Batch], Tensor]
Predict: TypeAlias = Callable[[nn.Module, Batch], Tensor]
Count: TypeAlias = Callable[[Tensor, Tensor], tuple[int, int]]
Collate: TypeAlias = Callable[[list[Any]], Batch]

# What Hugging Face models leave out of their loss.
_IGNORED_LABEL: Final = -100
_EVALUATION_BATCH: Final = 64


class PeftTrainer:
    """A `Trainer` for a PEFT model and data sets of one device.

    Batches are mappings of tensors. `loss(model, batch)` is the mean over the batch, by default the
    model's own; `predict(model, batch)` has the shape of batch["labels"], by default the argmax of
    the logits, and labels of -100 do not count; a batch that has no others is passed over.
    `count(predictions, labels)` is a batch's share of correct and total, for scores that are no
    accuracy. All of the adapter trains, densely, by fresh SGD with momentum each time. As in the
    method's reference code the base model stays in evaluation mode while LoRA dropout is active
    (arXiv 2406.05233). Training leaves the trained weights in `model`; the update is relative to
    the weights that were given, bit for bit.

    `base_model_sha256` spares the hashing where the app knows the digest of the file it loaded.
    """

    def __init__(
        self,
        model: PeftModel,
        train_dataset: Dataset[Any],
        holdout_dataset: Dataset[Any] | None = None,
        *,
        loss: Loss | None = None,
        predict: Predict | None = None,
        count: Count | None = None,
        collate: Collate | None = None,
        device: str = "cpu",
        base_model_sha256: bytes | None = None,
    ) -> None:
        self._layout: Final = adapter_layout(model)
        self._model: Final[PeftModel] = model.to(device)
        # Walking a model for what it trains takes longer than reading or writing that.
        self._parameters: Final = tuple(trainable_parameters(model).values())
        self._train_dataset = train_dataset
        self._holdout_dataset = holdout_dataset
        self._loss: Final = loss
        self._predict: Final = predict
        self._count: Final = count or _count_equal
        self._collate: Final = collate
        self._device: Final = torch.device(device)
        self._base_model_sha256 = base_model_sha256

    def with_examples(
        self, train_dataset: Dataset[Any], holdout_dataset: Dataset[Any] | None = None
    ) -> PeftTrainer:
        """Return a trainer of the same model, for one device after another; it costs nothing."""
        other = copy(self)
        other._train_dataset = train_dataset  # noqa: SLF001 - a copy of itself
        other._holdout_dataset = holdout_dataset  # noqa: SLF001
        return other

    @property
    def layout(self) -> AdapterLayout:
        return self._layout

    @property
    def base_model_sha256(self) -> bytes:
        """Computed on first use; frozen tensors do not change."""
        if self._base_model_sha256 is None:
            self._base_model_sha256 = base_model_sha256(self._model)
        return self._base_model_sha256

    def evaluate(self, weights: NDArray[np.float32]) -> Evaluation | None:
        """Raises TrainingFailed for a loss that is not finite."""
        if self._holdout_dataset is None:
            return None
        write_vector(self._parameters, weights)
        self._model.eval()
        correct, total, loss_sum = 0, 0, 0.0
        with torch.inference_mode():
            for batch in self._batches(self._holdout_dataset, _EVALUATION_BATCH, None):
                labels = batch["labels"]
                loss, predicted = self._score(batch)
                if predicted.shape != labels.shape:
                    raise TrainingFailed(
                        f"predictions have shape {tuple(predicted.shape)}, labels "
                        f"{tuple(labels.shape)}; give the trainer a predict function"
                    )
                right, counted = self._count(predicted, labels)
                if counted:
                    correct += right
                    total += counted
                    loss_sum += float(loss) * counted
        if not math.isfinite(loss_sum):
            raise TrainingFailed("the downloaded adapter's held-out loss is not finite")
        return Evaluation(correct=correct, total=total, loss_sum=loss_sum)

    def train(
        self,
        weights: NDArray[np.float32],
        plan: TrainingPlan,
        seed: int,
        on_step: Callable[[int, int], None],
        trainable: NDArray[np.bool_] | None = None,
    ) -> TrainingResult:
        """Raises TrainingFailed where there are no examples, and where training diverges.

        Tensors of which nothing is `trainable` cost no backward pass.
        """
        started = time.perf_counter()
        write_vector(self._parameters, weights)
        _set_training_mode(self._model)
        with _seeded(seed, self._device), _frozen(self._parameters, trainable) as restore:
            steps, seen, loss_sum = self._run_steps(plan, seed, on_step, restore)
        update = read_vector(self._parameters) - weights
        if not np.isfinite(update).all():
            raise TrainingFailed("training diverged: an adapter weight is not finite")
        return TrainingResult(
            update=update,
            examples=min(seen, _length(self._train_dataset)),
            steps=steps,
            loss_mean=loss_sum / seen,
            seconds=time.perf_counter() - started,
        )

    def _score(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the mean loss and the predictions, by one forward pass where both are default."""
        if self._loss is None and self._predict is None:
            output = self._model(**batch)
            return output.loss, output.logits.argmax(dim=-1)
        loss = (self._loss or _own_loss)(self._model, batch)
        return loss, (self._predict or _largest_logit)(self._model, batch)

    def _run_steps(
        self,
        plan: TrainingPlan,
        seed: int,
        on_step: Callable[[int, int], None],
        restore_frozen: Callable[[], None],
    ) -> tuple[int, int, float]:
        size = _length(self._train_dataset)
        if size == 0:
            raise TrainingFailed("the device has no training examples")
        in_all = plan.local_epochs * math.ceil(size / plan.batch_size)
        if plan.max_steps:
            in_all = min(in_all, plan.max_steps)
        optimizer = torch.optim.SGD(
            [parameter for parameter in self._parameters if parameter.requires_grad],
            lr=plan.learning_rate,
            momentum=plan.momentum,
            weight_decay=plan.weight_decay,
        )
        penalty = self._penalty(plan)
        order = torch.Generator().manual_seed(seed)
        batches = self._epochs(plan, order)
        taken, seen, loss_sum = 0, 0, 0.0
        for step in range(1, in_all + 1):
            count, batch = next(batches)
            if _tells_nothing(batch):
                # The mean loss over no labels is no number.
                on_step(step, in_all)
                continue
            optimizer.zero_grad()
            loss = (self._loss or _own_loss)(self._model, batch)
            (loss + penalty()).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            restore_frozen()
            loss_sum += _finite(loss) * count
            taken += 1
            seen += count
            on_step(step, in_all)
        if not seen:
            raise TrainingFailed("no training example has a label")
        return taken, seen, loss_sum

    def _penalty(self, plan: TrainingPlan) -> Callable[[], Tensor | float]:
        """Return what gives the plan's rank penalty of the weights as they are."""
        chosen = plan.rank_penalty
        if chosen is None:
            return lambda: 0.0
        first, factor = chosen.from_rank, chosen.factor
        tensors = list(trainable_parameters(self._model).values())
        pairs = [(tensors[a], tensors[b]) for a, b in lora_modules(self._layout)]

        def penalty() -> Tensor:
            terms = [b[:, first:].norm() * a[first:].norm() for a, b in pairs]
            return factor * torch.stack(terms).sum()

        return penalty

    def _epochs(self, plan: TrainingPlan, order: torch.Generator) -> Iterator[tuple[int, Batch]]:
        size = _length(self._train_dataset)
        for _ in range(plan.local_epochs):
            left = size
            for batch in self._batches(self._train_dataset, plan.batch_size, order):
                count = min(plan.batch_size, left)
                left -= count
                yield count, batch

    def _batches(
        self, dataset: Dataset[Any], batch_size: int, order: torch.Generator | None
    ) -> Iterator[Batch]:
        loader = DataLoader(
            dataset,
            batch_size=batch_size,
            shuffle=order is not None,
            generator=order,
            collate_fn=self._collate,
        )
        for batch in loader:
            yield {name: tensor.to(self._device) for name, tensor in batch.items()}


def _set_training_mode(model: nn.Module) -> None:
    model.eval()
    for module in model.modules():
        if isinstance(module, BaseTunerLayer):
            # Its own flag and what PEFT made in it; the wrapped base layer stays as it is.
            module.training = True
            for name, child in module.named_children():
                if name.startswith("lora_"):
                    child.train()


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Dropout follows `seed`; the app's own random state comes back afterwards."""
    accelerators = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=accelerators):
        torch.manual_seed(seed)
        yield


@contextmanager
def _frozen(
    parameters: Iterable[nn.Parameter], trainable: NDArray[np.bool_] | None
) -> Iterator[Callable[[], None]]:
    """Yield what puts frozen coordinates back after a step; whole tensors are not stepped at all.

    Putting them back, unlike masking gradients, also holds against momentum and weight decay.
    """
    if trainable is None:
        yield _restore_nothing
        return
    stopped: list[nn.Parameter] = []
    partly: list[tuple[nn.Parameter, Tensor, Tensor]] = []
    start = 0
    for parameter in parameters:
        end = start + parameter.numel()
        mask = torch.tensor(trainable[start:end], device=parameter.device).reshape(parameter.shape)
        if not mask.any():
            parameter.requires_grad_(False)
            stopped.append(parameter)
        elif not mask.all():
            partly.append((parameter, mask, parameter.detach().clone()))
        start = end

    def restore() -> None:
        with torch.no_grad():
            for parameter, mask, before in partly:
                parameter.copy_(torch.where(mask, parameter, before))

    try:
        yield restore
    finally:
        for parameter in stopped:
            parameter.requires_grad_(True)


def _restore_nothing() -> None:
    pass


def _own_loss(model: nn.Module, batch: Batch) -> Tensor:
    return cast("Tensor", model(**batch).loss)


def _largest_logit(model: nn.Module, batch: Batch) -> Tensor:
    return cast("Tensor", model(**batch).logits).argmax(dim=-1)


def _count_equal(predicted: Tensor, labels: Tensor) -> tuple[int, int]:
    counted = labels != _IGNORED_LABEL
    return int((predicted == labels)[counted].sum()), int(counted.sum())


def _tells_nothing(batch: Batch) -> bool:
    labels = batch.get("labels")
    return labels is not None and bool((labels == _IGNORED_LABEL).all())


def _finite(loss: Tensor) -> float:
    value = float(loss.detach())
    if not math.isfinite(value):
        raise TrainingFailed("training diverged: the loss is not finite")
    return value


def _length(dataset: Dataset[Any]) -> int:
    return len(dataset)  # type: ignore[arg-type]
