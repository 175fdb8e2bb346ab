"""Rounds of private tasks reserve what they cost."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "20261125_reservations"
down_revision = "20261124_tiers"


def upgrade() -> None:
    _limit_waiting()
    op.create_table(
        "reservations",
        sa.Column("round_id", sa.Uuid(), nullable=False),
        sa.Column("task_id", sa.Uuid(), nullable=False),
        sa.Column("rounds", sa.Integer(), nullable=False),
        sa.Column("epsilon", sa.Double(), nullable=False),
        sa.Column("is_last", sa.Boolean(), nullable=False),
        sa.Column("draw_seed", sa.LargeBinary()),
        sa.Column("draw_threshold", sa.BigInteger()),
        sa.Column("draw_devices", sa.Integer()),
        sa.Column("drawn_at", sa.DateTime(timezone=True)),
        sa.Column("noise_seed", sa.LargeBinary()),
        sa.CheckConstraint("length(draw_seed) = 32", name=op.f("ck_reservations_draw_seed_length")),
        sa.CheckConstraint(
            "length(noise_seed) = 32", name=op.f("ck_reservations_noise_seed_length")
        ),
        sa.CheckConstraint(
            "(draw_seed IS NULL) = (draw_threshold IS NULL)"
            " AND (draw_seed IS NULL) = (draw_devices IS NULL)"
            " AND (draw_seed IS NULL) = (drawn_at IS NULL)",
            name=op.f("ck_reservations_draw_whole"),
        ),
        _at_least(1, "rounds"),
        _at_least(0, "draw_threshold"),
        _at_least(0, "draw_devices"),
        sa.ForeignKeyConstraint(
            ["round_id"], ["rounds.id"], name=op.f("fk_reservations_round_id_rounds")
        ),
        sa.ForeignKeyConstraint(
            ["task_id"], ["tasks.id"], name=op.f("fk_reservations_task_id_tasks")
        ),
        sa.PrimaryKeyConstraint("round_id", name=op.f("pk_reservations")),
    )
    op.create_index(op.f("ix_reservations_task_id"), "reservations", ["task_id"])


def downgrade() -> None:
    _limit_waiting()
    # Once what they have spent is forgotten, nothing may be spent again.
    op.execute(
        "UPDATE tasks SET state = 'CANCELLED', revision = revision + 1"
        " WHERE state IN ('RUNNING', 'PAUSED') AND id IN (SELECT task_id FROM reservations)"
    )
    op.drop_table("reservations")


def _limit_waiting() -> None:
    """Others wait for whoever waits for a table, so nobody may wait for long."""
    if op.get_context().dialect.name == "postgresql":
        op.execute("SET LOCAL lock_timeout = '5s'")


def _at_least(least: int, column: str) -> sa.CheckConstraint:
    return sa.CheckConstraint(f"{column} >= {least}", name=op.f(f"ck_reservations_{column}_least"))
