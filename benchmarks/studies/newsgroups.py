"""What sparse and quantised communication costs in accuracy, on 20 Newsgroups.

Every run is one federated fine-tune in process, by the code of the service and of the SDK: 350
clients of Dir(0.1), 10 in a round. A pretrained encoder of six layers has LoRA on all linear maps
of the two upper ones, and what the four below make of a text is computed once: a change of task,
not of method. Runs that have a result are left out, so a study goes on where it was stopped:

    python -m benchmarks.studies.newsgroups --data 20news_bydate.parquet --seeds 0 1 2
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from aggregator_service.domain.rounds import RoundPolicy
from aggregator_service.domain.tasks import (
    BaseModel,
    Encodings,
    Ending,
    TaskConfig,
    TrainingPlan,
)
from benchmarks._report import RESULTS, machine_facts
from client_sdk.peft_trainer import PeftTrainer, adapter_layout, adapter_weights, peft_config_json
from flasc_core.base import Base, InitialBase, ZeroBase
from flasc_core.layout import AdapterLayout
from flasc_core.methods import Flasc
from flasc_core.server_update import AdamW
from flasc_core.wire import Encoding
from flasc_sim.cached_prefix import PadStates, StoredStates, skip_layers, store_states
from flasc_sim.datasets import load_texts
from flasc_sim.datasets.tokens import TokenisedTexts
from flasc_sim.federation import Federation, Participation
from flasc_sim.models import load_text_classifier, load_tokenizer, with_lora

CLIENTS: Final = 350
CONCENTRATION: Final = 0.1
COHORT: Final = 10
ROUNDS: Final = 100
TOKENS: Final = 64
FROZEN_LAYERS: Final = 4
# The method's authors leave the last fifth of the shuffled training set to nobody.
CLIENT_SHARE: Final = 0.8
# Single rounds differ by points, as cohorts do: accuracy is the mean over the last rounds.
SCORED_ROUNDS: Final = 5
SCORED_EVERY: Final = 2
# A fixed draw, the same for every run, so that differences between runs are of the same texts.
SCORED_TEXTS: Final = 2_000
FOLDER: Final = RESULTS / "newsgroups"


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One configuration; the head is dense in all of them."""

    density: float
    encoding: str
    base: str = "zero"

    @property
    def name(self) -> str:
        density = "dense" if self.density == 1 else f"1-{round(1 / self.density)}"
        return f"{density}_{self.encoding}" + ("" if self.base == "zero" else f"_{self.base}")


DENSITIES: Final = (1.0, 1 / 4, 1 / 16)
# In the order in which they are run: a study that is cut short has compared what matters most.
VARIANTS: Final = (
    *(Variant(density=density, encoding="float32") for density in DENSITIES),
    *(Variant(density=density, encoding="int6") for density in DENSITIES),
    *(Variant(density=density, encoding="int6", base="initial") for density in DENSITIES[1:]),
    # Beyond what tasks would use, to see where accuracy leaves dense.
    *(
        Variant(density=density, encoding="int6", base=base)
        for density in (1 / 64, 1 / 256)
        for base in ("zero", "initial")
    ),
    *(Variant(density=density, encoding="int8") for density in DENSITIES),
    *(Variant(density=density, encoding="bfloat16") for density in DENSITIES),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """What all runs share; `train` holds the clients' documents alone."""

    train: StoredStates
    train_labels: NDArray[np.int64]
    test: StoredStates
    label_count: int


def main(words: Sequence[str] | None = None) -> int:
    arguments = _arguments(words)
    torch.set_num_threads(1)
    runs = [
        (seed, variant)
        for seed in arguments.seeds
        for variant in VARIANTS
        if not arguments.only or variant.name in arguments.only
    ]
    corpus: Corpus | None = None
    for number, (seed, variant) in enumerate(runs, start=1):
        file = arguments.folder / f"{variant.name}_seed{seed}.json"
        # Looked at only now: another process may share the work.
        if file.exists() and json.loads(file.read_bytes())["rounds"] == arguments.rounds:
            continue
        corpus = corpus or _load_corpus(arguments.data)
        print(f"run {number} of {len(runs)}: {variant.name}, seed {seed}", flush=True)
        result = _run(variant, seed, corpus, arguments.rounds)
        arguments.folder.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(result, indent=1) + "\n")
    return 0


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--data", type=Path, help="a parquet copy of the corpus; fetched where left out"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where results go")
    parser.add_argument("--only", nargs="+", default=[], metavar="VARIANT")
    return parser.parse_args(words)


