"""Reading ahead: pixels are there before the network asks for them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

from rasterio.windows import Window

from geoglnet.raster.scene import Pixels, Scene


@contextmanager
def iter_read(scene: Scene, reads: Iterable[Sequence[Window]], num_readers: int) -> Iterator[Iterator[list[Pixels]]]:
    """Read groups of windows in threads, in their order and one group ahead per thread.

    Every thread opens the scene for itself, because a GDAL dataset belongs to one thread. Memory: 4 bytes per pixel of the
    groups read ahead, for three bands.

    Args:
        scene: what to read.
        reads: groups of windows.
        num_readers: how many threads.

    Yields:
        An iterator over the groups' pixels; an error of a thread is raised where its group would come.
    """
    own = threading.local()
    with ExitStack() as opened:
        lock = threading.Lock()

        def read(windows: Sequence[Window]) -> list[Pixels]:
            if not hasattr(own, "scene"):
                with lock:
                    own.scene = opened.enter_context(scene.reopened())
            return [own.scene.read_window(window) for window in windows]

        with ThreadPoolExecutor(num_readers, thread_name_prefix="read") as pool:
            try:
                yield _in_order(pool, read, iter(reads), num_readers)
            finally:
                pool.shutdown(wait=True, cancel_futures=True)


def _in_order(
    pool: ThreadPoolExecutor,
    read: Callable[[Sequence[Window]], list[Pixels]],
    reads: Iterator[Sequence[Window]],
    ahead: int,
) -> Iterator[list[Pixels]]:
    waiting: deque[Future[list[Pixels]]] = deque()
    for windows in reads:
        waiting.append(pool.submit(read, windows))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()
