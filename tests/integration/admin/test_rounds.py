"""Rounds and assignments over REST: the figures are those of the database."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID, uuid4

import pytest

from aggregator_service.domain.assignments import AssignmentState
from aggregator_service.domain.rounds import RoundKind, RoundState
from aggregator_service.store.base import Store
from aggregator_service.store.memory import MemoryBlobs
from flasc_core.errors import Reason
from flasc_core.layout import Role
from tests.builders import (
    a_device,
    a_download,
    a_round,
    a_task,
    an_adapter,
    an_assignment,
    an_update,
    some_counts,
    stored,
)
from tests.support.history import History, a_history
from tests.support.operator import Operator
from tests.support.seen import figures_of, rejections_of
from tests.support.statements import counted_statements


@pytest.fixture
def history(operator: Operator) -> History:
    return a_history(operator.store, operator.blobs)


def add_bytes(store: Store, assignment_id: UUID, *, down: int, up: int) -> None:
    store.run("add", lambda tx: tx.assignments.add_bytes(assignment_id, down=down, up=up))


def test_a_round_shows_the_figures_of_the_database(operator: Operator, history: History) -> None:
    for known in history.rounds:
        shown = operator.get(f"/v1/rounds/{known.id}").json()
        figures = figures_of(operator.store, known)
        refused = rejections_of(operator.store, known)

        assert shown["devices"]["by_state"] == {
            state.value: count for state, count in figures.assignments.items()
        }
        assert shown["bytes"]["down"] == figures.tiers[""].bytes.down
        assert shown["bytes"]["up"] == figures.tiers[""].bytes.up
        assert shown["training"] == {
            "examples": figures.examples,
            "steps": figures.steps,
            "loss_mean": pytest.approx(figures.loss_mean),
        }
        assert figures.evaluation is not None
        assert shown["evaluation"]["correct"] == figures.evaluation.correct
        assert shown["evaluation"]["total"] == figures.evaluation.total
        assert shown["refused"] == {reason.value: count for reason, count in refused.items()}


def test_a_round_adds_up_its_devices_bytes_and_scores(operator: Operator, history: History) -> None:
    second = operator.get(f"/v1/rounds/{history.rounds[1].id}").json()

    assert second["state"] == "PUBLISHED"
    assert (second["base_version"], second["published_version"]) == (1, 2)
    assert second["devices"] | {"by_state": {}} == {
        "assigned": 4,
        "reported": 3,
        "accepted": 3,
        "by_state": {},
    }
    assert second["refused"] == {"NON_FINITE": 1}
    # Eight downloads of 50 bytes and three updates of 60; dense ones have 24 values of 4 bytes.
    assert second["bytes"] == {
        "down": 400,
        "up": 180,
        # Of the downloads three were trained from; all three updates counted.
        "wasted_down": 400 - 3 * 50,
        "wasted_up": 0,
        "dense_float32": {
            "down": 8 * 96,
            "up": 3 * 96,
            "saving_factor": pytest.approx(11 * 96 / 580),
        },
        "dense_bfloat16": {
            "down": 8 * 48,
            "up": 3 * 48,
            "saving_factor": pytest.approx(11 * 48 / 580),
        },
    }
    assert second["evaluation"] == {
        "correct": 72,
        "total": 300,
        "accuracy": pytest.approx(0.24),
        "loss": pytest.approx(2.4),
    }
    assert second["collecting_seconds"] == 42
    assert second["publishing_seconds"] == 1
    assert second["manifest_sha256"] == history.rounds[1].manifest_sha256.hex()  # type: ignore[union-attr]


def test_a_task_s_totals_are_those_of_its_rounds(operator: Operator, history: History) -> None:
    a_history(operator.store, operator.blobs, name="another", update_bytes=1_000)
    shown = [operator.get(f"/v1/rounds/{one.id}").json() for one in history.rounds]
    rounds = [one["bytes"] for one in shown]

    totals = operator.get(f"/v1/tasks/{history.task.name}/totals").json()

    assert totals["updates_accepted"] == sum(one["devices"]["accepted"] for one in shown) == 15
    assert totals["refused"] == {"NON_FINITE": 1}
    total = totals["bytes"]
    for name in ("down", "up", "wasted_down", "wasted_up"):
        assert total[name] == sum(one[name] for one in rounds) == 5 * rounds[0][name]
    for dense in ("dense_float32", "dense_bfloat16"):
        assert total[dense]["down"] == sum(one[dense]["down"] for one in rounds)
        assert total[dense]["up"] == sum(one[dense]["up"] for one in rounds)
        assert total[dense]["saving_factor"] == pytest.approx(rounds[0][dense]["saving_factor"])
    assert operator.get("/v1/tasks/nowhere/totals").status_code == 404


def test_a_task_s_totals_are_told_by_tier(operator: Operator) -> None:
    task, other = a_task(name="a-task"), a_task(name="another")
    rounds = [
        a_round(task, state=RoundState.COLLECTING, number=number, base_version=number - 1)
        for number in (1, 2, 3, 4)
    ]
    elsewhere = a_round(other, state=RoundState.COLLECTING)
    stored(operator.store, task, other, *rounds, elsewhere)
    size = a_download().size_bytes
    accepted, expired = AssignmentState.ACCEPTED, AssignmentState.EXPIRED
    good, better = some_counts(correct=2, total=8), some_counts(correct=3, total=4, loss_sum=6.0)
    nothing = some_counts(correct=0, total=0, loss_sum=0.0)
    for current, tier, state, evaluation in (
        (rounds[0], "", accepted, None),
        (rounds[0], "phone", accepted, good),
        (rounds[1], "phone", accepted, better),
        (rounds[1], "phone", expired, None),
        # Reports of no held-out example, and no report, leave the round before the latest.
        (rounds[2], "phone", accepted, nothing),
        (rounds[3], "phone", AssignmentState.TRAINING, None),
        (elsewhere, "phone", accepted, good),
    ):
        device = a_device()
        values = {Role.LORA_B: 3, Role.HEAD: 1} if state is accepted else {}
        part = an_assignment(
            current,
            device,
            state=state,
            tier=tier,
            evaluation=evaluation,
            values_by_role=values,
            download_size_bytes=size,
        )
        stored(operator.store, device, part)
        if state is accepted:
            stored(operator.store, an_update(part, payload_bytes=7))
        add_bytes(operator.store, part.id, down=size, up=10)

    totals = operator.get("/v1/tasks/a-task/totals").json()

    without, phone = totals["tiers"]
    assert (without["tier"], phone["tier"]) == ("", "phone")
    assert (without["assigned"], without["accepted"]) == (1, 1)
    assert without["latest_evaluation"] is None
    assert (phone["assigned"], phone["accepted"]) == (5, 3)
    assert phone["bytes"] | {"dense_float32": {}, "dense_bfloat16": {}} == {
        "down": 5 * size,
        "up": 50,
        # One download went to a device that expired; three uploads had three bytes too many.
        "wasted_down": size,
        "wasted_up": 2 * 10 + 3 * 3,
        "dense_float32": {},
        "dense_bfloat16": {},
    }
    assert phone["bytes"]["dense_float32"]["down"] == 5 * 4 * task.config.layout.dim
    assert phone["bytes"]["dense_bfloat16"]["up"] == 3 * 2 * task.config.layout.dim
    assert phone["values_by_role"] == {"LORA_A": 0, "LORA_B": 9, "HEAD": 3}
    assert phone["latest_evaluation"] == {
        "round_number": 2,
        "version": 1,
        "correct": 3,
        "total": 4,
        "accuracy": 0.75,
        "loss": 1.5,
    }
    assert totals["updates_accepted"] == 4
    assert totals["bytes"]["down"] == 6 * size


def test_a_task_without_devices_has_totals_of_no_tier(operator: Operator) -> None:
    stored(operator.store, a_task(name="a-task"))

    totals = operator.get("/v1/tasks/a-task/totals").json()

    assert (totals["updates_accepted"], totals["tiers"]) == (0, [])


def test_a_round_is_shown_by_its_number(operator: Operator, history: History) -> None:
    second = history.rounds[1]
    path = f"/v1/tasks/{history.task.name}/rounds"

    assert operator.get(f"{path}/2").json() == operator.get(f"/v1/rounds/{second.id}").json()
    missing = operator.get(f"{path}/6")
    assert (missing.status_code, missing.json()["reason"]) == (404, Reason.ROUND_UNKNOWN)
    assert operator.get(f"{path}/0").status_code == 422
    assert operator.get("/v1/tasks/nowhere/rounds/2").json()["reason"] == Reason.TASK_UNKNOWN


@pytest.mark.parametrize("items", ["/v1/tasks", "/v1/tasks/debian-sections/rounds"])
def test_a_list_takes_as_many_statements_however_long_it_is(
    sqlite_store: Store, items: str
) -> None:
    operator = Operator(sqlite_store, MemoryBlobs())
    for name in ("debian-sections", "another"):
        a_history(operator.store, operator.blobs, name=name)

    def statements(limit: int) -> int:
        with counted_statements() as counted:
            assert len(operator.get(items, params={"limit": limit}).json()["items"]) == limit
        return len(counted)

    assert statements(1) == statements(2)


def test_a_round_that_has_not_begun_has_no_figures(operator: Operator) -> None:
    task = a_task()
    pending = a_round(task, state=RoundState.PENDING)
    stored(operator.store, task, an_adapter(task), pending)

    shown = operator.get(f"/v1/rounds/{pending.id}").json()

    nothing = {"down": 0, "up": 0, "saving_factor": None}
    assert shown["bytes"] == {
        "down": 0,
        "up": 0,
        "wasted_down": 0,
        "wasted_up": 0,
        "dense_float32": nothing,
        "dense_bfloat16": nothing,
    }
    assert shown["devices"]["assigned"] == 0
    assert shown["training"]["loss_mean"] is None
    unknown = ("evaluation", "opened_at", "deadline", "closed_at", "ended_at", "published_version")
    assert {shown[name] for name in unknown} == {None}
    assert shown["collecting_seconds"] is None


def test_an_evaluation_without_examples_has_no_accuracy(operator: Operator) -> None:
    task, device = a_task(), a_device()
    current = a_round(task, state=RoundState.COLLECTING)
    counts = some_counts(correct=0, total=0, loss_sum=0.0)
    part = an_assignment(current, device, state=AssignmentState.ACCEPTED, evaluation=counts)
    stored(operator.store, task, device, an_adapter(task), current, part)

    shown = operator.get(f"/v1/rounds/{current.id}").json()

    assert shown["evaluation"] == {"correct": 0, "total": 0, "accuracy": None, "loss": None}


def test_evaluations_are_reports_of_an_evaluation_round(operator: Operator) -> None:
    task, devices = a_task(), [a_device() for _ in range(2)]
    current = a_round(task, state=RoundState.COLLECTING, kind=RoundKind.EVALUATION)
    states = (AssignmentState.EVALUATED, AssignmentState.ABANDONED)
    parts = [
        an_assignment(current, device, state=state)
        for device, state in zip(devices, states, strict=True)
    ]
    stored(operator.store, task, *devices, an_adapter(task), current, *parts)

    shown = operator.get(f"/v1/rounds/{current.id}").json()

    assert shown["kind"] == "EVALUATION"
    assert shown["devices"]["reported"] == 1
    assert shown["devices"]["accepted"] == 0
    assert shown["published_version"] is None


def test_rounds_come_in_pages_newest_first(operator: Operator, history: History) -> None:
    found = operator.pages("/v1/tasks/debian-sections/rounds", limit=2)

    assert [[one["number"] for one in page] for page in found] == [[5, 4], [3, 2], [1]]
    assert found[0][0] == operator.get(f"/v1/rounds/{history.rounds[-1].id}").json()


def test_a_last_page_that_is_full_has_no_next(operator: Operator, history: History) -> None:
    page = operator.get(f"/v1/tasks/{history.task.id}/rounds?limit=5").json()

    assert len(page["items"]) == 5
    assert page["next_cursor"] is None


def test_assignments_come_in_pages_with_their_bytes(operator: Operator, history: History) -> None:
    found = operator.pages(f"/v1/rounds/{history.rounds[0].id}/assignments", limit=3)

    assert [len(page) for page in found] == [3, 1]
    parts = {part["device_id"]: part for page in found for part in page}
    assert parts.keys() == {str(device.id) for device in history.devices}
    expired, accepted = (parts[str(device.id)] for device in history.devices[:2])
    assert (expired["state"], expired["payload_bytes_up"]) == ("EXPIRED", 0)
    assert expired["training"] is None
    assert (accepted["state"], accepted["payload_bytes_up"]) == ("ACCEPTED", 60)
    assert accepted["payload_bytes_down"] == 100
    assert (expired["wasted_bytes_down"], expired["wasted_bytes_up"]) == (100, 0)
    assert (accepted["wasted_bytes_down"], accepted["wasted_bytes_up"]) == (50, 0)
    assert accepted["training"]["examples"] == 10
    assert accepted["evaluation"]["accuracy"] == pytest.approx(0.2)


def test_an_open_round_is_aborted_and_its_devices_let_go(
    operator: Operator, history: History
) -> None:
    last = history.rounds[-1]
    device = a_device()
    waiting = an_assignment(last, device)
    stored(operator.store, device, waiting)

    answer = operator.post(f"/v1/rounds/{last.id}/abort")

    assert answer.status_code == 200
    assert (answer.json()["state"], answer.json()["abort_reason"]) == ("ABORTED", "OPERATOR")
    assert answer.json()["devices"]["by_state"]["TRAINING"] == 0
    assert operator.post(f"/v1/rounds/{last.id}/abort").json() == answer.json()


def test_aborting_a_published_round_changes_nothing(operator: Operator, history: History) -> None:
    first = history.rounds[0]
    before = operator.get(f"/v1/rounds/{first.id}").json()

    assert operator.post(f"/v1/rounds/{first.id}/abort").json() == before
    stored_round = operator.store.read("get", lambda tx: tx.rounds.get(first.id))
    assert stored_round == replace(first, revision=stored_round.revision)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("method", "path"), [("GET", ""), ("GET", "/assignments"), ("POST", "/abort")]
)
def test_an_unknown_round_is_not_found(operator: Operator, method: str, path: str) -> None:
    answer = operator.send(method, f"/v1/rounds/{uuid4()}{path}")

    assert (answer.status_code, answer.json()["reason"]) == (404, Reason.ROUND_UNKNOWN)


def test_a_round_id_that_is_none_is_refused(operator: Operator) -> None:
    answer = operator.get("/v1/rounds/seven")

    assert (answer.status_code, answer.json()["reason"]) == (422, "FIELD_RANGE")


@pytest.mark.parametrize("cursor", ["x", "-1", str(uuid4())])
def test_a_cursor_that_no_page_gave_is_refused(
    operator: Operator, history: History, cursor: str
) -> None:
    answer = operator.get(f"/v1/tasks/{history.task.name}/rounds?cursor={cursor}")

    assert (answer.status_code, answer.json()["reason"]) == (422, "FIELD_RANGE")
