"""Who gets in, what errors look like, and what every answer carries."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from structlog.testing import capture_logs

from aggregator_service.store.base import StoreUnavailable
from tests.builders import NOW
from tests.support.faults import Trap, TrappedBlobs, TrappedStore
from tests.support.operator import Operator

OPEN = {"/", "/charts.js", "/dashboard.css", "/dashboard.js", "/icon.svg", "/healthz", "/readyz"}


def paths_of(operator: Operator) -> set[tuple[str, str]]:
    """Every route of the app, in the description or not."""
    described = operator.app.openapi()["paths"]
    routes = {(m.upper(), path) for path, operations in described.items() for m in operations}
    return routes | {("GET", path) for path in ("/openapi.json", *OPEN)}


def test_every_route_but_health_and_page_refuses_a_call_without_a_key(operator: Operator) -> None:
    for method, path in paths_of(operator):
        answer = operator.send(method, path, headers={"Authorization": ""})

        if path in OPEN:
            assert answer.status_code == 200, path
        else:
            assert answer.status_code == 401, path
            assert answer.json()["reason"] == "CREDENTIAL_MISSING"
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    "credential",
    [
        "Bearer nonsense",
        "Bearer flk_00000000000000000000000000000000_AAAA",
        "Bearer fld_00000000000000000000000000000000_AAAA",
        "Basic dXNlcjpwYXNz",
        "Bearer ",
    ],
)
def test_a_credential_that_is_no_key_is_refused(operator: Operator, credential: str) -> None:
    answer = operator.get("/v1/tasks", headers={"Authorization": credential})

    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_key_with_one_character_changed_is_refused(operator: Operator) -> None:
    changed = operator.key[:-1] + ("A" if operator.key[-1] != "A" else "B")

    answer = operator.get("/v1/tasks", headers={"Authorization": f"Bearer {changed}"})

    assert answer.json()["reason"] == "CREDENTIAL_INVALID"


def test_a_key_ends_when_it_is_revoked(operator: Operator) -> None:
    other = operator.post("/v1/keys", json={"name": "other", "lifetime_days": 1}).json()
    header = {"Authorization": f"Bearer {other['secret']}"}
    assert operator.get("/v1/tasks", headers=header).status_code == 200

    operator.post(f"/v1/keys/{other['key']['id']}/revoke")

    assert operator.get("/v1/tasks", headers=header).status_code == 401
    assert operator.get("/v1/tasks").status_code == 200


def test_a_key_ends_with_its_lifetime(operator: Operator) -> None:
    operator.at = NOW + timedelta(days=30) - timedelta(microseconds=1)
    assert operator.get("/v1/tasks").status_code == 200

    operator.at = NOW + timedelta(days=30)

    assert operator.get("/v1/tasks").status_code == 401


def test_an_unknown_path_is_a_problem_with_a_key_and_hidden_without(operator: Operator) -> None:
    known = operator.get("/v1/nothing")
    unknown = operator.get("/v1/nothing", headers={"Authorization": ""})

    assert (known.status_code, unknown.status_code) == (404, 401)
    assert known.headers["content-type"] == "application/problem+json"


def test_a_method_that_a_path_lacks_is_a_problem(operator: Operator) -> None:
    answer = operator.send("DELETE", "/v1/tasks")

    assert answer.status_code == 405
    assert answer.json()["status"] == 405


def test_no_answer_may_be_kept_by_others(operator: Operator) -> None:
    answer = operator.get("/v1/tasks")

    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"


def test_the_page_may_load_and_call_nothing_but_this_service(operator: Operator) -> None:
    page = operator.get("/", headers={"Authorization": ""})
    policy = page.headers["Content-Security-Policy"]

    sources = {part.split()[1] for part in policy.split("; ") if part.split()[1:]}
    assert sources == {"'none'", "'self'"}
    for path in OPEN:
        assert "//" not in operator.get(path).text.replace(
            "http://www.w3.org/2000/svg", ""
        ).replace("// ", ""), path


def test_the_service_is_ready_while_its_stores_are(operator: Operator) -> None:
    def fail() -> None:
        raise StoreUnavailable("disk full")

    assert operator.get("/readyz").json() == {"status": "ok"}
    blobs = TrappedBlobs(operator.blobs, Trap(at="check_ready", action=fail))
    full = Operator(operator.store, blobs)

    answer = full.get("/readyz")

    assert answer.status_code == 503
    assert answer.json()["reason"] == "STORAGE"
    assert int(answer.headers["Retry-After"]) >= 1
    assert operator.get("/healthz").status_code == 200


@pytest.mark.parametrize("read", ["authenticate_api_key", "list_tasks"])
def test_a_database_that_fails_is_unavailable_before_and_after_the_key_is_checked(
    operator: Operator, read: str
) -> None:
    def fail() -> None:
        raise StoreUnavailable("gone")

    trapped = TrappedStore(operator.store, Trap(at=read, action=fail))

    answer = Operator(trapped, operator.blobs).get("/v1/tasks")

    assert answer.status_code == 503
    assert answer.json()["reason"] == "STORAGE"
    assert "gone" not in answer.text


def test_an_unexpected_failure_tells_an_incident_and_nothing_else(operator: Operator) -> None:
    def fail() -> None:
        raise RuntimeError("the secret is 42")

    trapped = TrappedStore(operator.store, Trap(at="list_tasks", action=fail))

    with capture_logs() as logs:
        answer = Operator(trapped, operator.blobs).get("/v1/tasks")

    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert "42" not in answer.json()["detail"]
    (failure,) = (line for line in logs if line["log_level"] == "error")
    assert failure["incident"] == answer.json()["incident"]
    assert str(failure["exc_info"]) == "the secret is 42"


def test_every_request_is_one_log_line_without_the_key(operator: Operator) -> None:
    with capture_logs() as logs:
        operator.get("/v1/tasks?limit=3")

    (line,) = logs
    assert (line["event"], line["route"], line["status"]) == ("http_request", "/v1/tasks", 200)
    assert operator.key not in str(logs)


def test_a_body_beyond_the_bound_is_refused_before_it_is_all_read(operator: Operator) -> None:
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while True:
            read += 1 << 16
            yield b" " * (1 << 16)

    answer = operator.post(
        "/v1/devices", content=endless(), headers={"Content-Type": "application/json"}
    )

    assert answer.status_code == 413
    assert answer.json()["reason"] == "MESSAGE_TOO_LARGE"
    assert read <= 3 << 20


def test_metrics_count_requests_by_route_and_not_by_path(operator: Operator) -> None:
    operator.get("/v1/tasks/no-such-task")

    text = operator.get("/metrics").text

    assert 'route="/v1/tasks/{task}",status="404"' in text
    assert "no-such-task" not in text
