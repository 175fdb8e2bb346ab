"""A task's configuration as the API takes it, beside the domain's own values."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Annotated, Any, ClassVar

import pytest
from pydantic import BaseModel, ValidationError

from admin_api.schemas import task_config as schema
from admin_api.schemas.methods import METHOD_BODIES, method_body
from admin_api.schemas.privacy import PrivacyBody
from aggregator_service.domain.privacy import PrivacyMode
from aggregator_service.domain.rounds import RoundPolicy
from aggregator_service.domain.task_json import config_to_json, policy_to_json
from aggregator_service.domain.tasks import Ending, TrainingPlan, UpdateLimits
from flasc_core import server_update
from flasc_core.base import InitialBase
from flasc_core.methods import (
    METHODS,
    AdapterLth,
    FederatedSelect,
    FfaLora,
    Flasc,
    HeadOnly,
    HetLora,
    PublishedHetLora,
    RoLora,
    SparseAdapter,
)
from flasc_core.methods.settings import Density, Positive, Setting, read_settings
from flasc_core.server_update import Adam, AdamW, Sgd, optimizer_from_json
from tests.builders import a_config, a_privacy


def defaults_of(model: type[BaseModel]) -> dict[str, Any]:
    fields = model.model_fields.items()
    return {name: field.default for name, field in fields if not field.is_required()}


@pytest.mark.parametrize(
    ("model", "values"),
    [
        (
            schema.TrainingBody,
            {n: getattr(TrainingPlan(learning_rate=1), n) for n in TrainingPlan.__slots__},
        ),
        (schema.EndingBody, {n: getattr(Ending(rounds=1), n) for n in Ending.__slots__}),
        (schema.LimitsBody, {n: getattr(UpdateLimits(), n) for n in UpdateLimits.__slots__}),
        (
            schema.PolicyBody,
            policy_to_json(RoundPolicy(goal=1, quorum=1, window=timedelta(seconds=1))),
        ),
        (PrivacyBody, replace(a_privacy(), max_participations=None).to_json()),
        (schema.AdamWBody, AdamW(learning_rate=1).to_json()),
        (schema.AdamBody, Adam(learning_rate=1).to_json()),
        (schema.SgdBody, Sgd().to_json()),
    ],
)
def test_a_default_of_the_api_is_the_default_of_the_domain(
    model: type[BaseModel], values: dict[str, Any]
) -> None:
    defaults = defaults_of(model)

    assert defaults
    assert defaults == {name: values[name] for name in defaults}
    assert model.model_fields.keys() <= values.keys()


@dataclass(frozen=True, slots=True, kw_only=True)
class Halved(HeadOnly):
    """Half of everything.

    And more that operators need not read.
    """

    name: ClassVar[str] = "halved"

    share: Density
    kind: Annotated[str, Setting(choices=("upper", "lower"), description="Which half.")] = "upper"
    rank: Positive | None = None


def test_a_schema_is_made_of_a_method_s_settings() -> None:
    schema_of = method_body(Halved)
    told = schema_of.model_json_schema()

    assert told["title"] == "HalvedBody"
    assert told["description"] == "Half of everything."
    assert told["required"] == ["name", "share"]
    assert told["properties"]["name"]["const"] == "halved"
    assert told["properties"]["share"]["exclusiveMinimum"] == 0
    assert told["properties"]["share"]["maximum"] == 1
    assert told["properties"]["kind"]["enum"] == ["upper", "lower"]
    assert told["properties"]["kind"]["description"] == "Which half."
    assert told["properties"]["rank"]["default"] is None
    body = schema_of.model_validate({"name": "halved", "share": 0.5, "rank": 3})
    assert read_settings(body.model_dump(mode="json"), Halved) == Halved(share=0.5, rank=3)
    for wrong in ({"share": 2}, {"share": 1, "kind": "both"}, {"share": 1, "colour": 1}):
        with pytest.raises(ValidationError):
            schema_of.model_validate({"name": "halved", **wrong})


def test_every_method_and_optimizer_of_the_domain_can_be_asked_for() -> None:
    assert METHOD_BODIES.keys() == METHODS.keys()
    assert {"adam", "adamw", "sgd"} == set(server_update._READERS)
    assert optimizer_from_json({"name": "adam", "learning_rate": 1})


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"optimizer": Sgd(learning_rate=0.5, momentum=0.9)},
        {"method": Flasc(download_density=1, upload_density=0.1, head_density=1.0)},
        {"method": SparseAdapter(density=0.25, head_density=1.0)},
        {"method": AdapterLth(decay=0.5, decay_every=3)},
        {"method": FederatedSelect(density=0.5)},
        {"method": HetLora(rank=1, order="norm")},
        {"method": PublishedHetLora(rank=2, prune_to=1, penalty=0.5)},
        {"method": FfaLora(upload_density=0.5), "base": InitialBase(seed=3)},
        {"method": RoLora(download_density=0.25)},
        {"method": HeadOnly()},
        {"fold_shards": 4, "limits": UpdateLimits(max_weight=8, largest_cohort=128)},
        {"ending": Ending(rounds=3, target_accuracy=0.9, final_evaluation=False)},
        {"privacy": a_privacy()},
        {"privacy": replace(a_privacy(), mode=PrivacyMode.FIXED_SIZE, population=9)},
    ],
)
def test_a_configuration_comes_back_as_it_was(changes: dict[str, Any]) -> None:
    config = a_config(**changes)

    body = schema.TaskConfigBody.of(config)

    assert body.to_domain() == config
    assert body.model_dump(mode="json") == config_to_json(config)
