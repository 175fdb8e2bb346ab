"""A store whose transactions see other rounds than there are, as where somebody else is faster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from aggregator_service.store.base import Rounds, Store, Transaction

__all__ = ["Interposed", "InterposedStore"]

T = TypeVar("T")


class Interposed:
    """What it stands before, but for what a subclass answers by itself."""

    def __init__(self, inner: object) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class _SeenTransaction(Interposed):
    def __init__(self, inner: Transaction, rounds: Interposed) -> None:
        super().__init__(inner)
        self.rounds = rounds


@dataclass(frozen=True, slots=True)
class InterposedStore:
    """`rounds` makes what each transaction has in the place of its rounds."""

    inner: Store
    rounds: Callable[[Rounds], Interposed]

    def run(self, name: str, body: Callable[[Transaction], T]) -> T:
        return self.inner.run(name, lambda tx: body(self._seen(tx)))

    def read(self, name: str, body: Callable[[Transaction], T]) -> T:
        return self.inner.read(name, lambda tx: body(self._seen(tx)))

    def check_ready(self) -> None:
        self.inner.check_ready()

    def close(self) -> None:
        self.inner.close()

    def _seen(self, tx: Transaction) -> Transaction:
        return cast("Transaction", _SeenTransaction(tx, self.rounds(tx.rounds)))
