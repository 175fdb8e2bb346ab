"""A task as devices see it: the TaskSpec message, made once and kept as bytes."""

from __future__ import annotations

from typing import Final

from aggregator_service.domain.tasks import TaskConfig, TrainingPlan
from flasc_core.pb.v1 import task_spec_pb2

__all__ = ["MAX_UNARY_PAYLOAD_BYTES", "encode_task_spec"]

# Larger payloads are streamed. Below gRPC's default limit of 4 MiB for one message.
MAX_UNARY_PAYLOAD_BYTES: Final = 2 << 20


def encode_task_spec(name: str, config: TaskConfig) -> bytes:
    spec = task_spec_pb2.TaskSpec(
        task_name=name,
        layout=config.layout.to_message(),
        base_model=task_spec_pb2.BaseModel(
            name=config.base_model.name, sha256=config.base_model.sha256
        ),
        training_plan=task_spec_pb2.TrainingPlan(
            **{field: getattr(config.training, field) for field in TrainingPlan.__slots__}
        ),
        peft_config_json=config.peft_config_json,
        accepted_encodings=[encoding.to_proto() for encoding in config.encodings.updates],
        max_abs_value=config.limits.max_abs_value,
        max_weight=config.limits.max_weight,
        max_unary_payload_bytes=MAX_UNARY_PAYLOAD_BYTES,
        initial_adapter=config.base.to_message(),
    )
    return spec.SerializeToString(deterministic=True)
