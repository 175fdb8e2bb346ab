"""A task's configuration, as operators write it; a test holds its defaults to the domain's."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field

from admin_api.schemas.common import Digest, Input, Positive, Whole
from admin_api.schemas.methods import MethodBody
from admin_api.schemas.privacy import PrivacyBody
from aggregator_service.domain.task_json import config_from_json, config_to_json
from aggregator_service.domain.tasks import TaskConfig
from flasc_core.layout import Role
from flasc_core.wire import Encoding

__all__ = ["TaskConfigBody"]


class TensorBody(Input):
    """One trainable tensor, in the order of the model's named_parameters()."""

    name: str = Field(
        min_length=1, examples=["base_model.model.layer.0.query.lora_A.default.weight"]
    )
    shape: list[int] = Field(min_length=1, examples=[[16, 384]])
    role: Role


class BaseModelBody(Input):
    name: str = Field(examples=["all-MiniLM-L6-v2"])
    sha256: Digest


class TrainingBody(Input):
    """Local SGD on devices."""

    learning_rate: float = Field(gt=0, examples=[0.1])
    batch_size: Positive = 16
    local_epochs: Positive = 1
    max_steps: Whole = Field(default=0, description="0: as many as the epochs give.")
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=0.0, ge=0)


class AdamWBody(Input):
    name: Literal["adamw"]
    learning_rate: float = Field(gt=0, examples=[0.002])
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.999, ge=0, lt=1)
    epsilon: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)


class AdamBody(Input):
    """AdamW without weight decay; answers name it adamw."""

    name: Literal["adam"]
    learning_rate: float = Field(gt=0, examples=[0.002])
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.999, ge=0, lt=1)
    epsilon: float = Field(default=1e-8, gt=0)


class SgdBody(Input):
    """Federated averaging at a learning rate of 1 without momentum."""

    name: Literal["sgd"]
    learning_rate: float = Field(default=1.0, gt=0)
    momentum: float = Field(default=0.0, ge=0, lt=1)


class PolicyBody(Input):
    """How many devices a round wants, and for how long."""

    goal: Positive = Field(description="Reports that end the collecting.", examples=[10])
    quorum: Positive = Field(description="The fewest updates that count.", examples=[5])
    window_seconds: float = Field(gt=0, examples=[3600])
    over_selection: float = Field(
        default=1.0, ge=1, le=10, description="Devices assigned at once, times the goal."
    )
    minimum_cohort: Positive = 1
    minimum_separation: Whole = Field(
        default=0, description="Rounds that a device sits out after an accepted update."
    )
    retry_min_seconds: float = Field(default=30.0, ge=0)
    retry_max_seconds: float = Field(default=90.0, ge=0)


class EndingBody(Input):
    rounds: Positive = Field(description="Published rounds.", examples=[50])
    target_accuracy: float | None = Field(default=None, gt=0, le=1)
    final_evaluation: bool = True


class LimitsBody(Input):
    max_abs_value: float = Field(default=64.0, gt=0)
    max_weight: Positive = Field(
        default=1, description="Above 1, updates count by their examples, up to this many."
    )
    largest_cohort: Positive = 65_536


EncodingName = Annotated[str, Field(json_schema_extra={"enum": list(Encoding.names())})]


class EncodingsBody(Input):
    """How sparse vectors are written; "plain" is always accepted from devices."""

    download: EncodingName = Field(default="int6", examples=["int8"])
    updates: list[EncodingName] = Field(
        default=["int6"],
        description="Accepted from devices, the preferred first.",
        examples=[["int6"]],
    )


class ZeroBaseBody(Input):
    """Weights are sent as they are."""

    name: Literal["zero"]


class InitialBaseBody(Input):
    """Weights are sent as differences from the initial adapter that devices draw from the seed."""

    name: Literal["initial"]
    seed: int = Field(ge=0, le=2**63 - 1)


class TierBody(Input):
    """Devices that run a method of their own."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$", examples=["phone"])
    method: MethodBody


class TaskConfigBody(Input):
    """Everything about a task that never changes."""

    layout: list[TensorBody] = Field(min_length=1)
    base_model: BaseModelBody
    peft_config_json: str = Field(
        description="PEFT's adapter_config.json, as text.",
        examples=['{"peft_type": "LORA", "r": 16, "lora_alpha": 16, "target_modules": ["query"]}'],
    )
    training: TrainingBody
    method: MethodBody
    optimizer: Annotated[AdamWBody | AdamBody | SgdBody, Field(discriminator="name")]
    policy: PolicyBody
    ending: EndingBody
    limits: LimitsBody = LimitsBody()
    encodings: EncodingsBody = EncodingsBody()
    base: Annotated[ZeroBaseBody | InitialBaseBody, Field(discriminator="name")] = ZeroBaseBody(
        name="zero"
    )
    tiers: list[TierBody] = Field(
        default=[], description="Devices of other tiers, or of none, run `method`."
    )
    fold_shards: int = Field(default=1, ge=1, le=64)
    privacy: PrivacyBody | None = None

    @classmethod
    def of(cls, config: TaskConfig) -> Self:
        return cls.model_validate(config_to_json(config))

    def to_domain(self) -> TaskConfig:
        """Refuses CONFIGURATION; `TaskConfig.check` does the rest."""
        fields: dict[str, Any] = self.model_dump(mode="json")
        return config_from_json(fields)
