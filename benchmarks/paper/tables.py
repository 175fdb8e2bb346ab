"""What each table compares: a task, and the methods it is run with.

tasks/TASK.toml holds what all runs of a task share, methods/METHOD.toml what tells one of them from
the others. A section of a method that has a name takes the place of the task's, others add to it.
`one+two` is both files, one after the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from flasc_sim.settings import RunSettings, read_settings, read_table

__all__ = ["TABLES", "Table", "plan_run"]

_HERE: Final = Path(__file__).parent
_BASELINES: Final = (
    "dense-r16",
    "dense-r4",
    "dense-r1",
    "dense-r4-alpha16",
    "dense-r1-alpha16",
    "head-only",
    "ffa-lora",
    "rolora",
    "adapter-lth",
    "sparse-adapter-1-4",
    "federated-select-1-4",
    "hetlora-rank-r4",
    "hetlora-norm-r4",
)
_FLASC: Final = (
    "flasc-1-4",
    "flasc-1-16",
    "flasc-1-64",
    "flasc-1-4-head",
    "flasc-1-16-head",
    "flasc-1-64-head",
)
_INITIAL: Final = (
    "flasc-1-4-initial",
    "flasc-1-16-initial",
    "flasc-1-64-initial",
    "flasc-1-4-head-initial",
    "flasc-1-16-head-initial",
    "flasc-1-64-head-initial",
)
_ONE_WAY: Final = ("upload-1-16", "download-1-16")
_ALL: Final = (
    *_BASELINES,
    *_FLASC,
    *_INITIAL,
    "adapter-lth-head",
    "sparse-adapter-1-4-head",
    "federated-select-1-4-head",
    *_ONE_WAY,
    "sparse-adapter-1-16",
    "federated-select-1-16",
    "hetlora-rank-r1",
    "hetlora-norm-r1",
)
# Of a model without a head: it can not train alone, and where it is dense the rest is told already.
_HEADLESS: Final = tuple(method for method in _ALL if "head" not in method.split("-"))
# Each without noise, and then with more and more.
_PRIVATE: Final = tuple(
    method + noise
    for method in ("dense-r16", "flasc-1-4-head", "ffa-lora-r1", "head-only")
    for noise in ("", "+epsilon-10", "+epsilon-3", "+epsilon-1")
)
# Those that a larger rate of the server's may put in another order.
_RATED: Final = (
    "dense-r16",
    "dense-r4",
    "dense-r1",
    "flasc-1-4",
    "flasc-1-4-head",
    "flasc-1-16-head",
    "flasc-1-64-head",
    "ffa-lora",
    "adapter-lth",
    "hetlora-rank-r4",
)
_TIERS: Final = (
    "tiers-flasc-paper",
    "tiers-flasc",
    "tiers-flasc-head",
    "tiers-hetlora-rank",
    "tiers-hetlora-norm",
    "tiers-hetlora-published",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """`heading` says what was run, also in figures.

    `dense` is the TABLE/METHOD of dense float32 LoRA of rank 16, whose bytes others are held to.
    """

    task: str
    heading: str
    methods: tuple[str, ...]
    dense: str


TABLES: Final[Mapping[str, Table]] = MappingProxyType(
    {
        "newsgroups": Table(
            task="newsgroups",
            dense="newsgroups/dense-r16-float32",
            heading="20 Newsgroups, 350 clients, Dir(0.1), MiniLM",
            methods=(
                *_ALL,
                "found-by-growth",
                "found-by-search",
                "flasc-r4-1-4-int4",
                "dense-r2-int4",
                "flasc-1-16-head-int4",
                "dense-r16-float32",
                "flasc-1-16-float32",
            ),
        ),
        "images": Table(
            task="images",
            dense="images/dense-r16-float32",
            heading="CIFAR-10, 500 clients, Dir(0.1), MobileNet",
            methods=(*_ALL, "rolora-averaging", "dense-r16-float32"),
        ),
        "natural": Table(
            task="natural",
            dense="natural/dense-r16-float32",
            heading="Debian sections, 403 maintainers, MiniLM",
            methods=(
                *_ALL,
                "dense-r16-initial",
                "dense-r1-initial",
                "dense-r16-float32",
            ),
        ),
        **{
            f"natural-{rate}": Table(
                task="natural",
                dense="natural/dense-r16-float32",
                heading=f"Debian sections, 403 maintainers, MiniLM, server's rate {rate}",
                methods=tuple(f"{method}+rate-{rate}" for method in _RATED),
            )
            for rate in ("3.5e-3", "5e-3", "7e-3")
        },
        "private": Table(
            task="private",
            dense="private/dense-r16-float32",
            heading="20 Newsgroups, its 5,755 authors, MiniLM's top layer",
            methods=(*_PRIVATE, "dense-r16-float32"),
        ),
        "tiers": Table(
            task="newsgroups",
            dense="newsgroups/dense-r16-float32",
            heading="20 Newsgroups, 350 clients in three tiers, MiniLM",
            methods=_TIERS,
        ),
        "paper-cifar10": Table(
            task="paper-cifar10",
            dense="paper-cifar10/dense-r16",
            heading="CIFAR-10, 500 clients, Dir(0.1), ViT-B/16",
            methods=_ALL,
        ),
        "paper-flair": Table(
            task="paper-flair",
            dense="paper-flair/dense-r16",
            heading="FLAIR, its users, ViT-B/16",
            methods=_ALL,
        ),
        "paper-newsgroups": Table(
            task="paper-newsgroups",
            dense="paper-newsgroups/dense-r16",
            heading="20 Newsgroups, 350 clients, Dir(0.1), GPT-2",
            methods=_ALL,
        ),
        "paper-tiers": Table(
            task="paper-newsgroups",
            dense="paper-newsgroups/dense-r16",
            heading="20 Newsgroups, 350 clients in three tiers, GPT-2",
            methods=_TIERS,
        ),
        "paper-reddit": Table(
            task="paper-reddit",
            dense="paper-reddit/dense-r16",
            heading="Reddit, its users, GPT-2",
            methods=_HEADLESS,
        ),
    }
)


def plan_run(table: str, method: str, seed: int, *, rounds: int | None = None) -> RunSettings:
    """Return the settings of one run; `rounds` cuts it short. Raises ValueError and OSError."""
    merged = read_table(_HERE / "tasks" / f"{TABLES[table].task}.toml")
    for part in method.split("+"):
        merged = _merged(merged, read_table(_HERE / "methods" / f"{part}.toml"))
    if rounds is not None:
        merged["ending"] = {**merged["ending"], "rounds": rounds}
    return read_settings({**merged, "seed": seed}, name=method)


def _merged(task: Mapping[str, Any], method: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(task)
    for name, section in method.items():
        adds = isinstance(section, dict) and "name" not in section
        merged[name] = {**merged.get(name, {}), **section} if adds else section
    return merged
