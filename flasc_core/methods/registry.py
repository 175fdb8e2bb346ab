"""Every method by the name that task configurations use."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from flasc_core.errors import Reason, Refusal
from flasc_core.json_value import JsonValue, read_text
from flasc_core.methods.adapter_lth import AdapterLth
from flasc_core.methods.densities import read_settings
from flasc_core.methods.federated_select import FederatedSelect
from flasc_core.methods.flasc import Flasc
from flasc_core.methods.frozen import FfaLora, HeadOnly, RoLora
from flasc_core.methods.hetlora import HetLora, PublishedHetLora
from flasc_core.methods.plan import Method
from flasc_core.methods.sparse_adapter import SparseAdapter

__all__ = ["METHODS", "method_from_json"]

_Kind = (
    type[Flasc]
    | type[SparseAdapter]
    | type[AdapterLth]
    | type[FederatedSelect]
    | type[HetLora]
    | type[PublishedHetLora]
    | type[FfaLora]
    | type[RoLora]
    | type[HeadOnly]
)

METHODS: Final[Mapping[str, _Kind]] = MappingProxyType(
    {
        "adapter_lth": AdapterLth,
        "federated_select": FederatedSelect,
        "ffa_lora": FfaLora,
        "flasc": Flasc,
        "head_only": HeadOnly,
        "hetlora": HetLora,
        "hetlora_published": PublishedHetLora,
        "rolora": RoLora,
        "sparse_adapter": SparseAdapter,
    }
)


def method_from_json(data: Mapping[str, JsonValue]) -> Method:
    """Read what `to_json` wrote; missing settings take their defaults. Refuses CONFIGURATION."""
    name = read_text(data, "name")
    kind = METHODS.get(name)
    if kind is None:
        raise Refusal(
            Reason.CONFIGURATION,
            f"method {name!r} is unknown; known are {', '.join(sorted(METHODS))}",
            field="name",
        )
    return read_settings(data, kind)
