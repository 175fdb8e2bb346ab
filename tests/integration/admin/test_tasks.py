"""Tasks over REST."""

from __future__ import annotations

import json
from dataclasses import MISSING, replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from safetensors.numpy import save

from aggregator_service.app.adapter_files import load_weights
from aggregator_service.domain.task_json import config_to_json
from flasc_core.methods import METHODS
from flasc_core.methods.settings import fields_of
from tests.builders import NOW, a_config, a_policy, a_task, an_adapter, stored
from tests.support.operator import Operator, task_parts


def adapter_of(**changes: Any) -> bytes:
    """The tensors of the builders' layout, some of them changed; None leaves one out."""
    tensors = a_config().layout.split(np.zeros(24, dtype=np.float32)) | changes
    return save({name: tensor for name, tensor in tensors.items() if tensor is not None})


def test_a_created_task_holds_its_configuration_and_its_initial_adapter(
    operator: Operator,
) -> None:
    config = a_config(policy=a_policy(minimum_separation=2))
    weights = np.arange(24, dtype=np.float32)

    answer = operator.post("/v1/tasks", files=task_parts("a-task", config, weights))

    assert answer.status_code == 201
    task = operator.store.read("get", lambda tx: tx.tasks.get_by_name("a-task"))
    assert task is not None
    assert task.config == config
    adapter = operator.store.read("get", lambda tx: tx.adapters.latest(task.id))
    assert adapter is not None
    assert load_weights(operator.blobs, adapter).tolist() == weights.tolist()
    shown = answer.json()
    assert shown["id"] == str(task.id)
    assert shown["latest_version"] == 0
    assert shown["latest_round"] | {"id": ""} == {"id": "", "number": 1, "state": "PENDING"}
    assert shown["dimension"] == 24
    assert shown["layout_fingerprint"] == config.layout.fingerprint.hex()


def test_a_task_shows_the_configuration_that_made_it(operator: Operator) -> None:
    config = a_config()
    created = operator.post("/v1/tasks", files=task_parts(config=config)).json()

    assert created["config"] == config_to_json(config)
    for reference in ("a-task", created["id"]):
        assert operator.get(f"/v1/tasks/{reference}").json() == created


def test_every_part_of_a_new_task_may_be_sent_as_a_file(operator: Operator) -> None:
    parts = {name: (f"{name}.bin", content) for name, (_, content) in task_parts().items()}

    assert operator.post("/v1/tasks", files=parts).status_code == 201


def test_an_adapter_that_peft_saved_makes_a_task(operator: Operator) -> None:
    layout = a_config().layout
    names = {"layer.lora_A": "m.lora_A.default.weight", "head": "m.head.modules_to_save.default.w"}
    renamed = replace(
        layout,
        tensors=tuple(replace(t, name=names.get(t.name, t.name)) for t in layout.tensors),
    )
    weights = np.arange(24, dtype=np.float32)
    tensors = renamed.split(weights)
    saved = {
        "m.lora_A.weight": tensors["m.lora_A.default.weight"],
        "layer.lora_B": tensors["layer.lora_B"],
        "m.head.w": tensors["m.head.modules_to_save.default.w"],
    }

    answer = operator.post(
        "/v1/tasks", files=task_parts(config=a_config(layout=renamed), adapter=save(saved))
    )

    assert answer.status_code == 201
    adapter = operator.store.read(
        "get", lambda tx: tx.adapters.latest(tx.tasks.page(limit=1, after=None)[0].id)
    )
    assert adapter is not None
    assert load_weights(operator.blobs, adapter).tolist() == weights.tolist()


