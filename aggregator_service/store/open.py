"""Opens the store and the blob store that a URL names."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError

from aggregator_service.store.base import Store, StoreUnavailable, WrongAddress
from aggregator_service.store.blobs import BlobStore
from aggregator_service.store.folder_blobs import FolderBlobs
from aggregator_service.store.schema import SchemaCheck
from aggregator_service.store.sql.engines import (
    check_durable,
    database_url,
    durability_settings,
    postgres_engine,
    sqlite_engine,
)
from aggregator_service.store.sql.store import (
    Observer,
    PostgresConnections,
    SqliteConnections,
    SqlStore,
)

__all__ = ["open_blobs", "open_store", "shown_url"]


def open_store(
    url: str,
    *,
    pool_size: int = 8,
    check_durability: bool = True,
    observe: Observer | None = None,
) -> Store:
    """Opens sqlite:///path or postgresql://user@host/database.

    Raises WrongAddress for another URL. With `check_durability`, and on PostgreSQL alone, raises
    StoreUnavailable where the database does not answer and NotDurable where it is set up to lose
    committed transactions; without, and on SQLite, nothing is asked of a database until it is used.
    A SQLite file whose file system has no write-ahead log raises NotDurable then. The schema is
    left to `check_ready`.
    """
    parsed = database_url(url)
    check_schema = SchemaCheck()
    if parsed.get_backend_name() == "sqlite":
        writer = sqlite_engine(parsed, pool_size=1, begin="BEGIN IMMEDIATE")
        readers = sqlite_engine(parsed, pool_size=pool_size, begin="BEGIN", read_only=True)
        return SqlStore(
            SqliteConnections(writer, readers), check_schema=check_schema, observe=observe
        )
    engine = postgres_engine(parsed, pool_size=pool_size)
    if check_durability:
        try:
            with engine.connect() as connection:
                check_durable(durability_settings(connection))
        except SQLAlchemyError as error:
            engine.dispose()
            raise StoreUnavailable("the database does not answer") from error
        except BaseException:
            engine.dispose()
            raise
    return SqlStore(PostgresConnections(engine), check_schema=check_schema, observe=observe)


def shown_url(url: str) -> str:
    """A database's URL for people to see: without its password."""
    return make_url(url).render_as_string(hide_password=True)


def open_blobs(url_or_path: str) -> BlobStore:
    """Opens the folder at a path or file:// URL, and creates it where it is missing.

    Raises WrongAddress for another URL.
    """
    parts = urlsplit(url_or_path)
    if parts.scheme == "file":
        return FolderBlobs(Path(url2pathname(parts.path)))
    if "://" in url_or_path:
        raise WrongAddress(f"{parts.scheme}:// holds no blobs; give a folder or a file:// URL")
    return FolderBlobs(Path(url_or_path))
