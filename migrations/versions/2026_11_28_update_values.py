"""Assignments keep how the values of their accepted updates divide among the adapter's roles."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "20261128_update_values"
down_revision = "20261125_reservations"

_COLUMNS = ("values_lora_a", "values_lora_b", "values_head")


def upgrade() -> None:
    _limit_waiting()
    # Each with a default, so that no database has to copy a table.
    for name in _COLUMNS:
        column = sa.Column(name, sa.BigInteger(), nullable=False, server_default="0")
        op.add_column("assignments", column)


def downgrade() -> None:
    _limit_waiting()
    for name in reversed(_COLUMNS):
        op.drop_column("assignments", name)


def _limit_waiting() -> None:
    """Others wait for whoever waits for a table, so nobody may wait for long."""
    if op.get_context().dialect.name == "postgresql":
        op.execute("SET LOCAL lock_timeout = '5s'")
