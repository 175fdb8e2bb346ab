"""Devices, API keys, refusals and events in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from aggregator_service.domain.credentials import ApiKey, Device
from aggregator_service.domain.events import Event
from aggregator_service.store.base import DeviceCounts, Lock
from aggregator_service.store.memory.tables import Tables, require
from flasc_core.errors import Reason, Refusal

__all__ = ["MemoryApiKeys", "MemoryDevices", "MemoryEvents", "MemoryRejections"]


@dataclass(frozen=True, slots=True)
class MemoryDevices:
    tables: Tables

    def add(self, device: Device) -> None:
        if any(known.name == device.name for known in self.tables.devices.values()):
            raise Refusal(
                Reason.NAME_TAKEN,
                f"a device named {device.name!r} exists already",
                name=device.name,
            )
        require(device.id not in self.tables.devices, f"device {device.id} exists already")
        self.tables.devices[device.id] = device

    def get(self, device_id: UUID) -> Device | None:
        return self.tables.devices.get(device_id)

    def page(self, *, limit: int, after: UUID | None) -> Sequence[Device]:
        in_order = sorted(self.tables.devices.values(), key=lambda one: one.id)
        return [one for one in in_order if after is None or one.id > after][:limit]

    def revoke(self, device_id: UUID, now: datetime) -> None:
        known = self.tables.devices.get(device_id)
        if known is not None and known.revoked_at is None:
            self.tables.devices[device_id] = replace(known, revoked_at=now)

    def set_tier(self, device_id: UUID, tier: str) -> None:
        known = self.tables.devices.get(device_id)
        if known is not None:
            self.tables.devices[device_id] = replace(known, tier=tier)

    def touch(self, device_id: UUID, now: datetime) -> None:
        known = self.tables.devices.get(device_id)
        if known is not None:
            self.tables.devices[device_id] = replace(known, last_seen_at=now)

    def counts(self, *, seen_since: datetime) -> DeviceCounts:
        enrolled = [one for one in self.tables.devices.values() if one.revoked_at is None]
        seen = [one.last_seen_at for one in enrolled if one.last_seen_at is not None]
        return DeviceCounts(
            enrolled=len(enrolled),
            revoked=len(self.tables.devices) - len(enrolled),
            seen=sum(1 for at in seen if at >= seen_since),
        )

    def enrolled_before(self, when: datetime) -> Sequence[UUID]:
        devices = self.tables.devices.values()
        return [one.id for one in devices if one.revoked_at is None and one.enrolled_at < when]


@dataclass(frozen=True, slots=True)
class MemoryApiKeys:
    tables: Tables

    def add(self, key: ApiKey) -> None:
        require(key.id not in self.tables.api_keys, f"API key {key.id} exists already")
        self.tables.api_keys[key.id] = key

    def get(self, key_id: UUID, lock: Lock = Lock.NONE) -> ApiKey | None:
        return self.tables.api_keys.get(key_id)

    def page(self, *, limit: int, after: UUID | None) -> Sequence[ApiKey]:
        in_order = sorted(self.tables.api_keys.values(), key=lambda one: one.id)
        return [one for one in in_order if after is None or one.id > after][:limit]

    def revoke(self, key_id: UUID, now: datetime) -> None:
        keys = self.tables.api_keys
        ending = {key_id} & keys.keys()
        while ending:
            for one in ending:
                keys[one] = replace(keys[one], revoked_at=keys[one].revoked_at or now)
            ending = {one.id for one in keys.values() if one.made_by in ending}


@dataclass(frozen=True, slots=True)
class MemoryRejections:
    tables: Tables

    def count(self, reason: Reason, *, task_id: UUID | None, round_id: UUID | None) -> None:
        self.tables.rejections[reason, task_id, round_id] += 1

    def by_round(self, round_ids: Collection[UUID]) -> Mapping[UUID, Mapping[Reason, int]]:
        return {round_id: self._summed({round_id}.__contains__) for round_id in round_ids}

    def of_task(self, task_id: UUID) -> Mapping[Reason, int]:
        rounds = self.tables.rounds.values()
        return self._summed({one.id for one in rounds if one.task_id == task_id}.__contains__)

    def totals(self) -> Mapping[Reason, int]:
        return self._summed(lambda _: True)

    def _summed(self, concerns: Callable[[UUID | None], bool]) -> Mapping[Reason, int]:
        sums: Counter[Reason] = Counter()
        for (reason, _, round_id), refused in self.tables.rejections.items():
            if concerns(round_id):
                sums[reason] += refused
        return sums


@dataclass(frozen=True, slots=True)
class MemoryEvents:
    tables: Tables

    def append(self, event: Event) -> None:
        require(event.task_id in self.tables.tasks, f"there is no task {event.task_id}")
        sequence = self.last_sequence() + 1
        self.tables.events[sequence] = replace(event, sequence=sequence)

    def after(self, sequence: int, *, limit: int, task_id: UUID | None = None) -> Sequence[Event]:
        newer = (one for one in self.tables.events.values() if one.sequence > sequence)
        return [one for one in newer if task_id is None or one.task_id == task_id][:limit]

    def last_sequence(self) -> int:
        return len(self.tables.events)
