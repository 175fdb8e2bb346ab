"""Federated methods, as operators choose them; a test holds their defaults to the domain's."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from admin_api.schemas.common import Input, Positive

__all__ = [
    "AdapterLthBody",
    "FederatedSelectBody",
    "FfaLoraBody",
    "FlascBody",
    "HeadOnlyBody",
    "HetLoraBody",
    "MethodBody",
    "PublishedHetLoraBody",
    "RoLoraBody",
    "SparseAdapterBody",
]

Density = Annotated[float, Field(gt=0, le=1)]
HeadDensity = Annotated[
    Density | None,
    Field(description="The head ranked alone at this density; null: with the rest."),
]


class FlascBody(Input):
    """FLASC; dense LoRA at densities of 1."""

    name: Literal["flasc"]
    download_density: Density = Field(examples=[0.25])
    upload_density: Density = Field(examples=[0.25])
    head_density: HeadDensity = None
    upload_ranks_head: bool = Field(
        default=False, description="The head is ranked with the rest on the way up all the same."
    )
    decay: Density = 1.0
    decay_every: Positive = 1
    clip_norm: float = Field(default=0.0, ge=0, description="0: no clipping.")


class SparseAdapterBody(Input):
    """One dense round, then the mask of the weights that were largest after it."""

    name: Literal["sparse_adapter"]
    density: Density = Field(examples=[0.25])
    head_density: HeadDensity = None


class AdapterLthBody(Input):
    """Nothing but the largest weights trains, and every few rounds fewer of them."""

    name: Literal["adapter_lth"]
    density: Density = 1.0
    decay: Density = 0.98
    decay_every: Positive = 1
    head_density: HeadDensity = None


class FederatedSelectBody(Input):
    """Nothing but each round's largest weights trains."""

    name: Literal["federated_select"]
    density: Density = Field(examples=[0.25])
    head_density: HeadDensity = None


class HetLoraBody(Input):
    """The first, or the largest, ranks of every LoRA module; the head is whole."""

    name: Literal["hetlora"]
    rank: Positive = Field(examples=[4])
    order: Literal["index", "norm"] = Field(
        default="index", description="norm: by L2 norm, of A and of B independently."
    )


class PublishedHetLoraBody(Input):
    """HetLoRA with rank self-pruning and aggregation by norms, as its paper has it."""

    name: Literal["hetlora_published"]
    rank: Positive = Field(examples=[16])
    prune_to: Positive | None = Field(
        default=None, description="The next tier's rank; null for no self-pruning.", examples=[8]
    )
    penalty: float = Field(default=0.0, ge=0, description="Of the ranks beyond `prune_to`.")
    weight_unit: float = Field(default=0.01, gt=0, description="Norm per step of weight.")


class FfaLoraBody(Input):
    """LoRA's A factors stay as devices draw them; needs the base initial."""

    name: Literal["ffa_lora"]
    download_density: Density = 1.0
    upload_density: Density = 1.0
    head_density: HeadDensity = None


class RoLoraBody(Input):
    """LoRA's B factors train in even rounds, its A factors in odd ones, the head in all."""

    name: Literal["rolora"]
    download_density: Density = 1.0
    upload_density: Density = 1.0
    head_density: HeadDensity = None


class HeadOnlyBody(Input):
    """Nothing but the head trains."""

    name: Literal["head_only"]


MethodBody = Annotated[
    FlascBody
    | SparseAdapterBody
    | AdapterLthBody
    | FederatedSelectBody
    | HetLoraBody
    | PublishedHetLoraBody
    | FfaLoraBody
    | RoLoraBody
    | HeadOnlyBody,
    Field(discriminator="name"),
]
