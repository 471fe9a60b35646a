"""Predict a scene of any size: regions in, finished blocks out.

A block is the part of the scene that one core settles. It depends on the scene, the model, the options and the plan alone,
which lies on an absolute grid: not on which other blocks are computed, nor when.

Memory does not grow with the scene. With K classes and regions of side R it is, in bytes, 4 · K · R² for the probabilities of
a region, 4 · R² for every region that was read ahead, 9 · R² while labels are chosen, and the network's own (see
:class:`~geoglnet.prediction.segmenter.RegionSegmenter`). What blends into the next row of regions lies on disk
(:class:`~geoglnet.prediction.blender.ZoneBuffer`).
"""

from __future__ import annotations

import copy
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from rasterio.windows import Window

from geoglnet.models.manifest import Manifest
from geoglnet.models.network import Network
from geoglnet.prediction.area import Area, choose_area
from geoglnet.prediction.blender import Blender, ZoneBuffer
from geoglnet.prediction.blocks import PendingBlock
from geoglnet.prediction.device import check_capacity, resolve_device
from geoglnet.prediction.estimate import Estimate
from geoglnet.prediction.layers import CONFIDENCE, LABELS, Layer
from geoglnet.prediction.memory import with_batch
from geoglnet.prediction.plan import BlockSet, Plan, iter_work
from geoglnet.prediction.predict_config import PredictConfig
from geoglnet.prediction.segmenter import CoarseToFineSegmenter, RegionSegmenter
from geoglnet.progress import Progress, SilentProgress
from geoglnet.raster.scene import Pixels, Scene
from geoglnet.types import Shape

Block = npt.NDArray[np.uint8]


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
            # The stack that closes the scenes is shared by all threads, and not made for that.
            if not hasattr(own, "scene"):
                with lock:
                    own.scene = opened.enter_context(scene.reopened())
            return [own.scene.read_window(window) for window in windows]

        with ThreadPoolExecutor(num_readers, thread_name_prefix="read") as pool:
            try:
                yield _in_order(pool, read, iter(reads), num_readers)
            finally:
                # A run that is stopped does not wait for regions that nobody will look at.
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
        # As many groups wait as there are threads: memory is bounded, and no thread idles while the network works.
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


class Sink(Protocol):
    """Receiver of finished blocks: every pixel of the scene once, in windows that begin on multiples of the core size."""

    def write_block(self, window: Window, block: Block) -> None:
        """Take a ``(h, w)`` uint8 block."""


class ArraySink:
    """Sink that keeps the whole raster in memory; for tests and small scenes.

    Args:
        shape: of the scene.
    """

    def __init__(self, shape: Shape) -> None:
        self.array: Block = np.full(shape, 255, dtype=np.uint8)

    def write_block(self, window: Window, block: Block) -> None:
        self.array[window.toslices()] = block


def predict_scene(
    scene: Scene,
    network: Network,
    manifest: Manifest,
    labels: Sink,
    confidence: Sink | None = None,
    config: PredictConfig | None = None,
    progress: Progress | None = None,
) -> None:
    """Segment a scene at the resolution it is opened at, into sinks.

    Args:
        scene: what to read.
        network: moved to the device and put into evaluation mode.
        manifest: of the network.
        labels: receives class indices, 255 where the scene is invalid.
        confidence: receives the chosen class's probability times 254, 255 where the scene is invalid.
        config: device, batch size, precision.
        progress: told of every patch (of every region, when the network has only a global branch).

    Raises:
        ConfigError: the device is not there, or its memory is too small.
        BandsError: the scene has not the model's bands.
        SceneError: the scene cannot be read.
        OSError: the disk is full.
        Canceled: ``progress`` said so.
    """
    layers = (LABELS,) if confidence is None else (LABELS, CONFIDENCE)
    predictor = Predictor(network, manifest, config)
    for pending in predictor.iter_blocks(scene, layers, progress=progress):
        block = pending.resolve()
        labels.write_block(block.window, block.labels)
        if confidence is not None:
            confidence.write_block(block.window, block.layers[CONFIDENCE.name][0])


