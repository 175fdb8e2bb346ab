"""One open transaction, as the store's protocols see it."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection

from aggregator_service.store.sql.accumulators import SqlAccumulators
from aggregator_service.store.sql.adapters import SqlAdapters
from aggregator_service.store.sql.assignments import SqlAssignments
from aggregator_service.store.sql.credentials import SqlApiKeys, SqlDevices
from aggregator_service.store.sql.events import SqlEvents
from aggregator_service.store.sql.rejections import SqlRejections
from aggregator_service.store.sql.reservations import SqlReservations
from aggregator_service.store.sql.rounds import SqlRounds
from aggregator_service.store.sql.tasks import SqlTasks
from aggregator_service.store.sql.updates import SqlUpdates

__all__ = ["SqlTransaction"]


@dataclass(frozen=True, slots=True)
class SqlTransaction:
    connection: Connection

    @property
    def tasks(self) -> SqlTasks:
        return SqlTasks(self.connection)

    @property
    def rounds(self) -> SqlRounds:
        return SqlRounds(self.connection)

    @property
    def assignments(self) -> SqlAssignments:
        return SqlAssignments(self.connection)

    @property
    def updates(self) -> SqlUpdates:
        return SqlUpdates(self.connection)

    @property
    def accumulators(self) -> SqlAccumulators:
        return SqlAccumulators(self.connection)

    @property
    def reservations(self) -> SqlReservations:
        return SqlReservations(self.connection)

    @property
    def adapters(self) -> SqlAdapters:
        return SqlAdapters(self.connection)

    @property
    def devices(self) -> SqlDevices:
        return SqlDevices(self.connection)

    @property
    def api_keys(self) -> SqlApiKeys:
        return SqlApiKeys(self.connection)

    @property
    def rejections(self) -> SqlRejections:
        return SqlRejections(self.connection)

    @property
    def events(self) -> SqlEvents:
        return SqlEvents(self.connection)
