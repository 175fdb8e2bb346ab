"""One-line descriptions of Debian packages: which section one is in; owners are maintainers."""

from __future__ import annotations

from collections.abc import Mapping

from flasc_core.json_value import JsonValue
from flasc_sim.datasets import load_texts
from flasc_sim.workload import Sources, Workload
from flasc_sim.workloads._text import TextOptions, read_text_options, text_workload

__all__ = ["load", "read_options"]


def read_options(options: Mapping[str, JsonValue]) -> TextOptions:
    return read_text_options(options, tokens=24, frozen_layers=0, train_share=0.8)


def load(options: TextOptions, sources: Sources) -> Workload:
    """The data come with the package."""
    return text_workload(load_texts("debian-sections", data=sources.data), options, sources)
