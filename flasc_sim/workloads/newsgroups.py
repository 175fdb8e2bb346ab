"""20 Newsgroups by date: which of twenty groups a post went to; owners are its authors.

The corpus comes by `data`, a parquet copy, or through scikit-learn's loader.
"""

from __future__ import annotations

from collections.abc import Mapping

from flasc_core.json_value import JsonValue
from flasc_sim.datasets import load_texts
from flasc_sim.workload import Sources, Workload
from flasc_sim.workloads._text import TextOptions, read_text_options, text_workload

__all__ = ["load", "read_options"]


def read_options(options: Mapping[str, JsonValue]) -> TextOptions:
    return read_text_options(options, tokens=64, frozen_layers=4, train_share=0.8)


def load(options: TextOptions, sources: Sources) -> Workload:
    """As the method's authors do, the last fifth of the shuffled training set is for validation."""
    return text_workload(load_texts("20newsgroups", data=sources.data), options, sources)
