"""Updates can be retracted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import sqlalchemy as sa
from alembic import op

revision = "20261123_retraction"
down_revision = "20261122_first_schema"

_ASSIGNMENT_STATES = "'TRAINING', 'ACCEPTED', 'EVALUATED', 'ABANDONED', 'FAILED', 'EXPIRED'"
_UPDATE_STATES = "'ACCEPTED', 'FOLDED', 'SCRUBBED'"
_PAYLOAD_ONCE = "(payload IS NULL) <> (payload_key IS NULL)"

# Constraints by table and name.
_BEFORE = {
    ("assignments", "state_known"): f"state IN ({_ASSIGNMENT_STATES})",
    ("updates", "state_known"): f"state IN ({_UPDATE_STATES})",
    ("updates", "payload_once"): (
        f"(state = 'SCRUBBED' AND payload IS NULL) OR (state <> 'SCRUBBED' AND {_PAYLOAD_ONCE})"
    ),
}
_AFTER = {
    ("assignments", "state_known"): f"state IN ({_ASSIGNMENT_STATES}, 'RETRACTED')",
    ("updates", "state_known"): f"state IN ({_UPDATE_STATES}, 'RETRACTING', 'RETRACTED')",
    ("updates", "payload_once"): (
        "(state IN ('SCRUBBED', 'RETRACTED') AND payload IS NULL)"
        f" OR (state NOT IN ('SCRUBBED', 'RETRACTED') AND {_PAYLOAD_ONCE})"
    ),
}


def upgrade() -> None:
    _limit_waiting()
    _replace_checks(_AFTER)


def downgrade() -> None:
    _limit_waiting()
    _forget_retractions()
    _replace_checks(_BEFORE)


def _limit_waiting() -> None:
    """Others wait for whoever waits for a table, so nobody may wait for long."""
    if op.get_context().dialect.name == "postgresql":
        op.execute("SET LOCAL lock_timeout = '5s'")


def _replace_checks(checks: Mapping[tuple[str, str], str]) -> None:
    with _nothing_refers_to_assignments():
        for table in ("assignments", "updates"):
            kept = {"sqlite_autoincrement": table == "updates"}
            with op.batch_alter_table(table, table_kwargs=kept) as batch:
                for (owner, name), condition in checks.items():
                    if owner == table:
                        batch.drop_constraint(op.f(f"ck_{table}_{name}"), type_="check")
                        batch.create_check_constraint(op.f(f"ck_{table}_{name}"), condition)


@contextmanager
def _nothing_refers_to_assignments() -> Iterator[None]:
    """SQLite makes a changed table anew, and lets none go that rows of another refer to."""
    if op.get_context().dialect.name != "sqlite":
        yield
        return
    op.execute("CREATE TEMPORARY TABLE kept_updates AS SELECT * FROM updates")
    op.execute("DELETE FROM updates")
    yield
    op.execute("INSERT INTO updates SELECT * FROM kept_updates")
    op.execute("DROP TABLE kept_updates")


def _forget_retractions() -> None:
    connection = op.get_bind()
    retracting = sa.text("SELECT count(*) FROM updates WHERE state = 'RETRACTING'")
    if connection.execute(retracting).scalar_one():
        # The schema before can neither count such an update nor leave it out.
        raise RuntimeError("updates are being retracted; let the driver finish, then go down")
    op.execute("DELETE FROM updates WHERE state = 'RETRACTED'")
    op.execute("UPDATE assignments SET state = 'FAILED' WHERE state = 'RETRACTED'")
