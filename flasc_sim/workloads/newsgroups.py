"""20 Newsgroups by date: which of twenty groups a post went to; owners are its authors.

The corpus comes by `data`, a parquet copy, or through scikit-learn's loader.
"""

from __future__ import annotations

from collections.abc import Mapping

from flasc_core.json_value import JsonValue
from flasc_sim.datasets import load_texts
from flasc_sim.workload import Sources, Workload
from flasc_sim.workloads._text import read_options, text_workload

__all__ = ["load"]


def load(options: Mapping[str, JsonValue], sources: Sources) -> Workload:
    """As the method's authors do, the last fifth of the shuffled training set is for validation."""
    chosen = read_options(options, tokens=64, frozen_layers=4, train_share=0.8)
    return text_workload(load_texts("20newsgroups", data=sources.data), chosen, sources)
