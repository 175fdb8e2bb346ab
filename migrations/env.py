"""Runs migrations on a connection it is given, or on `-x url=…` from Alembic's own command line."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection

from aggregator_service.store.sql.engines import database_url, postgres_engine, sqlite_engine
from aggregator_service.store.sql.tables import metadata


def run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=metadata,
        # SQLite can undo changes of tables too, once transactions begin when they should.
        transactional_ddl=True,
        render_as_batch=True,
    )
    with context.begin_transaction():
        context.run_migrations()


def run_from_command_line() -> None:
    url = database_url(context.get_x_argument(as_dictionary=True)["url"])
    engine = (
        sqlite_engine(url, pool_size=1, begin="BEGIN IMMEDIATE")
        if url.get_backend_name() == "sqlite"
        else postgres_engine(url, pool_size=1)
    )
    with engine.begin() as connection:
        run(connection)
    engine.dispose()


given = context.config.attributes.get("connection")
if given is None:
    run_from_command_line()
else:
    run(given)
