"""Rounds as the method's authors run them, written anew from a description of their released code.

Dense arithmetic on one flat vector by torch alone: masks, local SGD, the plain mean and torch's own
optimizer. Nothing of the service, its core or its SDK has a part in it. Names are their flags'.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["Flags", "ReleasedRounds", "topk_mask"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Flags:
    """`tiers` are densities or ranks by `syshet`; a client's is that of its number."""

    dl_density: float = 1.0
    ul_density: float = 1.0
    dl_density_decay: float = 1.0
    decay_freq: int = 1
    server_freeze: bool = False
    client_freeze: bool = False
    freeze_a: bool = False
    syshet: str = ""
    tiers: tuple[float, ...] = (1.0,)


def topk_mask(x: Tensor, density: float) -> Tensor:
    """The int(numel * density) largest magnitudes; of equal ones the first."""
    count = int(x.numel() * density)
    mask = torch.zeros_like(x, dtype=torch.bool)
    mask[torch.argsort(-x.abs(), stable=True)[:count]] = True
    return mask


class ReleasedRounds:
    """`weights` is P, which the optimizer that `server` makes steps; a client is its one batch."""

    def __init__(
        self,
        model: nn.Module,
        weights: Tensor,
        clients: Sequence[tuple[Tensor, Tensor]],
        flags: Flags,
        *,
        client_lr: float,
        epochs: int,
        server: Callable[[list[Tensor]], torch.optim.Optimizer],
    ) -> None:
        self.weights = weights.clone().requires_grad_(True)
        self.number = 0
        self._model = model.eval()
        self._named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        self._clients = clients
        self._flags = flags
        self._client_lr = client_lr
        self._epochs = epochs
        self._server = server([self.weights])
        self._fixed: Tensor | None = None

    def advance(self) -> None:
        """A round of all clients."""
        masks = [self.mask(tier) for tier in range(len(self._flags.tiers))]
        start = self.weights.detach()
        total = torch.zeros_like(start)
        for number, batch in enumerate(self._clients):
            mask = masks[number % len(masks)]
            total += self._uploaded(start * mask, mask, batch, number % len(masks))
        self.weights.grad = total / len(self._clients)
        self._server.step()
        if self._flags.server_freeze and self._fixed is None:
            self._fixed = topk_mask(self.weights.detach(), self._flags.dl_density)
        self.number += 1

    def masked(self, tier: int = 0) -> Tensor:
        """What is evaluated, and what the tier's clients get next."""
        return self.weights.detach() * self.mask(tier)

    def mask(self, tier: int) -> Tensor:
        flags, weights = self._flags, self.weights.detach()
        if flags.syshet:
            budget = flags.tiers[tier]
            return torch.cat(list(self._tier_parts(weights, budget)))
        if flags.server_freeze:
            return (
                torch.ones_like(weights, dtype=torch.bool) if self._fixed is None else self._fixed
            )
        density = flags.dl_density * flags.dl_density_decay ** (self.number // flags.decay_freq)
        return topk_mask(weights, density)

    def _tier_parts(self, weights: Tensor, budget: float) -> Iterator[Tensor]:
        if self._flags.syshet == "density":
            is_lora = torch.cat([torch.full((p.numel(),), "lora" in n) for n, p in self._named])
            mask = ~is_lora
            mask[is_lora] = topk_mask(weights[is_lora], budget)
            yield mask
            return
        start, rank = 0, int(budget)
        for name, parameter in self._named:
            part = weights[start : start + parameter.numel()].reshape(parameter.shape)
            start += parameter.numel()
            mask = torch.ones_like(part, dtype=torch.bool)
            if "lora" in name:
                by_rank = part if "lora_A" in name else part.T
                kept = torch.arange(len(by_rank)) < rank
                if self._flags.syshet == "rankl1":
                    order = torch.argsort(-by_rank.norm(dim=1), stable=True)
                    kept = torch.isin(torch.arange(len(by_rank)), order[:rank])
                mask = kept[:, None].expand_as(by_rank)
                mask = mask if "lora_A" in name else mask.T
            yield mask.flatten()

    def _uploaded(
        self, start: Tensor, mask: Tensor, batch: tuple[Tensor, Tensor], tier: int
    ) -> Tensor:
        flags = self._flags
        change = start - self._trained(start, mask, batch)
        by_tier = flags.syshet == "density"
        density = flags.tiers[tier] if by_tier else flags.ul_density
        return change * topk_mask(change, density) if density < 1 else change

    def _trained(self, start: Tensor, mask: Tensor, batch: tuple[Tensor, Tensor]) -> Tensor:
        self._write(start)
        parameters = [parameter for _, parameter in self._named]
        optimizer = torch.optim.SGD(parameters, lr=self._client_lr, momentum=0.9)
        inputs, labels = batch
        for _ in range(self._epochs):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(self._model(input_ids=inputs).logits, labels)
            loss.backward()  # type: ignore[no-untyped-call]
            self._freeze(mask)
            optimizer.step()
        return torch.cat([parameter.detach().flatten() for parameter in parameters])

    def _freeze(self, mask: Tensor) -> None:
        start = 0
        for name, parameter in self._named:
            end = start + parameter.numel()
            assert parameter.grad is not None
            if self._flags.client_freeze:
                parameter.grad *= mask[start:end].reshape(parameter.shape)
            if self._flags.freeze_a and "lora_A" in name:
                parameter.grad.zero_()
            start = end

    def _write(self, vector: Tensor) -> None:
        start = 0
        with torch.no_grad():
            for _, parameter in self._named:
                end = start + parameter.numel()
                parameter.copy_(vector[start:end].reshape(parameter.shape))
                start = end
