"""API keys know the key that they were made with."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "20261129_key_makers"
down_revision = "20261128_update_values"


def upgrade() -> None:
    _limit_waiting()
    op.add_column("api_keys", sa.Column("made_by", sa.Uuid(), nullable=True))


def downgrade() -> None:
    _limit_waiting()
    op.drop_column("api_keys", "made_by")


def _limit_waiting() -> None:
    """Others wait for whoever waits for a table, so nobody may wait for long."""
    if op.get_context().dialect.name == "postgresql":
        op.execute("SET LOCAL lock_timeout = '5s'")
