"""Every method that the authors' released code has, against rounds of it that share no code."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from flasc_sim.simulation import Simulation
from tests.support.released_rounds import Flags, ReleasedRounds
from tests.support.tiny_workload import a_run, a_workload

ROUNDS = 6
FLASC: dict[str, Any] = {"name": "flasc", "download_density": 1.0, "upload_density": 1.0}


def flasc(down: float, up: float, **others: Any) -> dict[str, Any]:
    return {"name": "flasc", "download_density": down, "upload_density": up, **others}


def hetlora(rank: int, order: str) -> dict[str, Any]:
    return {"name": "hetlora", "rank": rank, "order": order}


# Both ends of each: the method as a task names it, by tier, and the authors' flags.
METHODS: dict[str, tuple[list[dict[str, Any]], Flags]] = {
    "dense": ([FLASC], Flags()),
    "flasc": ([flasc(0.25, 0.25)], Flags(dl_density=0.25, ul_density=0.25)),
    "flasc, down 1": ([flasc(1.0, 0.1)], Flags(ul_density=0.1)),
    "flasc, up 1": ([flasc(0.1, 1.0)], Flags(dl_density=0.1)),
    "flasc, down decays": (
        [flasc(1.0, 0.25, decay=0.8, upload_decay=1.0, decay_every=2)],
        Flags(dl_density_decay=0.8, decay_freq=2, ul_density=0.25),
    ),
    "sparse adapter": (
        [{"name": "sparse_adapter", "density": 0.25}],
        Flags(dl_density=0.25, server_freeze=True, client_freeze=True),
    ),
    "adapter lth": (
        [{"name": "adapter_lth", "density": 1.0, "decay": 0.8, "decay_every": 2}],
        Flags(dl_density_decay=0.8, decay_freq=2, client_freeze=True),
    ),
    "federated select": (
        [{"name": "federated_select", "density": 0.25}],
        Flags(dl_density=0.25, client_freeze=True),
    ),
    "ffa": ([{"name": "ffa_lora"}], Flags(freeze_a=True)),
    "density tiers": (
        [flasc(d, d, head_density=1.0, upload_ranks_head=True) for d in (0.0625, 0.25)] + [FLASC],
        Flags(syshet="density", tiers=(0.0625, 0.25, 1.0)),
    ),
    "rank tiers": (
        [hetlora(rank, "index") for rank in (1, 2, 4)],
        Flags(syshet="rank", tiers=(1, 2, 4)),
    ),
    "rank tiers by norm": (
        [hetlora(rank, "norm") for rank in (1, 2, 4)],
        Flags(syshet="rankl1", tiers=(1, 2, 4)),
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One of both ends' optimizers."""

    ours: dict[str, Any]
    theirs: Callable[[list[Tensor]], torch.optim.Optimizer]


ADAMW = Server(
    ours={"name": "adamw", "learning_rate": 0.05, "weight_decay": 0.01},
    theirs=partial(torch.optim.AdamW, lr=0.05, weight_decay=0.01),
)
# Our server leaves what is frozen as it was drawn, theirs would let it decay.
WITHOUT_DECAY = Server(
    ours={"name": "adamw", "learning_rate": 0.05, "weight_decay": 0.0},
    theirs=partial(torch.optim.AdamW, lr=0.05, weight_decay=0.0),
)
# After AdamW's first step all of B is equally large, and which ranks are is a matter of rounding.
PLAIN = Server(ours={"name": "sgd", "learning_rate": 1.0}, theirs=partial(torch.optim.SGD, lr=1.0))
SERVERS = {"ffa": WITHOUT_DECAY, "rank tiers by norm": PLAIN}


def simulation_of(methods: list[dict[str, Any]], server: Server, base: str) -> Simulation:
    settings = [
        f"method={json.dumps(methods[-1])}",
        f"optimizer={json.dumps(server.ours)}",
        f"base={json.dumps({'name': base})}",
        # All clients in every round, each with all that it has as one batch.
        *("policy.goal=6", "training.batch_size=99", "training.local_epochs=2"),
        *("training.momentum=0.9", "adapter.rank=4", f"ending.rounds={ROUNDS}"),
        'encodings={"download": "float32", "updates": ["float32"]}',
    ]
    if len(methods) > 1:
        tiers = [{"name": f"tier-{n}", "method": method} for n, method in enumerate(methods)]
        settings.append(f"tiers={json.dumps(tiers)}")
    return Simulation(a_run(*settings), a_workload())


def released(simulation: Simulation, flags: Flags, server: Server) -> ReleasedRounds:
    settings, workload = simulation.settings, a_workload()
    clients = [
        (
            torch.stack([workload.train[row]["input_ids"] for row in rows]),
            torch.stack([workload.train[row]["labels"] for row in rows]),
        )
        for rows in settings.partition.divide(workload, settings.seed)
    ]
    return ReleasedRounds(
        workload.build(settings.adapter, settings.seed),
        torch.from_numpy(simulation.federation.weights.copy()),
        clients,
        flags,
        client_lr=0.3,
        epochs=2,
        server=server.theirs,
    )


@pytest.mark.parametrize("name", METHODS)
def test_rounds_are_those_of_the_released_code(name: str) -> None:
    methods, flags = METHODS[name]
    server = SERVERS.get(name, ADAMW)
    simulation = simulation_of(methods, server, "initial" if flags.freeze_a else "zero")
    theirs = released(simulation, flags, server)
    start = simulation.federation.weights.copy()
    for _ in range(ROUNDS):
        simulation.advance()
        theirs.advance()
        for number, tier in enumerate(simulation.tiers):
            ours = simulation.federation.device_weights(tier)
            expected = theirs.masked(number).numpy()
            np.testing.assert_array_equal(ours != 0, expected != 0)
            np.testing.assert_allclose(ours, expected, atol=2e-5)
    moved = np.abs(simulation.federation.weights - start)
    assert moved.max() > 0.05
