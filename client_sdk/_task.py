"""The task as this device holds it, and whether the device's model fits it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from client_sdk._errors import (
    BaseModelMismatch,
    LayoutMismatch,
    ProtocolError,
    translate_refusal,
)
from client_sdk.trainer import TrainingPlan
from flasc_core.base import Base, base_from_message
from flasc_core.errors import Reason, Refusal
from flasc_core.layout import AdapterLayout
from flasc_core.pb.v1 import task_spec_pb2
from flasc_core.wire import Encoding

__all__ = ["Task", "check_base_model", "check_layout", "digest", "read_task"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A TaskSpec, checked. `sha256` is of the bytes that it was read from."""

    sha256: bytes
    layout: AdapterLayout
    base_model_name: str
    base_model_sha256: bytes
    plan: TrainingPlan
    max_abs_value: float
    max_weight: int
    max_unary_payload_bytes: int
    encoding: Encoding
    base: Base


def digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def read_task(data: bytes) -> Task:
    """Raises ProtocolError, or LayoutMismatch where its fingerprint contradicts its tensors."""
    try:
        spec = task_spec_pb2.TaskSpec.FromString(data)
        return Task(
            sha256=digest(data),
            layout=AdapterLayout.from_message(spec.layout),
            base_model_name=spec.base_model.name,
            base_model_sha256=spec.base_model.sha256,
            plan=TrainingPlan.from_message(spec.training_plan),
            max_abs_value=spec.max_abs_value,
            max_weight=max(spec.max_weight, 1),
            max_unary_payload_bytes=spec.max_unary_payload_bytes,
            encoding=Encoding.choose(spec.accepted_encodings),
            base=base_from_message(
                spec.initial_adapter if spec.HasField("initial_adapter") else None
            ),
        )
    except DecodeError as error:
        raise ProtocolError("the task specification is not a TaskSpec") from error
    except Refusal as refusal:
        raise translate_refusal(refusal) from refusal


def check_base_model(task: Task, sha256: bytes) -> None:
    """Raises BaseModelMismatch unless the frozen weights are the task's."""
    if task.base_model_sha256 != sha256:
        raise BaseModelMismatch(
            f"the task trains on {task.base_model_name!r} with digest "
            f"{task.base_model_sha256.hex()}, but this model's frozen weights have "
            f"{sha256.hex()}; load the same revision in the same dtype",
            reason=Reason.BASE_MODEL_MISMATCH,
        )


def check_layout(task: Task, layout: AdapterLayout) -> None:
    """Raises LayoutMismatch, naming the first differences, unless the layouts are the same."""
    if task.layout.fingerprint != layout.fingerprint:
        raise LayoutMismatch(
            f"this model's adapter is not the task's: {_difference(task.layout, layout)}; "
            "build it from the task's PEFT configuration",
            reason=Reason.LAYOUT_MISMATCH,
        )


def _difference(wanted: AdapterLayout, found: AdapterLayout) -> str:
    theirs = {tensor.name: tensor for tensor in wanted.tensors}
    ours = {tensor.name: tensor for tensor in found.tensors}
    if missing := sorted(theirs.keys() - ours.keys()):
        return f"{len(missing)} of {len(theirs)} tensors are missing, first {missing[0]!r}"
    if extra := sorted(ours.keys() - theirs.keys()):
        return f"it has {len(extra)} tensors too many, first {extra[0]!r}"
    for name, tensor in theirs.items():
        other = ours[name]
        if tensor.shape != other.shape:
            return f"{name!r} has shape {other.shape}, not {tensor.shape}"
        if tensor.role != other.role:
            return f"{name!r} has role {other.role}, not {tensor.role}"
    return "the same tensors stand in another order"
