"""Writing behind: the device goes on while the last block is compressed and brought to the disk."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor

from geoglnet.prediction.block import Block, PendingBlock

_BEHIND = 2  # blocks that may wait: more would only hide a disk that cannot keep up


def write_behind(blocks: Iterable[PendingBlock], store: Callable[[Block], None]) -> None:
    """Store blocks in another thread, in their order; whatever ends this, those that were computed are stored first.

    Memory: two blocks.

    Raises:
        OutputError: what ``store`` raised; nothing is stored after it.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="write") as pool:
        waiting: deque[Future[None]] = deque()
        try:
            for pending in blocks:
                waiting.append(pool.submit(_store, pending, store))
                if len(waiting) > _BEHIND:
                    _settle_first(waiting)
            while waiting:
                _settle_first(waiting)
        finally:
            pool.shutdown(wait=True, cancel_futures=_has_failed(waiting))


def _store(pending: PendingBlock, store: Callable[[Block], None]) -> None:
    store(pending.resolve())


def _settle_first(waiting: deque[Future[None]]) -> None:
    waiting[0].result()  # one that failed stays, so that those after it are not tried
    waiting.popleft()


def _has_failed(waiting: Iterable[Future[None]]) -> bool:
    return any(future.done() and future.exception() is not None for future in waiting)
