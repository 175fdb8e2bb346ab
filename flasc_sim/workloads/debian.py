"""One-line descriptions of Debian packages: which section one is in; owners are maintainers."""

from __future__ import annotations

from collections.abc import Mapping

from flasc_core.json_value import JsonValue
from flasc_sim.datasets import load_texts
from flasc_sim.workload import Sources, Workload
from flasc_sim.workloads._text import read_options, text_workload

__all__ = ["load"]


def load(options: Mapping[str, JsonValue], sources: Sources) -> Workload:
    """The data come with the package."""
    chosen = read_options(options, tokens=24, frozen_layers=0, train_share=0.8)
    return text_workload(load_texts("debian-sections", data=sources.data), chosen, sources)
