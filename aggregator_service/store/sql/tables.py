"""The tables, their keys and what every row must satisfy.

tasks ◀── adapters
  ▲
  └── rounds ◀── cohorts, accumulators, reservations
        ▲
        └── assignments ──▶ devices        api_keys   rejections   events
                ▲
                └── updates
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
)

from aggregator_service.domain.assignments import AssignmentState
from aggregator_service.domain.rounds import AbortReason, RoundKind, RoundState
from aggregator_service.domain.tasks import TaskState
from aggregator_service.domain.updates import UpdateState
from aggregator_service.store.sql.types import LedgerNumber, UtcDateTime

__all__ = [
    "accumulators",
    "adapters",
    "api_keys",
    "assignments",
    "cohorts",
    "devices",
    "events",
    "metadata",
    "rejections",
    "reservations",
    "rounds",
    "tasks",
    "updates",
]

metadata: Final = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)


def _one_of(column: str, words: Iterable[StrEnum]) -> CheckConstraint:
    listed = ", ".join(f"'{word.value}'" for word in words)
    return CheckConstraint(f"{column} IN ({listed})", name=f"{column}_known")


def _digest(column: str) -> CheckConstraint:
    return CheckConstraint(f"length({column}) = 32", name=f"{column}_length")


def _at_least(least: int, *columns: str) -> Iterable[CheckConstraint]:
    return [CheckConstraint(f"{column} >= {least}", name=f"{column}_least") for column in columns]


def _all_or_none(name: str, first: str, *others: str) -> CheckConstraint:
    same = " AND ".join(f"({first} IS NULL) = ({other} IS NULL)" for other in others)
    return CheckConstraint(same, name=name)


tasks: Final = Table(
    "tasks",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("name", Text, nullable=False),
    Column("state", Text, nullable=False),
    # JSON, kept as text: decoded configurations are cached by it.
    Column("config", Text, nullable=False),
    # The serialized flasc.v1.TaskSpec as devices get it.
    Column("spec", LargeBinary, nullable=False),
    Column("spec_sha256", LargeBinary, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("revision", Integer, nullable=False),
    UniqueConstraint("name"),
    _one_of("state", TaskState),
    _digest("spec_sha256"),
    *_at_least(0, "revision"),
)

rounds: Final = Table(
    "rounds",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("task_id", Uuid, ForeignKey("tasks.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("kind", Text, nullable=False),
    Column("state", Text, nullable=False),
    # JSON, as in the task's config.
    Column("policy", Text, nullable=False),
    Column("base_version", Integer, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("opened_at", UtcDateTime),
    Column("closed_at", UtcDateTime),
    Column("ended_at", UtcDateTime),
    Column("download_key", Text),
    Column("download_sha256", LargeBinary),
    Column("download_size_bytes", BigInteger),
    Column("download_nnz", BigInteger),
    # The files of tasks' tiers by name, as JSON; the columns above are of devices without one.
    Column("tier_downloads", Text, nullable=False, server_default="{}"),
    # How many values of each role the files hold, as JSON by tier.
    Column("download_roles", Text, nullable=False, server_default="{}"),
    # Both fixed once: the count when the round closes, the digest when folding begins.
    Column("accepted_updates", Integer),
    Column("manifest_sha256", LargeBinary),
    Column("abort_reason", Text),
    Column("revision", Integer, nullable=False),
    UniqueConstraint("task_id", "number"),
    _one_of("kind", RoundKind),
    _one_of("state", RoundState),
    _one_of("abort_reason", AbortReason),
    CheckConstraint("(state = 'ABORTED') = (abort_reason IS NOT NULL)", name="aborted_why"),
    _all_or_none(
        "download_whole",
        "download_key",
        "download_sha256",
        "download_size_bytes",
        "download_nnz",
    ),
    _digest("download_sha256"),
    _digest("manifest_sha256"),
    *_at_least(
        0,
        "number",
        "base_version",
        "download_size_bytes",
        "download_nnz",
        "accepted_updates",
        "revision",
    ),
)

# Beside its round, so that devices taking seats do not queue for the round's own row.
cohorts: Final = Table(
    "cohorts",
    metadata,
    Column("round_id", Uuid, ForeignKey("rounds.id"), primary_key=True),
    Column("seats_taken", Integer, nullable=False),
    *_at_least(0, "seats_taken"),
)

devices: Final = Table(
    "devices",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("name", Text, nullable=False),
    Column("credential_sha256", LargeBinary, nullable=False),
    Column("enrolled_at", UtcDateTime, nullable=False),
    Column("revoked_at", UtcDateTime),
    Column("last_seen_at", UtcDateTime),
    Column("tier", Text, nullable=False, server_default=""),
    UniqueConstraint("name"),
    _digest("credential_sha256"),
)

api_keys: Final = Table(
    "api_keys",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("name", Text, nullable=False),
    Column("key_sha256", LargeBinary, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    Column("revoked_at", UtcDateTime),
    # A key of this table, of which none is ever removed.
    Column("made_by", Uuid),
    _digest("key_sha256"),
)

assignments: Final = Table(
    "assignments",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("task_id", Uuid, ForeignKey("tasks.id"), nullable=False),
    Column("round_id", Uuid, ForeignKey("rounds.id"), nullable=False),
    Column("device_id", Uuid, ForeignKey("devices.id"), nullable=False),
    Column("state", Text, nullable=False),
    Column("download_sha256", LargeBinary, nullable=False),
    # All 64 bits of an unsigned number, as the signed one with the same bits.
    Column("training_seed", BigInteger, nullable=False),
    Column("assigned_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    Column("ended_at", UtcDateTime),
    Column("detail", Text, nullable=False),
    # What the device says of its training.
    Column("examples", BigInteger),
    Column("steps", BigInteger),
    Column("loss_mean", Double),
    Column("seconds", Double),
    # What it says of its held-out examples.
    Column("evaluation_correct", BigInteger),
    Column("evaluation_total", BigInteger),
    Column("evaluation_loss_sum", Double),
    # The byte ledger: payloads sent to it and received from it.
    Column("payload_bytes_down", BigInteger, nullable=False),
    Column("payload_bytes_up", BigInteger, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("tier", Text, nullable=False, server_default=""),
    Column("tier_steps", Integer, nullable=False, server_default="0"),
    Column("download_size_bytes", BigInteger, nullable=False, server_default="0"),
    # How the values of its accepted update divide.
    Column("values_lora_a", BigInteger, nullable=False, server_default="0"),
    Column("values_lora_b", BigInteger, nullable=False, server_default="0"),
    Column("values_head", BigInteger, nullable=False, server_default="0"),
    UniqueConstraint("round_id", "device_id"),
    Index(None, "task_id", "device_id", "state"),
    Index(None, "round_id", "state"),
    _one_of("state", AssignmentState),
    _digest("download_sha256"),
    CheckConstraint("(state = 'TRAINING') = (ended_at IS NULL)", name="ended_when"),
    _all_or_none("training_whole", "examples", "steps", "loss_mean", "seconds"),
    _all_or_none(
        "evaluation_whole", "evaluation_correct", "evaluation_total", "evaluation_loss_sum"
    ),
    *_at_least(0, "payload_bytes_down", "payload_bytes_up", "revision"),
)

updates: Final = Table(
    "updates",
    metadata,
    # The order of the ledger; a number is never given twice.
    Column("sequence", LedgerNumber, primary_key=True, autoincrement=True),
    Column("id", Uuid, nullable=False),
    Column("round_id", Uuid, ForeignKey("rounds.id"), nullable=False),
    Column("device_id", Uuid, ForeignKey("devices.id"), nullable=False),
    Column("assignment_id", Uuid, ForeignKey("assignments.id"), nullable=False),
    Column("state", Text, nullable=False),
    Column("payload_sha256", LargeBinary, nullable=False),
    Column("payload_bytes", BigInteger, nullable=False),
    Column("nnz", BigInteger, nullable=False),
    Column("weight", BigInteger, nullable=False),
    Column("shard", Integer, nullable=False),
    Column("accepted_at", UtcDateTime, nullable=False),
    Column("payload_key", Text),
    # Last, so that SQLite reads the columns before it without the payload's pages.
    Column("payload", LargeBinary),
    UniqueConstraint("id"),
    UniqueConstraint("round_id", "device_id"),
    Index(None, "round_id", "shard", "state", "sequence"),
    _one_of("state", UpdateState),
    _digest("payload_sha256"),
    CheckConstraint(
        "(state IN ('SCRUBBED', 'RETRACTED') AND payload IS NULL)"
        " OR (state NOT IN ('SCRUBBED', 'RETRACTED')"
        " AND (payload IS NULL) <> (payload_key IS NULL))",
        name="payload_once",
    ),
    *_at_least(0, "payload_bytes", "nnz", "shard"),
    *_at_least(1, "weight"),
    sqlite_autoincrement=True,
)

accumulators: Final = Table(
    "accumulators",
    metadata,
    Column("round_id", Uuid, ForeignKey("rounds.id"), primary_key=True),
    Column("shard", Integer, primary_key=True, autoincrement=False),
    Column("version", Integer, nullable=False),
    Column("blob_key", Text),
    Column("updates_folded", Integer, nullable=False),
    Column("lease_token", Uuid),
    Column("lease_expires_at", UtcDateTime),
    _all_or_none("lease_whole", "lease_token", "lease_expires_at"),
    *_at_least(0, "shard", "version", "updates_folded"),
)

# Of private tasks alone.
reservations: Final = Table(
    "reservations",
    metadata,
    Column("round_id", Uuid, ForeignKey("rounds.id"), primary_key=True),
    Column("task_id", Uuid, ForeignKey("tasks.id"), nullable=False),
    # Of the task once this round is published.
    Column("rounds", Integer, nullable=False),
    Column("epsilon", Double, nullable=False),
    Column("is_last", Boolean, nullable=False),
    # Secret while the round lasts, and gone with it.
    Column("draw_seed", LargeBinary),
    Column("draw_threshold", BigInteger),
    Column("draw_devices", Integer),
    Column("drawn_at", UtcDateTime),
    Column("noise_seed", LargeBinary),
    Index(None, "task_id"),
    _digest("draw_seed"),
    _digest("noise_seed"),
    _all_or_none("draw_whole", "draw_seed", "draw_threshold", "draw_devices", "drawn_at"),
    *_at_least(0, "draw_threshold", "draw_devices"),
    *_at_least(1, "rounds"),
)

adapters: Final = Table(
    "adapters",
    metadata,
    Column("task_id", Uuid, ForeignKey("tasks.id"), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("round_id", Uuid, ForeignKey("rounds.id")),
    Column("weights_key", Text, nullable=False),
    Column("weights_sha256", LargeBinary, nullable=False),
    Column("optimizer_step", BigInteger, nullable=False),
    Column("optimizer_key", Text, nullable=False),
    Column("mask_nnz", BigInteger, nullable=False),
    Column("divisor", BigInteger, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    UniqueConstraint("round_id"),
    _digest("weights_sha256"),
    CheckConstraint("(version = 0) = (round_id IS NULL)", name="first_without_round"),
    *_at_least(0, "version", "optimizer_step", "mask_nnz", "divisor"),
)

# Counts are spread over shards, so that refusals do not queue for one row.
rejections: Final = Table(
    "rejections",
    metadata,
    Column("reason", Text, primary_key=True),
    # All zeros where a refusal names no task or no round: keys can not be null.
    Column("task_id", Uuid, primary_key=True),
    Column("round_id", Uuid, primary_key=True),
    Column("shard", Integer, primary_key=True, autoincrement=False),
    Column("refused", BigInteger, nullable=False),
    Index(None, "round_id"),
    *_at_least(0, "shard"),
    *_at_least(1, "refused"),
)

events: Final = Table(
    "events",
    metadata,
    Column("sequence", LedgerNumber, primary_key=True, autoincrement=True),
    Column("task_id", Uuid, ForeignKey("tasks.id"), nullable=False),
    Column("round_id", Uuid, ForeignKey("rounds.id")),
    Column("state", Text, nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Index(None, "task_id", "sequence"),
    sqlite_autoincrement=True,
)
