"""The port: a job, items, and what comes of each of them; and the engine that works in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import count, takewhile
from typing import Any, Generic, Protocol, TypeVar

from geoglnet.errors import GeoglnetError

ItemT = TypeVar("ItemT")
ValueT = TypeVar("ValueT")
ValueT_co = TypeVar("ValueT_co", covariant=True)
PER_WORKER = 2  # items whose results may wait for those before them


class EngineJob(Protocol[ValueT_co]):
    """Work to do on each item; it is pickled and sent to other processes."""

    def start(self) -> Callable[[Any], ValueT_co]:
        """Open files and models, once per process; return the function to call with every item."""


@dataclass(frozen=True, slots=True)
class Result(Generic[ItemT, ValueT]):
    """What came of an item.

    Args:
        item: which.
        value: of the work; ``None`` if it failed.
        error: of ours that the work has raised, or :class:`WorkerDiedError`.
    """

    item: ItemT
    value: ValueT | None = None
    error: GeoglnetError | None = None


class WorkerDiedError(GeoglnetError, RuntimeError):
    """Every process that worked on an item has died."""


class Engine(Protocol):
    """Port: does a job on items, somewhere."""

    def map(
        self, job: EngineJob[ValueT], items: Iterable[ItemT], *, ordered: bool = False, tries: int = 3
    ) -> Iterator[Result[ItemT, ValueT]]:
        """Yield what comes of every item.

        An error of ours is a result, and not tried again. A process that dies is replaced; only the item that it was at is
        blamed, and given to another one. Work ends when the iterator is closed.

        Args:
            job: sent to every worker once.
            items: taken as workers get free.
            ordered: yield results in the order of the items; otherwise as they come.
            tries: workers that may die at one item.
        """


class Here:
    """The engine that works in this process; nothing can die here but all of it."""

    def map(
        self, job: EngineJob[ValueT], items: Iterable[ItemT], *, ordered: bool = False, tries: int = 3
    ) -> Iterator[Result[ItemT, ValueT]]:
        work = job.start()
        for item in items:
            try:
                result: Result[ItemT, ValueT] = Result(item, work(item))
            except GeoglnetError as error:
                result = Result(item, error=error)
            yield result


class Queue(Generic[ItemT, ValueT]):
    """Items in line for several workers, and results on their way out; what all engines of several workers share.

    Args:
        items: taken one by one.
        ordered: whether results leave in the order of the items.
        tries: workers that may die at one item.
        most_waiting: items that may have been taken and not left, if they leave in order.
    """

    def __init__(self, items: Iterable[ItemT], ordered: bool, tries: int, most_waiting: int) -> None:
        self._items = iter(items)
        self._ordered, self._tries, self._most_waiting = ordered, tries, most_waiting
        self._again: list[tuple[int, ItemT]] = []
        self._deaths: dict[int, int] = {}
        self._done: dict[int, Result[ItemT, ValueT]] = {}
        self._num_taken = self._num_left = 0

    def take(self) -> tuple[int, ItemT] | None:
        """Take the next item with its number; ``None`` if there is none now."""
        if self._again:
            return self._again.pop()
        if self._ordered and self._num_taken - self._num_left >= self._most_waiting:
            return None
        for item in self._items:
            self._num_taken += 1
            return self._num_taken - 1, item
        return None

    def settle(self, number: int, result: Result[ItemT, ValueT]) -> None:
        """Enter a result."""
        self._done[number] = result

    def blame(self, number: int, item: ItemT) -> None:
        """Enter that a worker has died at an item."""
        deaths = self._deaths[number] = self._deaths.get(number, 0) + 1
        if deaths < self._tries:
            self._again.append((number, item))
        else:
            self.settle(number, Result(item, error=WorkerDiedError(f"{deaths} processes began it and died")))

    def leaving(self) -> Iterator[Result[ItemT, ValueT]]:
        """Yield the results that may leave now."""
        numbers = [*self._done]
        if self._ordered:
            numbers = [*takewhile(self._done.__contains__, count(self._num_left))]
        for number in numbers:
            self._num_left += 1
            yield self._done.pop(number)