@pytest.mark.parametrize(
    ("adapter", "status", "reason", "tensor"),
    [
        (b"no safetensors", 400, "MALFORMED_MESSAGE", None),
        (adapter_of(head=None), 422, "LAYOUT_MISMATCH", "head"),
        (adapter_of(tail=np.zeros(1, np.float32)), 422, "LAYOUT_MISMATCH", "tail"),
        (adapter_of(head=np.zeros((4, 2), np.float32)), 422, "LAYOUT_MISMATCH", "head"),
        (adapter_of(head=np.zeros((2, 4), np.float64)), 422, "LAYOUT_MISMATCH", "head"),
        (adapter_of(head=np.full((2, 4), np.nan, np.float32)), 422, "NON_FINITE", "head"),
        (adapter_of(head=np.full((2, 4), np.inf, np.float32)), 422, "NON_FINITE", "head"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused_by_tensor(
    operator: Operator, adapter: bytes, status: int, reason: str, tensor: str | None
) -> None:
    answer = operator.post("/v1/tasks", files=task_parts(adapter=adapter))

    assert (answer.status_code, answer.json()["reason"]) == (status, reason)
    assert answer.json()["facts"].get("tensor") == tensor
    assert operator.get("/v1/tasks").json()["items"] == []


def changed(path: str, value: Any) -> str:
    """The builders' configuration as JSON with one field set, or removed by None."""
    config: Any = config_to_json(a_config())
    *parents, last = path.split(".")
    inner = config
    for parent in parents:
        inner = inner[parent]
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    return json.dumps(config)


@pytest.mark.parametrize(
    ("config", "status", "reason", "named"),
    [
        ("{", 400, "MALFORMED_MESSAGE", "config"),
        ("[]", 422, "FIELD_RANGE", "config"),
        (changed("training", None), 422, "FIELD_RANGE", "training"),
        (changed("training.learning_rate", None), 422, "FIELD_RANGE", "learning_rate"),
        (changed("training.learning_rat", 1.0), 422, "FIELD_RANGE", "learning_rat"),
        (changed("training.batch_size", "16"), 422, "FIELD_RANGE", "batch_size"),
        (changed("training.learning_rate", float("inf")), 422, "FIELD_RANGE", "learning_rate"),
        (changed("method.name", "magic"), 422, "FIELD_RANGE", "method"),
        (changed("method.download_density", 1.5), 422, "FIELD_RANGE", "download_density"),
        (changed("method.download_density", 0.001), 422, "CONFIGURATION", "keeps none"),
        (changed("policy.quorum", 9), 422, "CONFIGURATION", "quorum"),
        (changed("peft_config_json", "[]"), 422, "CONFIGURATION", "peft_config_json"),
        (changed("base_model.sha256", "00"), 422, "FIELD_RANGE", "sha256"),
        (changed("layout", []), 422, "FIELD_RANGE", "layout"),
        (changed("limits.max_weight", 1 << 20), 422, "CONFIGURATION", ""),
    ],
)
def test_a_configuration_that_could_not_run_is_refused_by_field(
    operator: Operator, config: str, status: int, reason: str, named: str
) -> None:
    answer = operator.post("/v1/tasks", files=task_parts(config=None) | {"config": (None, config)})

    assert (answer.status_code, answer.json()["reason"]) == (status, reason)
    assert named in answer.json()["detail"]
    assert operator.get("/v1/tasks").json()["items"] == []


@pytest.mark.parametrize(
    ("method", "setting"),
    [
        (name, field.name)
        for name, kind in METHODS.items()
        for field in fields_of(kind)
        if field.setting.choices
    ],
)
def test_a_setting_that_is_none_of_its_choices_is_told_what_they_are(
    operator: Operator, method: str, setting: str
) -> None:
    fields = {field.name: field for field in fields_of(METHODS[method])}
    examples = {name: field.setting.example for name, field in fields.items()}
    required = {name: examples[name] for name in fields if fields[name].default is MISSING}
    config = changed("method", {"name": method} | required | {setting: "none-of-them"})

    answer = operator.post("/v1/tasks", files=task_parts(config=None) | {"config": (None, config)})

    assert (answer.status_code, answer.json()["reason"]) == (422, "FIELD_RANGE")
    *others, last = (f"'{choice}'" for choice in fields[setting].setting.choices)
    told = f"{setting}: Input should be {', '.join(others)} or {last}"
    assert answer.json()["detail"].endswith(told)


@pytest.mark.parametrize("part", ["name", "config", "adapter"])
def test_a_new_task_without_one_of_its_parts_is_refused(operator: Operator, part: str) -> None:
    parts = task_parts()
    del parts[part]

    answer = operator.post("/v1/tasks", files=parts)

    assert (answer.status_code, answer.json()["reason"]) == (422, "FIELD_REQUIRED")
    assert answer.json()["facts"] == {"field": part}


@pytest.mark.parametrize("request_", [{"json": {}}, {"content": b""}, {"data": {"nothing": "x"}}])
def test_a_new_task_that_is_no_form_of_three_parts_is_refused(
    operator: Operator, request_: dict[str, Any]
) -> None:
    answer = operator.post("/v1/tasks", **request_)

    assert (answer.status_code, answer.json()["reason"]) == (422, "FIELD_REQUIRED")


def test_a_form_that_breaks_off_is_malformed(operator: Operator) -> None:
    answer = operator.post(
        "/v1/tasks",
        content=b'--x\r\nContent-Disposition: form-data; name="config"\r\n\r\n{',
        headers={"Content-Type": "multipart/form-data; boundary=x"},
    )

    assert answer.status_code in {400, 422}
    assert answer.json()["reason"] in {"MALFORMED_MESSAGE", "FIELD_REQUIRED"}


def test_a_form_with_more_parts_than_a_task_has_is_malformed(operator: Operator) -> None:
    extra = {f"part{n}": (None, "x") for n in range(9)}

    answer = operator.post("/v1/tasks", files=task_parts() | extra)

    assert (answer.status_code, answer.json()["reason"]) == (400, "MALFORMED_MESSAGE")


@pytest.mark.parametrize("name", ["", "Upper", "has space", "a" * 64, "-dash", b"\xff"])
def test_a_task_name_that_is_no_name_is_refused(operator: Operator, name: str | bytes) -> None:
    answer = operator.post("/v1/tasks", files=task_parts() | {"name": ("name", name)})

    assert answer.json()["reason"] in {"CONFIGURATION", "MALFORMED_MESSAGE"}
    assert operator.get("/v1/tasks").json()["items"] == []


def test_a_task_name_is_taken_once(operator: Operator) -> None:
    operator.post("/v1/tasks", files=task_parts("once"))

    answer = operator.post("/v1/tasks", files=task_parts("once"))

    assert (answer.status_code, answer.json()["reason"]) == (409, "NAME_TAKEN")
    assert len(operator.get("/v1/tasks").json()["items"]) == 1


def test_a_task_is_paused_resumed_and_cancelled(operator: Operator) -> None:
    operator.post("/v1/tasks", files=task_parts())

    states = [
        operator.post(f"/v1/tasks/a-task/{verb}").json()["state"]
        for verb in ("pause", "pause", "resume", "cancel", "cancel")
    ]

    assert states == ["PAUSED", "PAUSED", "RUNNING", "CANCELLED", "CANCELLED"]
    assert operator.get("/v1/tasks/a-task").json()["latest_round"]["state"] == "ABORTED"


@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_a_cancelled_task_stays_cancelled(operator: Operator, verb: str) -> None:
    operator.post("/v1/tasks", files=task_parts())
    operator.post("/v1/tasks/a-task/cancel")

    answer = operator.post(f"/v1/tasks/a-task/{verb}")

    assert (answer.status_code, answer.json()["reason"]) == (409, "TASK_STATE")
    assert operator.get("/v1/tasks/a-task").json()["state"] == "CANCELLED"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("GET", "/rounds"),
        ("GET", "/adapters"),
        ("GET", "/adapters/latest/peft.zip"),
        ("GET", "/adapters/0/adapter.safetensors"),
        ("POST", "/pause"),
        ("POST", "/resume"),
        ("POST", "/cancel"),
    ],
)
def test_an_unknown_task_is_not_found(operator: Operator, method: str, path: str) -> None:
    for reference in ("no-task", str(uuid4())):
        answer = operator.send(method, f"/v1/tasks/{reference}{path}")

        assert (answer.status_code, answer.json()["reason"]) == (404, "TASK_UNKNOWN")
        assert answer.headers["content-type"] == "application/problem+json"


def test_tasks_come_in_pages_newest_first(operator: Operator) -> None:
    for n in range(5):
        task = a_task(name=f"task-{n}", created_at=NOW + timedelta(hours=n))
        stored(operator.store, task, an_adapter(task))

    pages = operator.pages("/v1/tasks", limit=2)

    assert [[task["name"] for task in page] for page in pages] == [
        ["task-4", "task-3"],
        ["task-2", "task-1"],
        ["task-0"],
    ]


@pytest.mark.parametrize("limit", ["0", "201", "x", "-1"])
def test_a_page_size_out_of_bounds_is_refused(operator: Operator, limit: str) -> None:
    answer = operator.get(f"/v1/tasks?limit={limit}")

    assert (answer.status_code, answer.json()["reason"]) == (422, "FIELD_RANGE")
    assert answer.json()["errors"][0]["field"] == "query.limit"


def test_the_largest_page_is_allowed(operator: Operator) -> None:
    assert operator.get("/v1/tasks?limit=200").status_code == 200
