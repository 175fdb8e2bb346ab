"""The stream of events, in process and over a socket."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from aggregator_service.app.steer_task import SteerTask
from aggregator_service.clock import utc_now
from aggregator_service.domain.rounds import RoundState
from aggregator_service.domain.tasks import TaskState
from aggregator_service.store.base import Store
from aggregator_service.store.blobs import BlobStore
from tests.builders import a_round, a_task, an_adapter, an_event, stored
from tests.support.operator import Operator, create_key, live_admin
from tests.support.patience import PATIENCE_SECONDS


def frames_of(text: str) -> list[dict[str, str]]:
    """Each frame's fields; comments are left out."""
    frames = [frame for frame in text.split("\n\n") if frame and not frame.startswith(":")]
    return [dict(line.split(": ", 1) for line in frame.split("\n")) for frame in frames]


def drain(operator: Operator, path: str = "/v1/events", **headers: str) -> list[dict[str, str]]:
    """What a stream sends that ends at once."""
    operator.app.state.services.feed.stop()
    answer = operator.get(path, headers={name.replace("_", "-"): v for name, v in headers.items()})
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    return frames_of(answer.text)


def test_a_client_goes_on_after_the_last_event_it_saw(operator: Operator) -> None:
    task = a_task()
    current = a_round(task, state=RoundState.COLLECTING)
    states = ("COLLECTING", "CLOSING", "FOLDING", "PUBLISHED")
    stored(operator.store, task, current)
    stored(
        operator.store,
        *(an_event(task, round_id=current.id, state=state) for state in states),
        an_event(task, state="COMPLETED"),
    )

    start, *frames = drain(operator, Last_Event_ID="2")

    assert start == {"retry": "2000", "id": "2"}
    assert [(f["event"], f["id"]) for f in frames] == [
        ("round", "3"),
        ("round", "4"),
        ("task", "5"),
    ]
    data = json.loads(frames[0]["data"])
    assert data == {
        "sequence": 3,
        "task_id": str(task.id),
        "round_id": str(current.id),
        "state": "FOLDING",
        "at": "2026-11-22T12:00:00Z",
    }
    assert json.loads(frames[-1]["data"])["round_id"] is None


def test_a_new_client_is_told_where_it_begins_and_nothing_of_the_past(operator: Operator) -> None:
    task = a_task()
    stored(operator.store, task, an_event(task), an_event(task))

    assert drain(operator) == [{"retry": "2000", "id": "2"}]


def test_a_client_from_before_a_restore_begins_at_the_end(operator: Operator) -> None:
    task = a_task()
    stored(operator.store, task, an_event(task))

    assert drain(operator, Last_Event_ID="99") == [{"retry": "2000", "id": "1"}]


def test_more_events_than_one_batch_all_come(operator: Operator) -> None:
    task = a_task()
    stored(operator.store, task, *(an_event(task) for _ in range(401)))

    _, *frames = drain(operator, Last_Event_ID="0")

    assert [int(frame["id"]) for frame in frames] == list(range(1, 402))


def test_a_stream_may_be_of_one_task(operator: Operator) -> None:
    one, other = a_task(name="one"), a_task(name="other")
    stored(operator.store, one, other, an_adapter(one))
    stored(operator.store, an_event(other), an_event(one), an_event(other))

    for reference in ("one", str(one.id)):
        _, *frames = drain(operator, f"/v1/events?task={reference}", Last_Event_ID="0")
        assert [frame["id"] for frame in frames] == ["2"]
    unknown = operator.get("/v1/events?task=none")
    assert (unknown.status_code, unknown.json()["reason"]) == (404, "TASK_UNKNOWN")


@pytest.mark.parametrize("last", ["x", "-1"])
def test_a_last_event_id_that_is_none_is_refused(operator: Operator, last: str) -> None:
    answer = operator.get("/v1/events", headers={"Last-Event-ID": last})

    assert (answer.status_code, answer.json()["reason"]) == (422, "FIELD_RANGE")


def read_frame(lines: Iterator[str]) -> dict[str, Any]:
    frame: dict[str, Any] = {}
    for line in lines:
        if not line and frame:
            return frame
        if line and not line.startswith(":"):
            name, value = line.split(": ", 1)
            frame[name] = value
    raise AssertionError("the stream ended")


def test_a_change_made_by_another_process_reaches_an_open_stream(
    sqlite_store: Store, blobs: BlobStore
) -> None:
    task = a_task()
    stored(sqlite_store, task, an_adapter(task))
    steer = SteerTask(store=sqlite_store, now=utc_now)
    headers = {"Authorization": f"Bearer {create_key(sqlite_store, utc_now())}"}

    with live_admin(sqlite_store, blobs) as address:
        with httpx.stream(
            "GET", f"{address}/v1/events", headers=headers, timeout=PATIENCE_SECONDS
        ) as answer:
            lines = answer.iter_lines()
            assert read_frame(lines) == {"retry": "2000", "id": "0"}
            steer(task.id, TaskState.PAUSED)
            first = read_frame(lines)
        steer(task.id, TaskState.RUNNING)
        again = {**headers, "Last-Event-ID": first["id"]}
        with httpx.stream(
            "GET", f"{address}/v1/events", headers=again, timeout=PATIENCE_SECONDS
        ) as answer:
            lines = answer.iter_lines()
            assert read_frame(lines)["id"] == first["id"]
            second = read_frame(lines)

    states = [json.loads(frame["data"])["state"] for frame in (first, second)]
    assert states == ["PAUSED", "RUNNING"]


def test_streams_end_when_the_server_stops(sqlite_store: Store, blobs: BlobStore) -> None:
    headers = {"Authorization": f"Bearer {create_key(sqlite_store, utc_now())}"}

    with live_admin(sqlite_store, blobs) as address:
        client = httpx.Client(headers=headers, timeout=PATIENCE_SECONDS)
        stream = client.send(client.build_request("GET", f"{address}/v1/events"), stream=True)
        lines = stream.iter_lines()
        read_frame(lines)

    assert list(lines) == []
    client.close()
