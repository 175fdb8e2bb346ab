"""What no row may be: the databases refuse what a bug in the service could write."""

from __future__ import annotations

from uuid import uuid4

import pytest
from sqlalchemy import CheckConstraint, ForeignKeyConstraint, Table, select, update
from sqlalchemy.exc import IntegrityError

from aggregator_service.store.sql import tables
from tests.builders import NOW
from tests.support.full_database import connected, fill

a_round_id = select(tables.rounds.c.id).scalar_subquery()

# What breaks a rule, where its name does not say so, and breaks no other.
BREAKING: dict[str, list[dict[str, object]]] = {
    "ck_rounds_aborted_why": [{"state": "ABORTED"}, {"abort_reason": "OPERATOR"}],
    "ck_rounds_abort_reason_known": [{"state": "ABORTED", "abort_reason": "NO_WORD"}],
    "ck_rounds_download_whole": [
        {"download_key": None},
        {"download_sha256": None},
        {"download_size_bytes": None},
        {"download_nnz": None},
    ],
    "ck_assignments_state_known": [{"state": "NO_WORD", "ended_at": NOW}],
    "ck_assignments_ended_when": [{"ended_at": NOW}, {"state": "EXPIRED"}],
    "ck_assignments_training_whole": [
        {"examples": 1},
        {"steps": 1},
        {"loss_mean": 1.0},
        {"seconds": 1.0},
    ],
    "ck_assignments_evaluation_whole": [
        {"evaluation_correct": 1},
        {"evaluation_total": 1},
        {"evaluation_loss_sum": 1.0},
    ],
    "ck_updates_payload_once": [
        {"payload": None},
        {"payload_key": "also/here"},
        {"state": "SCRUBBED"},
        {"state": "SCRUBBED", "payload_key": "still/here"},
        {"state": "RETRACTED"},
        {"state": "RETRACTING", "payload": None},
    ],
    "ck_accumulators_lease_whole": [{"lease_token": uuid4()}, {"lease_expires_at": NOW}],
    "ck_reservations_draw_whole": [
        {"draw_seed": None},
        {"draw_threshold": None},
        {"draw_devices": None},
        {"drawn_at": None},
    ],
    "ck_adapters_first_without_round": [{"version": 1}, {"round_id": a_round_id}],
    "ck_adapters_version_least": [{"version": -1, "round_id": a_round_id}],
    "ck_updates_weight_least": [{"weight": 0}],
    "ck_rejections_refused_least": [{"refused": 0}],
}


def checks() -> list[tuple[Table, str, dict[str, object]]]:
    """Every CHECK of every table, with values that break it."""
    return [
        (table, str(constraint.name), values)
        for table in tables.metadata.tables.values()
        for constraint in table.constraints
        if isinstance(constraint, CheckConstraint)
        for values in breaking(table, str(constraint.name))
    ]


def breaking(table: Table, name: str) -> list[dict[str, object]]:
    if name in BREAKING:
        return BREAKING[name]
    column, rule = name.removeprefix(f"ck_{table.name}_").rsplit("_", 1)
    return [{column: {"known": "NO_WORD", "length": b"too short", "least": -1}[rule]}]


def references() -> list[tuple[Table, str]]:
    return [
        (table, next(iter(constraint.columns)).name)
        for table in tables.metadata.tables.values()
        for constraint in table.constraints
        if isinstance(constraint, ForeignKeyConstraint)
    ]


@pytest.fixture
def full_url(sql_url: str) -> str:
    fill(sql_url)
    return sql_url


def test_every_check_refuses_what_breaks_it(full_url: str) -> None:
    cases = checks()
    assert len(cases) > 50

    with connected(full_url) as engine:
        for table, name, values in cases:
            with pytest.raises(IntegrityError, match=name), engine.begin() as connection:
                connection.execute(update(table).values(values))


def test_every_reference_refuses_an_owner_that_does_not_exist(full_url: str) -> None:
    cases = references()
    assert len(cases) > 10

    with connected(full_url) as engine:
        for table, column in cases:
            values: dict[str, object] = {column: uuid4()}
            if (table.name, column) == ("adapters", "round_id"):
                # The first adapter has none to refer to.
                values["version"] = 1
            with (
                pytest.raises(IntegrityError, match=r"(?i)foreign key"),
                engine.begin() as connection,
            ):
                connection.execute(update(table).values(values))


def test_a_time_without_a_zone_is_refused_before_it_is_stored(full_url: str) -> None:
    with (
        connected(full_url) as engine,
        pytest.raises(Exception, match="no time zone"),
        engine.begin() as connection,
    ):
        connection.execute(update(tables.devices).values(revoked_at=NOW.replace(tzinfo=None)))
