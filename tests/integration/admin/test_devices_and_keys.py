"""Devices and API keys over REST."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from aggregator_service.app.authenticate_api_key import AuthenticateApiKey
from aggregator_service.app.authenticate_device import AuthenticateDevice
from aggregator_service.app.create_api_key import CreateApiKey
from aggregator_service.app.revoke_api_key import RevokeApiKey
from aggregator_service.store.base import DeviceCounts, Store
from flasc_core.errors import Reason, Refusal
from tests.builders import NOW, SECOND, a_device, a_task, stored
from tests.support.operator import GRPC_ADDRESS, Operator


def test_an_enrolled_device_can_use_its_credential_until_it_is_revoked(
    operator: Operator,
) -> None:
    authenticate = AuthenticateDevice(store=operator.store, now=lambda: NOW)

    answer = operator.post("/v1/devices", json={"name": "phone"})

    enrolled = answer.json()
    assert answer.status_code == 201
    assert enrolled["grpc_address"] == GRPC_ADDRESS
    assert str(authenticate(enrolled["credential"]).id) == enrolled["device"]["id"]
    revoked = operator.post(f"/v1/devices/{enrolled['device']['id']}/revoke").json()
    assert revoked["revoked_at"] is not None
    with pytest.raises(Refusal) as refused:
        authenticate(enrolled["credential"])
    assert refused.value.reason is Reason.DEVICE_REVOKED


def test_a_credential_is_shown_once_and_never_again(operator: Operator) -> None:
    enrolled = operator.post("/v1/devices", json={"name": "phone"}).json()
    identifier = enrolled["device"]["id"]

    shown = [operator.get(f"/v1/devices/{identifier}"), operator.get("/v1/devices")]

    assert shown[0].json() == enrolled["device"]
    secret = enrolled["credential"].split("_", 2)[2]
    assert all(secret not in answer.text and "sha256" not in answer.text for answer in shown)


def test_revoking_again_keeps_the_first_time(operator: Operator) -> None:
    device = a_device()
    stored(operator.store, device)
    first = operator.post(f"/v1/devices/{device.id}/revoke").json()

    operator.at = NOW + timedelta(hours=1)

    assert operator.post(f"/v1/devices/{device.id}/revoke").json() == first


def test_a_device_name_is_taken_once(operator: Operator) -> None:
    operator.post("/v1/devices", json={"name": "phone"})

    answer = operator.post("/v1/devices", json={"name": "phone"})

    assert (answer.status_code, answer.json()["reason"]) == (409, "NAME_TAKEN")


def test_devices_come_in_pages(operator: Operator) -> None:
    stored(operator.store, *(a_device() for _ in range(5)))

    first = operator.get("/v1/devices?limit=3").json()
    second = operator.get(f"/v1/devices?limit=3&cursor={first['next_cursor']}").json()

    identifiers = [device["id"] for device in first["items"] + second["items"]]
    assert len(set(identifiers)) == 5
    assert second["next_cursor"] is None


@pytest.mark.parametrize("path", ["/v1/tasks/%00", "/v1/events?task=%00"])
def test_no_task_has_a_name_that_postgresql_can_not_hold(operator: Operator, path: str) -> None:
    assert operator.get(path).status_code == 404


def test_a_cursor_beyond_every_number_is_refused(operator: Operator) -> None:
    task = a_task()
    stored(operator.store, task)
    for page in ("rounds", "adapters"):
        answer = operator.get(f"/v1/tasks/{task.name}/{page}?cursor={2**31}")
        assert answer.status_code == 422


def test_a_tier_is_said_at_enrolment_or_later(operator: Operator) -> None:
    enrolled = operator.post("/v1/devices", json={"name": "mine", "tier": "phone"}).json()["device"]
    assert enrolled["tier"] == "phone"

    moved = operator.post(f"/v1/devices/{enrolled['id']}/tier", json={"tier": "laptop"})

    assert moved.status_code == 200
    assert moved.json() == {**enrolled, "tier": "laptop"}
    assert operator.get(f"/v1/devices/{enrolled['id']}").json()["tier"] == "laptop"
    refused = operator.post(f"/v1/devices/{enrolled['id']}/tier", json={"tier": "No Such Name"})
    assert refused.status_code == 422
    assert operator.post("/v1/devices", json={"name": "bare"}).json()["device"]["tier"] == ""


def test_devices_are_counted_by_whether_they_are_trusted_and_heard_of(operator: Operator) -> None:
    hour = timedelta(hours=1)
    stored(
        operator.store,
        a_device(),
        a_device(last_seen_at=NOW - hour),
        a_device(last_seen_at=NOW - hour - SECOND),
        a_device(last_seen_at=NOW, revoked_at=NOW),
    )

    counts = operator.get("/v1/devices/counts").json()

    assert counts == {"enrolled": 3, "revoked": 1, "seen_last_hour": 1}


def test_every_store_counts_devices_alike(store: Store) -> None:
    nobody = store.read("counts", lambda tx: tx.devices.counts(seen_since=NOW))
    stored(
        store,
        a_device(last_seen_at=NOW),
        a_device(last_seen_at=NOW - SECOND),
        a_device(last_seen_at=NOW, revoked_at=NOW),
    )

    counts = store.read("counts", lambda tx: tx.devices.counts(seen_since=NOW))

    assert nobody == DeviceCounts(enrolled=0, revoked=0, seen=0)
    assert counts == DeviceCounts(enrolled=2, revoked=1, seen=1)


def test_a_key_is_created_listed_and_revoked(operator: Operator) -> None:
    created = operator.post("/v1/keys", json={"name": "ci", "lifetime_days": 20})

    assert created.status_code == 201
    key = created.json()["key"]
    assert key["expires_at"] == "2026-12-12T12:00:00Z"
    listed = operator.get("/v1/keys")
    assert key in listed.json()["items"]
    assert created.json()["secret"].split("_", 2)[2] not in listed.text
    revoked = operator.post(f"/v1/keys/{key['id']}/revoke").json()
    assert revoked["revoked_at"] == "2026-11-22T12:00:00Z"


def test_a_key_makes_none_that_outlives_it(operator: Operator) -> None:
    longer = operator.post("/v1/keys", json={"name": "longer", "lifetime_days": 30.001})
    assert (longer.status_code, longer.json()["reason"]) == (422, "FIELD_RANGE")
    assert "2026-12-22 12:00" in longer.json()["detail"]
    assert len(operator.get("/v1/keys").json()["items"]) == 1

    as_long = operator.post("/v1/keys", json={"name": "as long", "lifetime_days": 30})
    assert as_long.status_code == 201
    operator.at += timedelta(days=1)
    operator.key = as_long.json()["secret"]
    assert operator.post("/v1/keys", json={"name": "x", "lifetime_days": 30}).status_code == 422
    assert operator.post("/v1/keys", json={"name": "x", "lifetime_days": 29}).status_code == 201


def test_a_revoked_key_takes_the_keys_along_that_were_made_with_it(operator: Operator) -> None:
    def make(name: str) -> tuple[str, str]:
        made = operator.post("/v1/keys", json={"name": name, "lifetime_days": 1}).json()
        return made["key"]["id"], made["secret"]

    own = operator.key
    lent, lent_secret = make("lent")
    operator.key = lent_secret
    made, made_secret = make("made with it")
    operator.key = own

    operator.post(f"/v1/keys/{lent}/revoke")

    keys = {key["id"]: key for key in operator.get("/v1/keys").json()["items"]}
    assert keys[made]["made_by"] == lent
    assert keys[made]["revoked_at"] == keys[lent]["revoked_at"] == "2026-11-22T12:00:00Z"
    [first] = [key for key in keys.values() if key["made_by"] is None]
    assert first["revoked_at"] is None
    for secret in (lent_secret, made_secret):
        operator.key = secret
        assert operator.get("/v1/keys").status_code == 401


def test_a_key_that_is_revoked_meanwhile_makes_none(operator: Operator) -> None:
    store, now = operator.store, lambda: operator.at
    key = AuthenticateApiKey(store=store, now=now)(operator.key)
    RevokeApiKey(store=store, now=now)(key.id)

    with pytest.raises(Refusal) as refused:
        CreateApiKey(store=store, now=now)("late", timedelta(days=1), made_by=key)

    assert refused.value.reason is Reason.CREDENTIAL_INVALID
    assert len(store.read("keys", lambda tx: tx.api_keys.page(limit=9, after=None))) == 1


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        (f"/v1/devices/{uuid4()}", "DEVICE_UNKNOWN"),
        (f"/v1/devices/{uuid4()}/revoke", "DEVICE_UNKNOWN"),
        (f"/v1/keys/{uuid4()}/revoke", "KEY_UNKNOWN"),
    ],
)
def test_an_unknown_device_or_key_is_not_found(operator: Operator, path: str, reason: str) -> None:
    answer = operator.send("POST" if path.endswith("revoke") else "GET", path)

    assert (answer.status_code, answer.json()["reason"]) == (404, reason)


@pytest.mark.parametrize(
    ("path", "body", "reason", "field"),
    [
        ("/v1/devices", {}, "FIELD_REQUIRED", "body.name"),
        ("/v1/devices", {"name": ""}, "FIELD_RANGE", "body.name"),
        ("/v1/devices", {"name": "x" * 201}, "FIELD_RANGE", "body.name"),
        ("/v1/devices", {"name": 7}, "FIELD_RANGE", "body.name"),
        ("/v1/devices", {"name": "x", "admin": True}, "FIELD_RANGE", "body.admin"),
        ("/v1/keys", {"name": "x"}, "FIELD_REQUIRED", "body.lifetime_days"),
        ("/v1/keys", {"name": "x", "lifetime_days": 0}, "FIELD_RANGE", "body.lifetime_days"),
        ("/v1/keys", {"name": "x", "lifetime_days": 3661}, "FIELD_RANGE", "body.lifetime_days"),
    ],
)
def test_a_body_that_does_not_fit_is_refused_by_field(
    operator: Operator, path: str, body: dict[str, Any], reason: str, field: str
) -> None:
    answer = operator.post(path, json=body)

    assert (answer.status_code, answer.json()["reason"]) == (422, reason)
    assert [problem["field"] for problem in answer.json()["errors"]] == [field]


def test_a_body_that_is_not_json_is_malformed(operator: Operator) -> None:
    answer = operator.post(
        "/v1/devices", content=b"{", headers={"Content-Type": "application/json"}
    )

    assert (answer.status_code, answer.json()["reason"]) == (400, "MALFORMED_MESSAGE")


def test_a_refusal_never_repeats_what_was_sent(operator: Operator) -> None:
    answer = operator.post("/v1/devices", json={"name": "x", "password": "hunter2"})

    assert "hunter2" not in answer.text
