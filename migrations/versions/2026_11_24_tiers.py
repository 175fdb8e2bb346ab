"""Devices have tiers, and rounds a download for each."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "20261124_tiers"
down_revision = "20261123_retraction"


def upgrade() -> None:
    _limit_waiting()
    # Each with a default, so that no database has to copy a table.
    _add("devices", "tier", sa.Text(), "")
    _add("rounds", "tier_downloads", sa.Text(), "{}")
    _add("rounds", "download_roles", sa.Text(), "{}")
    _add("assignments", "tier", sa.Text(), "")
    _add("assignments", "tier_steps", sa.Integer(), "0")
    _add("assignments", "download_size_bytes", sa.BigInteger(), "0")
    op.execute(
        "UPDATE assignments SET download_size_bytes = coalesce((SELECT rounds.download_size_bytes"
        " FROM rounds WHERE rounds.id = assignments.round_id), 0)"
    )


def downgrade() -> None:
    _limit_waiting()
    used = sa.text("SELECT count(*) FROM rounds WHERE tier_downloads <> '{}'")
    if op.get_bind().execute(used).scalar_one():
        # The schema before would hand every tier the same download.
        raise RuntimeError("rounds have downloads by tier, which the schema before can not keep")
    op.drop_column("assignments", "download_size_bytes")
    op.drop_column("assignments", "tier_steps")
    op.drop_column("assignments", "tier")
    op.drop_column("rounds", "download_roles")
    op.drop_column("rounds", "tier_downloads")
    op.drop_column("devices", "tier")


def _add(table: str, name: str, kind: sa.types.TypeEngine[str] | sa.Integer, value: str) -> None:
    op.add_column(table, sa.Column(name, kind, nullable=False, server_default=value))


def _limit_waiting() -> None:
    """Others wait for whoever waits for a table, so nobody may wait for long."""
    if op.get_context().dialect.name == "postgresql":
        op.execute("SET LOCAL lock_timeout = '5s'")
