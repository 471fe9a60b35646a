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
                    waiting.popleft().result()
            while waiting:
                waiting.popleft().result()
        except Exception:
            pool.shutdown(wait=True, cancel_futures=_has_failed(waiting))
            raise


def _store(pending: PendingBlock, store: Callable[[Block], None]) -> None:
    store(pending.resolve())


def _has_failed(waiting: Iterable[Future[None]]) -> bool:
    return any(future.done() and future.exception() is not None for future in waiting)
