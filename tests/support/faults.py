"""A store and blobs that spring a trap at one chosen call: a death, or somebody who goes first.

trap = Trap(at=7, moment=Moment.AFTER, action=die)
7th call ──▶ done, committed ──▶ Died instead of the answer
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum, unique
from itertools import count
from typing import TypeVar

from aggregator_service.store.base import Store, Transaction
from aggregator_service.store.blobs import BlobStore

__all__ = ["Died", "Moment", "Trap", "TrappedBlobs", "TrappedStore", "die", "every_trap", "no_trap"]

T = TypeVar("T")


class Died(BaseException):
    """The process is gone: like a kill, no `except Exception` gets to see it."""


def die() -> None:
    raise Died


@unique
class Moment(Enum):
    BEFORE = "before"
    # In a transaction whose body is done, so that it is rolled back; elsewhere the same as BEFORE.
    INSIDE = "inside"
    # The effect is durable, and the caller never hears of it.
    AFTER = "after"


@dataclass(slots=True, kw_only=True)
class Trap:
    """Counts the calls of everything that shares it; `action` runs at the one numbered `at`, or at
    the first of that name.

    Reads leave no effect, so a death at one is a death after the effect before it:
    `effects_only` passes them over.
    """

    at: int | str
    moment: Moment = Moment.BEFORE
    action: Callable[[], None] = die
    effects_only: bool = False
    calls: list[str] = field(default_factory=list)
    has_sprung: bool = field(default=False, init=False)

    def read(self, name: str, call: Callable[[], T]) -> T:
        return call() if self.effects_only else self.effect(name, call)

    def effect(self, name: str, call: Callable[[], T]) -> T:
        is_due = self._counts(name)
        if is_due and self.moment is not Moment.AFTER:
            self._spring()
        result = call()
        if is_due and self.moment is Moment.AFTER:
            self._spring()
        return result

    def transaction(self, store: Store, name: str, body: Callable[[Transaction], T]) -> T:
        if self.moment is not Moment.INSIDE:
            return self.effect(name, lambda: store.run(name, body))
        if not self._counts(name):
            return store.run(name, body)

        def interrupted(tx: Transaction) -> T:
            result = body(tx)
            self._spring()
            return result

        return store.run(name, interrupted)

    def _counts(self, name: str) -> bool:
        self.calls.append(name)
        return self.at in (name, len(self.calls)) and not self.has_sprung

    def _spring(self) -> None:
        self.has_sprung = True
        self.action()


def no_trap() -> Trap:
    return Trap(at=0)


@contextmanager
def told_where(trap: Trap) -> Iterator[None]:
    """Says of a failure which step it followed from."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"{trap.moment.value} call {trap.at} of {trap.calls}")
        raise


def every_trap(make: Callable[[int], Trap], play: Callable[[Trap], None]) -> int:
    """Plays with a trap at the first call, at the second, until one is never reached."""
    for at in count(1):
        trap = make(at)
        with told_where(trap):
            play(trap)
        if not trap.has_sprung:
            return at - 1
    raise AssertionError("unreachable: count() does not end")


@dataclass(frozen=True, slots=True)
class TrappedStore:
    inner: Store
    trap: Trap

    def run(self, name: str, body: Callable[[Transaction], T]) -> T:
        return self.trap.transaction(self.inner, name, body)

    def read(self, name: str, body: Callable[[Transaction], T]) -> T:
        return self.trap.read(name, lambda: self.inner.read(name, body))

    def check_ready(self) -> None:
        self.inner.check_ready()

    def close(self) -> None:
        self.inner.close()


@dataclass(frozen=True, slots=True)
class TrappedBlobs:
    inner: BlobStore
    trap: Trap

    def put(self, key: str, data: bytes) -> None:
        self.trap.effect(f"put {key}", lambda: self.inner.put(key, data))

    def get(self, key: str) -> bytes:
        return self.trap.read(f"get {key}", lambda: self.inner.get(key))

    def read(self, key: str, offset: int, length: int) -> bytes:
        return self.trap.read(f"read {key}", lambda: self.inner.read(key, offset, length))

    def delete(self, key: str) -> None:
        self.trap.effect(f"delete {key}", lambda: self.inner.delete(key))

    def keys(self, prefix: str) -> Iterator[str]:
        return self.trap.read(f"keys {prefix}", lambda: self.inner.keys(prefix))

    def forget(self, folder: str) -> None:
        self.trap.effect(f"forget {folder}", lambda: self.inner.forget(folder))

    def check_ready(self) -> None:
        self.trap.read("check_ready", self.inner.check_ready)
