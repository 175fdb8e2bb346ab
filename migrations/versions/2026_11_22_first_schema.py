"""The first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "20261122_first_schema"
down_revision = None


def upgrade() -> None:
    _limit_waiting()
    _create_tasks()
    _create_rounds()
    _create_cohorts()
    _create_devices()
    _create_assignments()
    _create_updates()
    _create_accumulators()
    _create_adapters()
    _create_api_keys()
    _create_rejections()
    _create_events()


def downgrade() -> None:
    _limit_waiting()
    for table in (
        "events",
        "rejections",
        "api_keys",
        "adapters",
        "accumulators",
        "updates",
        "assignments",
        "devices",
        "cohorts",
        "rounds",
        "tasks",
    ):
        op.drop_table(table)


def _limit_waiting() -> None:
    """Others wait for whoever waits for a table, so nobody may wait for long."""
    if op.get_context().dialect.name == "postgresql":
        op.execute("SET LOCAL lock_timeout = '5s'")


def _is_digest(table: str, column: str) -> sa.CheckConstraint:
    return sa.CheckConstraint(f"length({column}) = 32", name=op.f(f"ck_{table}_{column}_length"))


def _at_least(least: int, table: str, column: str) -> sa.CheckConstraint:
    return sa.CheckConstraint(f"{column} >= {least}", name=op.f(f"ck_{table}_{column}_least"))


def _create_tasks() -> None:
    op.create_table(
        "tasks",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("config", sa.Text(), nullable=False),
        sa.Column("spec", sa.LargeBinary(), nullable=False),
        sa.Column("spec_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.CheckConstraint(
            "state IN ('RUNNING', 'PAUSED', 'COMPLETED', 'CANCELLED')",
            name=op.f("ck_tasks_state_known"),
        ),
        _is_digest("tasks", "spec_sha256"),
        _at_least(0, "tasks", "revision"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tasks")),
        sa.UniqueConstraint("name", name=op.f("uq_tasks_name")),
    )


def _create_rounds() -> None:
    op.create_table(
        "rounds",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("task_id", sa.Uuid(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("policy", sa.Text(), nullable=False),
        sa.Column("base_version", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("opened_at", sa.DateTime(timezone=True)),
        sa.Column("closed_at", sa.DateTime(timezone=True)),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.Column("download_key", sa.Text()),
        sa.Column("download_sha256", sa.LargeBinary()),
        sa.Column("download_size_bytes", sa.BigInteger()),
        sa.Column("download_nnz", sa.BigInteger()),
        sa.Column("accepted_updates", sa.Integer()),
        sa.Column("manifest_sha256", sa.LargeBinary()),
        sa.Column("abort_reason", sa.Text()),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.CheckConstraint(
            "(state = 'ABORTED') = (abort_reason IS NOT NULL)", name=op.f("ck_rounds_aborted_why")
        ),
        sa.CheckConstraint(
            "abort_reason IN ('QUORUM_MISSED', 'OPERATOR')",
            name=op.f("ck_rounds_abort_reason_known"),
        ),
        sa.CheckConstraint("kind IN ('TRAINING', 'EVALUATION')", name=op.f("ck_rounds_kind_known")),
        sa.CheckConstraint(
            "state IN ('PENDING', 'COLLECTING', 'CLOSING', 'FOLDING', 'PUBLISHED', 'EVALUATED',"
            " 'ABORTED')",
            name=op.f("ck_rounds_state_known"),
        ),
        sa.CheckConstraint(
            "(download_key IS NULL) = (download_sha256 IS NULL)"
            " AND (download_key IS NULL) = (download_size_bytes IS NULL)"
            " AND (download_key IS NULL) = (download_nnz IS NULL)",
            name=op.f("ck_rounds_download_whole"),
        ),
        _at_least(0, "rounds", "accepted_updates"),
        _at_least(0, "rounds", "base_version"),
        _at_least(0, "rounds", "download_nnz"),
        _at_least(0, "rounds", "download_size_bytes"),
        _is_digest("rounds", "download_sha256"),
        _is_digest("rounds", "manifest_sha256"),
        _at_least(0, "rounds", "number"),
        _at_least(0, "rounds", "revision"),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"], name=op.f("fk_rounds_task_id_tasks")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rounds")),
        sa.UniqueConstraint("task_id", "number", name=op.f("uq_rounds_task_id_number")),
    )


def _create_cohorts() -> None:
    op.create_table(
        "cohorts",
        sa.Column("round_id", sa.Uuid(), nullable=False),
        sa.Column("seats_taken", sa.Integer(), nullable=False),
        _at_least(0, "cohorts", "seats_taken"),
        sa.ForeignKeyConstraint(
            ["round_id"], ["rounds.id"], name=op.f("fk_cohorts_round_id_rounds")
        ),
        sa.PrimaryKeyConstraint("round_id", name=op.f("pk_cohorts")),
    )


def _create_devices() -> None:
    op.create_table(
        "devices",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("credential_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("enrolled_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True)),
        sa.Column("last_seen_at", sa.DateTime(timezone=True)),
        _is_digest("devices", "credential_sha256"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_devices")),
        sa.UniqueConstraint("name", name=op.f("uq_devices_name")),
    )


def _create_assignments() -> None:
    op.create_table(
        "assignments",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("task_id", sa.Uuid(), nullable=False),
        sa.Column("round_id", sa.Uuid(), nullable=False),
        sa.Column("device_id", sa.Uuid(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("download_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("training_seed", sa.BigInteger(), nullable=False),
        sa.Column("assigned_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("examples", sa.BigInteger()),
        sa.Column("steps", sa.BigInteger()),
        sa.Column("loss_mean", sa.Double()),
        sa.Column("seconds", sa.Double()),
        sa.Column("evaluation_correct", sa.BigInteger()),
        sa.Column("evaluation_total", sa.BigInteger()),
        sa.Column("evaluation_loss_sum", sa.Double()),
        sa.Column("payload_bytes_down", sa.BigInteger(), nullable=False),
        sa.Column("payload_bytes_up", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.CheckConstraint(
            "(state = 'TRAINING') = (ended_at IS NULL)", name=op.f("ck_assignments_ended_when")
        ),
        sa.CheckConstraint(
            "state IN ('TRAINING', 'ACCEPTED', 'EVALUATED', 'ABANDONED', 'FAILED', 'EXPIRED')",
            name=op.f("ck_assignments_state_known"),
        ),
        sa.CheckConstraint(
            "(evaluation_correct IS NULL) = (evaluation_total IS NULL)"
            " AND (evaluation_correct IS NULL) = (evaluation_loss_sum IS NULL)",
            name=op.f("ck_assignments_evaluation_whole"),
        ),
        sa.CheckConstraint(
            "(examples IS NULL) = (steps IS NULL)"
            " AND (examples IS NULL) = (loss_mean IS NULL)"
            " AND (examples IS NULL) = (seconds IS NULL)",
            name=op.f("ck_assignments_training_whole"),
        ),
        _is_digest("assignments", "download_sha256"),
        _at_least(0, "assignments", "payload_bytes_down"),
        _at_least(0, "assignments", "payload_bytes_up"),
        _at_least(0, "assignments", "revision"),
        sa.ForeignKeyConstraint(
            ["device_id"], ["devices.id"], name=op.f("fk_assignments_device_id_devices")
        ),
        sa.ForeignKeyConstraint(
            ["round_id"], ["rounds.id"], name=op.f("fk_assignments_round_id_rounds")
        ),
        sa.ForeignKeyConstraint(
            ["task_id"], ["tasks.id"], name=op.f("fk_assignments_task_id_tasks")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_assignments")),
        sa.UniqueConstraint(
            "round_id", "device_id", name=op.f("uq_assignments_round_id_device_id")
        ),
    )
    op.create_index(op.f("ix_assignments_round_id_state"), "assignments", ["round_id", "state"])
    op.create_index(
        op.f("ix_assignments_task_id_device_id_state"),
        "assignments",
        ["task_id", "device_id", "state"],
        unique=False,
    )


def _create_updates() -> None:
    op.create_table(
        "updates",
        sa.Column(
            "sequence",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("round_id", sa.Uuid(), nullable=False),
        sa.Column("device_id", sa.Uuid(), nullable=False),
        sa.Column("assignment_id", sa.Uuid(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("payload_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("payload_bytes", sa.BigInteger(), nullable=False),
        sa.Column("nnz", sa.BigInteger(), nullable=False),
        sa.Column("weight", sa.BigInteger(), nullable=False),
        sa.Column("shard", sa.Integer(), nullable=False),
        sa.Column("accepted_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("payload_key", sa.Text()),
        sa.Column("payload", sa.LargeBinary()),
        sa.CheckConstraint(
            "(state = 'SCRUBBED' AND payload IS NULL)"
            " OR (state <> 'SCRUBBED' AND (payload IS NULL) <> (payload_key IS NULL))",
            name=op.f("ck_updates_payload_once"),
        ),
        sa.CheckConstraint(
            "state IN ('ACCEPTED', 'FOLDED', 'SCRUBBED')", name=op.f("ck_updates_state_known")
        ),
        _is_digest("updates", "payload_sha256"),
        _at_least(0, "updates", "nnz"),
        _at_least(0, "updates", "payload_bytes"),
        _at_least(0, "updates", "shard"),
        _at_least(1, "updates", "weight"),
        sa.ForeignKeyConstraint(
            ["assignment_id"], ["assignments.id"], name=op.f("fk_updates_assignment_id_assignments")
        ),
        sa.ForeignKeyConstraint(
            ["device_id"], ["devices.id"], name=op.f("fk_updates_device_id_devices")
        ),
        sa.ForeignKeyConstraint(
            ["round_id"], ["rounds.id"], name=op.f("fk_updates_round_id_rounds")
        ),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_updates")),
        sa.UniqueConstraint("id", name=op.f("uq_updates_id")),
        sa.UniqueConstraint("round_id", "device_id", name=op.f("uq_updates_round_id_device_id")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        op.f("ix_updates_round_id_shard_state_sequence"),
        "updates",
        ["round_id", "shard", "state", "sequence"],
        unique=False,
    )


def _create_accumulators() -> None:
    op.create_table(
        "accumulators",
        sa.Column("round_id", sa.Uuid(), nullable=False),
        sa.Column("shard", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("blob_key", sa.Text()),
        sa.Column("updates_folded", sa.Integer(), nullable=False),
        sa.Column("lease_token", sa.Uuid()),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint(
            "(lease_token IS NULL) = (lease_expires_at IS NULL)",
            name=op.f("ck_accumulators_lease_whole"),
        ),
        _at_least(0, "accumulators", "shard"),
        _at_least(0, "accumulators", "updates_folded"),
        _at_least(0, "accumulators", "version"),
        sa.ForeignKeyConstraint(
            ["round_id"], ["rounds.id"], name=op.f("fk_accumulators_round_id_rounds")
        ),
        sa.PrimaryKeyConstraint("round_id", "shard", name=op.f("pk_accumulators")),
    )


def _create_adapters() -> None:
    op.create_table(
        "adapters",
        sa.Column("task_id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("round_id", sa.Uuid()),
        sa.Column("weights_key", sa.Text(), nullable=False),
        sa.Column("weights_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("optimizer_step", sa.BigInteger(), nullable=False),
        sa.Column("optimizer_key", sa.Text(), nullable=False),
        sa.Column("mask_nnz", sa.BigInteger(), nullable=False),
        sa.Column("divisor", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "(version = 0) = (round_id IS NULL)", name=op.f("ck_adapters_first_without_round")
        ),
        _at_least(0, "adapters", "divisor"),
        _is_digest("adapters", "weights_sha256"),
        _at_least(0, "adapters", "mask_nnz"),
        _at_least(0, "adapters", "optimizer_step"),
        _at_least(0, "adapters", "version"),
        sa.ForeignKeyConstraint(
            ["round_id"], ["rounds.id"], name=op.f("fk_adapters_round_id_rounds")
        ),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"], name=op.f("fk_adapters_task_id_tasks")),
        sa.PrimaryKeyConstraint("task_id", "version", name=op.f("pk_adapters")),
        sa.UniqueConstraint("round_id", name=op.f("uq_adapters_round_id")),
    )


def _create_api_keys() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("key_sha256", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True)),
        _is_digest("api_keys", "key_sha256"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
    )


def _create_rejections() -> None:
    op.create_table(
        "rejections",
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("task_id", sa.Uuid(), nullable=False),
        sa.Column("round_id", sa.Uuid(), nullable=False),
        sa.Column("shard", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("refused", sa.BigInteger(), nullable=False),
        _at_least(1, "rejections", "refused"),
        _at_least(0, "rejections", "shard"),
        sa.PrimaryKeyConstraint(
            "reason", "task_id", "round_id", "shard", name=op.f("pk_rejections")
        ),
    )
    op.create_index(op.f("ix_rejections_round_id"), "rejections", ["round_id"])


def _create_events() -> None:
    op.create_table(
        "events",
        sa.Column(
            "sequence",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column("task_id", sa.Uuid(), nullable=False),
        sa.Column("round_id", sa.Uuid()),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["round_id"], ["rounds.id"], name=op.f("fk_events_round_id_rounds")
        ),
        sa.ForeignKeyConstraint(["task_id"], ["tasks.id"], name=op.f("fk_events_task_id_tasks")),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_events")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_events_task_id_sequence"), "events", ["task_id", "sequence"])