class Predictor:
    """A model ready to compute any blocks of any scene.

    Args:
        network: moved to the device and put into evaluation mode; folded first where that saves work.
        manifest: of the network.
        config: device, batch size, precision, effort, augmentation, readers.

    Raises:
        ConfigError: the device is not there, or is too small for a baseline's input.
    """

    def __init__(self, network: Network, manifest: Manifest, config: PredictConfig | None = None) -> None:
        self.manifest = manifest
        config = config or PredictConfig()
        self.config = with_batch(config, manifest, resolve_device(config.device))
        kind = CoarseToFineSegmenter if self.config.coarse_to_fine else RegionSegmenter
        self.segmenter = kind(network.for_inference(), manifest, self.config)
        # After the weights have been moved: what is left of the memory is for maps.
        check_capacity(network, manifest, self.segmenter.device)

    def spooling_to(self, folder: Path) -> Predictor:
        """Return the same predictor, with its temporary files in a folder; the network is shared."""
        other = copy.copy(self)
        other.config = replace(self.config, spool_folder=folder)
        return other

    def estimate(self, area: Area, layers: Collection[Layer], blocks: BlockSet | None = None) -> Estimate:
        """Estimate what computing blocks of an area amounts to; where they are many, a patch is tried for its time.

        Args:
            area: what of a scene is wanted.
            layers: what to know of every pixel.
            blocks: which blocks; all that the area meets when left out.
        """
        plan = Plan(area.shape, self.manifest.region)
        if blocks is None and area.is_everything:
            steps = len(plan) if self.segmenter.sees_overviews_only else plan.num_patches
        else:
            work = iter_work(plan, area.blocks(plan) if blocks is None else blocks)
            steps = sum(self.segmenter.num_steps(block.planned) for block in work)
        return Estimate.of(steps, self.segmenter, self.config, area, layers)

    def iter_blocks(
        self,
        scene: Scene,
        layers: Collection[Layer] = (LABELS,),
        *,
        area: Area | None = None,
        blocks: BlockSet | None = None,
        expected: Estimate | None = None,
        progress: Progress | None = None,
    ) -> Iterator[PendingBlock]:
        """Blocks of a scene in the plan's order; regions without a wanted, valid pixel never reach the network.

        Args:
            scene: at the resolution it is opened at.
            layers: what to know of every pixel.
            area: what of the scene is wanted; by the configuration's bounds and mask when left out.
            blocks: which blocks, as (row, column) of the plan's cores; all that the area meets when left out.
            expected: of :meth:`estimate`, where that was asked for before.
            progress: told of every patch (of every region, when the network has only a global branch).

        Raises:
            ConfigError: the device's memory is too small, or nothing of the scene is wanted.
            BandsError: the scene has not the model's bands.
            SceneError: the scene cannot be read.
            OSError: the disk is full.
            Canceled: ``progress`` said so.
        """
        plan = Plan(scene.shape, self.manifest.region)
        progress = progress or SilentProgress()
        area = area or choose_area(scene, self.config.bounds, self.config.mask_path, progress)
        chosen = area.blocks(plan) if blocks is None else blocks
        expected = expected or self.estimate(area, layers, chosen)
        progress.plan("segment", expected.steps, expected.unit, **expected.figures)
        # Generators twice over the same plan: one feeds the readers ahead of time, the other the sweep; neither is held.
        reads = ([planned.window for planned in work.reads] for work in iter_work(plan, chosen))
        with (
            ZoneBuffer(plan, self.manifest.model.num_classes, self.config.spool_folder) as buffer,
            iter_read(scene, reads, self.config.num_readers) as regions,
        ):
            blender = Blender(plan, area, self.segmenter, buffer, tuple(layers), progress)
            for work, pixels in zip(iter_work(plan, chosen), regions, strict=True):
                yield blender.blended(work, pixels)
