"""Methods as values: what goes down to devices, what may train, and what comes back."""

from flasc_core.methods.adapter_lth import AdapterLth
from flasc_core.methods.federated_select import FederatedSelect
from flasc_core.methods.flasc import Flasc
from flasc_core.methods.frozen import FfaLora, HeadOnly, RoLora
from flasc_core.methods.hetlora import HetLora, PublishedHetLora
from flasc_core.methods.plan import (
    Averaging,
    KeepLargest,
    KeepRanks,
    Method,
    RankOrder,
    RankPenalty,
    RoundPlan,
    TrainRule,
    UploadRule,
    WeightKind,
    WeightRule,
)
from flasc_core.methods.ranks import product_norm, steps_down, weigh
from flasc_core.methods.registry import METHODS, method_from_json
from flasc_core.methods.selection import (
    apply_upload_rule,
    check_upload,
    mask_composition,
    select,
    trainable_mask,
)
from flasc_core.methods.sparse_adapter import SparseAdapter

__all__ = [
    "METHODS",
    "AdapterLth",
    "Averaging",
    "FederatedSelect",
    "FfaLora",
    "Flasc",
    "HeadOnly",
    "HetLora",
    "KeepLargest",
    "KeepRanks",
    "Method",
    "PublishedHetLora",
    "RankOrder",
    "RankPenalty",
    "RoLora",
    "RoundPlan",
    "SparseAdapter",
    "TrainRule",
    "UploadRule",
    "WeightKind",
    "WeightRule",
    "apply_upload_rule",
    "check_upload",
    "mask_composition",
    "method_from_json",
    "product_norm",
    "select",
    "steps_down",
    "trainable_mask",
    "weigh",
]
