"""CIFAR-10: which of ten things an image shows; nobody owns the images.

They come by `data`, a copy, or from a hub. The model is MobileNet, from a file of weights, or a
hub's encoder, such as google/vit-base-patch16-224-in21k.
"""

from __future__ import annotations

from flasc_sim.datasets.image_files import load_cifar10
from flasc_sim.workload import Sources, Workload
from flasc_sim.workloads._images import ImageOptions, image_workload, read_options

__all__ = ["load", "read_options"]


def load(options: ImageOptions, sources: Sources) -> Workload:
    """As the method's authors do, the last fifth of the training set is for validation."""
    return image_workload(load_cifar10(sources.data), options, sources)
