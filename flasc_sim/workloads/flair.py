"""FLAIR: which of 17 classes of things a photograph shows, any number; owners took them.

The photographs come by `data`, a folder, or from a hub.
"""

from __future__ import annotations

from collections.abc import Mapping

from flasc_core.json_value import JsonValue
from flasc_sim.datasets.image_files import load_flair
from flasc_sim.workload import Sources, Workload
from flasc_sim.workloads._images import image_workload, read_options

__all__ = ["load"]


def load(options: Mapping[str, JsonValue], sources: Sources) -> Workload:
    """Users train, validate or are scored, as the data set has it."""
    return image_workload(load_flair(sources.data), read_options(options), sources)