def _load_corpus(data: Path | None) -> Corpus:
    table = load_texts("20newsgroups", data=data)
    order = np.random.default_rng(0).permutation(np.flatnonzero(~table.held_out))
    train_rows = order[: int(CLIENT_SHARE * order.size)]
    test_rows = np.random.default_rng(1).permutation(np.flatnonzero(table.held_out))
    model = load_text_classifier("minilm", len(table.label_names), dtype="bfloat16")
    tokenizer = load_tokenizer("minilm")

    def stored(rows: NDArray[np.int64]) -> StoredStates:
        texts = TokenisedTexts(table.take(rows), tokenizer, TOKENS)
        pad_id = tokenizer.pad_token_id
        if not isinstance(pad_id, int):
            raise TypeError("the tokenizer has no padding token")
        return store_states(model, texts, layers=FROZEN_LAYERS, pad_id=pad_id)

    print("computing what the frozen layers make of every document", flush=True)
    return Corpus(
        train=stored(train_rows),
        train_labels=table.labels[train_rows],
        test=stored(np.sort(test_rows[:SCORED_TEXTS])),
        label_count=len(table.label_names),
    )


def _run(variant: Variant, seed: int, corpus: Corpus, rounds: int) -> Mapping[str, object]:
    started = time.process_time()
    model = load_text_classifier("minilm", corpus.label_count, dtype="bfloat16", seed=seed)
    skip_layers(model, layers=FROZEN_LAYERS)
    adapted = with_lora(model, rank=16, alpha=16, seed=seed)
    layout = adapter_layout(adapted)
    base = InitialBase(seed=seed)
    # Both bases start from the same adapter, so that they differ in nothing else.
    weights = base.initialise(layout, adapter_weights(adapted))
    config = _config(variant, layout, peft_config_json(adapted), base, rounds)
    clients = [
        PeftTrainer(adapted, corpus.train.subset(rows), collate=PadStates(), base_model_sha256=b"")
        for rows in _divide(corpus.train_labels, seed)
    ]
    scorer = PeftTrainer(
        adapted, corpus.train, corpus.test, collate=PadStates(), base_model_sha256=b""
    )
    federation = Federation(config, weights)
    draw = np.random.default_rng([seed, 1])
    down, up = 0, 0
    scored = {rounds - SCORED_EVERY * step for step in range(SCORED_ROUNDS)}
    scores: list[float] = []
    while federation.round_index < rounds:
        chosen = draw.choice(len(clients), COHORT, replace=False).tolist()
        seeds = draw.integers(2**63, size=COHORT).tolist()
        report = federation.run_round(
            Participation(trainer=clients[client], seed=training_seed)
            for client, training_seed in zip(chosen, seeds, strict=True)
        )
        down, up = down + report.payload_bytes_down, up + report.payload_bytes_up
        done = federation.round_index
        if done in scored:
            score = scorer.evaluate(federation.device_weights())
            if score is None:
                raise AssertionError("the scorer has held-out documents")
            scores.append(score.correct / score.total)
        print(f"\r  round {done} of {rounds}", end="", flush=True)
    accuracy = float(np.mean(scores))
    print(f"  {accuracy:.4f}: {' '.join(f'{score:.3f}' for score in scores)}", flush=True)
    return {
        "variant": variant.name,
        "density": variant.density,
        "encoding": variant.encoding,
        "base": variant.base,
        "seed": seed,
        "dim": layout.dim,
        "rounds": rounds,
        "accuracy": accuracy,
        "accuracy_of_scored_rounds": scores,
        "scored_texts": len(corpus.test),
        "payload_bytes_down": down,
        "payload_bytes_up": up,
        "dense_float32_bytes": 2 * 4 * layout.dim * COHORT * rounds,
        "cpu_seconds": round(time.process_time() - started, 1),
        **machine_facts("torch", "peft", "transformers"),
    }


def _config(
    variant: Variant, layout: AdapterLayout, peft_config: str, base: InitialBase, rounds: int
) -> TaskConfig:
    encoding = Encoding.parse(variant.encoding)
    bases: dict[str, Base] = {"zero": ZeroBase(), "initial": base}
    return TaskConfig(
        layout=layout,
        base_model=BaseModel(name="minilm@bfloat16", sha256=bytes(32)),
        peft_config_json=peft_config,
        training=TrainingPlan(learning_rate=0.3, batch_size=16, momentum=0.9),
        method=Flasc(
            download_density=variant.density, upload_density=variant.density, head_density=1.0
        ),
        optimizer=AdamW(learning_rate=5e-3, weight_decay=0.0),
        policy=RoundPolicy(goal=COHORT, quorum=COHORT, window=timedelta(hours=1)),
        ending=Ending(rounds=rounds),
        encodings=Encodings(download=encoding, updates=(encoding,)),
        base=bases[variant.base],
    )


def _divide(labels: NDArray[np.int64], seed: int) -> list[list[int]]:
    """Deal each label's documents out in shares of Dir(0.1); who gets none is no client."""
    draw = np.random.default_rng([seed, 0])
    owned: list[list[int]] = [[] for _ in range(CLIENTS)]
    for label in np.unique(labels):
        rows = draw.permutation(np.flatnonzero(labels == label))
        shares = draw.dirichlet(np.full(CLIENTS, CONCENTRATION))
        ends = np.round(np.cumsum(shares) * rows.size).astype(np.int64)
        for client, part in enumerate(np.split(rows, ends[:-1])):
            owned[client] += part.tolist()
    return [rows for rows in owned if rows]


if __name__ == "__main__":
    sys.exit(main())
