"""FLAIR: which of 17 classes of things a photograph shows, any number; owners took them.

The photographs come by `data`, a folder, or from a hub.
"""

from __future__ import annotations

from flasc_sim.datasets.image_files import load_flair
from flasc_sim.workload import Sources, Workload
from flasc_sim.workloads._images import ImageOptions, image_workload, read_options

__all__ = ["load", "read_options"]


def load(options: ImageOptions, sources: Sources) -> Workload:
    """Users train, validate or are scored, as the data set has it."""
    return image_workload(load_flair(sources.data), options, sources)
