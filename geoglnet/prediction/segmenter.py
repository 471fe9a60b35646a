"""From the pixels of a region to class probabilities: the network, its patches, and their blending."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from rasterio.windows import Window
from torch import Tensor

from geoglnet.config import Branches
from geoglnet.errors import ConfigError
from geoglnet.message import Keyword
from geoglnet.models.checks import trusted
from geoglnet.models.coarse_to_fine import CoarseToFineConfig, background_of, foreground_place
from geoglnet.models.manifest import Manifest
from geoglnet.models.network import Network, RegionMaps
from geoglnet.prediction.blocks import overflow
from geoglnet.prediction.device import choose_precision, first_batch_size, resolve_device
from geoglnet.prediction.effort import Selection, choose_selection
from geoglnet.prediction.plan import PlannedPatch, PlannedRegion
from geoglnet.prediction.predict_config import PredictConfig
from geoglnet.prediction.region import AS_IT_IS, D4, Turn, Uploaded, Wanted, upload
from geoglnet.progress import Progress, SilentProgress
from geoglnet.raster.scene import Pixels
from geoglnet.types import Place, Shape
from geoglnet.windows import footprints


class RegionSegmenter:
    """A network made ready to turn regions into probabilities.

    The network is moved to the device, laid out channels last, and put into evaluation mode. Patches are blended as
    probabilities, with weights that fall toward their edges; a network that sums logits is blended as the authors do: logits,
    upsampled to the nearest, every patch counting alike.

    Memory on the device, with K classes, a region of side R, an overview of side S and n patches of side P, in bytes: the
    region's pixels 4 · R², one band of it in float32 4 · R², its probabilities 4 · K · R² (168 MB for 7 classes of 2448 px),
    the logits of n patches 4 · K · n · P² / 16 (those of a batch; with bidirectional sharing, of the region), a patch at full
    size 2 · 4 · K · P², plus the network's own: its weights, the overview's maps, and the activations of one batch.

    Args:
        network: in the form that it predicts with (:meth:`~geoglnet.models.network.Network.for_inference`).
        manifest: sizes, mean and std.
        config: device, batch size, precision, effort, augmentation.
        select: which patches run; by the effort when left out.
        device: instead of the one that the configuration names.

    Raises:
        ConfigError: the device is not there.
    """

    def __init__(
        self,
        network: Network,
        manifest: Manifest,
        config: PredictConfig,
        select: Selection | None = None,
        device: torch.device | None = None,
    ) -> None:
        self.device = resolve_device(config.device) if device is None else device
        self.batch_size = config.batch_size or first_batch_size(self.device)
        self.network = network.to(self.device).to(memory_format=torch.channels_last).eval()
        self.precision = choose_precision(config.precision, manifest, self.device)
        self._dtype: torch.dtype = getattr(torch, self.precision)
        self._autocasts = not self.network.prepare(self._dtype) and self._dtype is not torch.float32
        self._select = select or choose_selection(config.effort, manifest.legend.background)
        self._turns = D4 if config.augment else AS_IT_IS
        self._ring = None if network.sums_logits else network.ring_size
        self.manifest = manifest

    @property
    def num_classes(self) -> int:
        return self.manifest.model.num_classes

    @property
    def sees_overviews_only(self) -> bool:
        """Tell whether there are no patches."""
        return not self.network.sees_patches

    def num_steps(self, planned: PlannedRegion) -> int:
        """Count the steps of progress that a region is."""
        return 1 if self.sees_overviews_only else planned.num_patches

    @torch.inference_mode()
    def probabilities(
        self,
        planned: PlannedRegion,
        pixels: Pixels,
        window: Window | None = None,
        visible: npt.NDArray[np.bool_] | None = None,
        progress: Progress | None = None,
    ) -> Tensor:
        """Class probabilities over a part of the reach of a region.

        What a pixel gets does not depend on the part: batches without a visible pixel in it are left out, and those that run
        are always the same. Where the device has too little memory, the batch is halved and the region begun again.

        Args:
            planned: where the region lies.
            pixels: what was read there.
            window: part of the reach, in the scene; all of it when left out.
            visible: ``(h, w)`` bool over the region, where somebody will look; every valid pixel when left out.
            progress: told of every patch.

        Returns:
            ``(K, h, w)`` float32 on the device, adding up to one at every visible pixel of the window.

        Raises:
            BandsError: the pixels have not the model's bands.
            ConfigError: not even a single patch fits into the GPU's memory.
        """
        seen = pixels.valid if visible is None else visible & pixels.valid
        wanted = Wanted(planned, window or planned.reach, pixels, seen, self._ring, self.device)
        steps = Steps(progress or SilentProgress(), self.num_steps(planned))
        with trusted():  # upload looks at the pixels, once for all patches
            total = self._with_memory(lambda: self._blended(wanted, steps))
        steps.finish()
        return total

    def _with_memory(self, attempt: Callable[[], Tensor]) -> Tensor:
        while True:
            try:
                return attempt()
            except torch.cuda.OutOfMemoryError:
                if self.batch_size == 1:
                    raise ConfigError(
                        f"{self.device} has no memory left for a single patch; free some, or use " + Keyword("device", "cpu")
                    ) from None
            # Halved for the rest of the run. Logits do not depend on the batch beyond rounding, labels hardly ever.
            self.batch_size //= 2  # outside the handler, whose traceback keeps the tensors alive
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def _blended(self, wanted: Wanted, steps: Steps) -> Tensor:
        uploaded = upload(wanted.pixels, self.manifest, self.device)
        # Weights of patches add up to one at every pixel, so plain sums of weighted probabilities are the blend.
        total = torch.zeros((self.num_classes, *wanted.shape), device=self.device)
        overview = self._overview(uploaded, wanted.planned) if self.network.sees_overviews else None
        chosen: Sequence[PlannedPatch] | None = None
        for turn in self._turns:
            look = _Look(turn, None if overview is None else turn.apply(overview))
            maps = None if look.overview is None else self._see(look.overview)
            # All turns run the same patches: those of the region as it lies, or effort would depend on the turn.
            chosen = self._chosen(wanted, maps) if chosen is None else chosen
            self._add_local(total, wanted, self._local_logits(wanted, uploaded, chosen, look, maps, steps))
            self._add_global(total, wanted, chosen, maps, turn)
        if self.network.sums_logits:
            # As the authors merge: logits are summed over patches and the class is that of the largest sum.
            return total.softmax(dim=0)
        return total if len(self._turns) == 1 else total.div_(len(self._turns))

    def _overview(self, uploaded: Uploaded, planned: PlannedRegion) -> Tensor:
        return uploaded.overview(self.manifest.region.overview_shape(planned.shape))

    def _see(self, overview: Tensor) -> RegionMaps:
        with self._autocast():
            return self.network.see(overview.contiguous(memory_format=torch.channels_last))

    def _chosen(self, wanted: Wanted, maps: RegionMaps | None) -> Sequence[PlannedPatch]:
        """Patches of the region that run; the same ones whatever part of the region is asked for."""
        if self.sees_overviews_only:
            return ()
        if maps is None or self._select.is_trivial:
            return wanted.candidates
        return self._select(wanted.planned, wanted.candidates, maps.logits[0].float().softmax(dim=0))

    def _local_logits(
        self,
        wanted: Wanted,
        uploaded: Uploaded,
        chosen: Sequence[PlannedPatch],
        look: _Look,
        maps: RegionMaps | None,
        steps: Steps,
    ) -> Iterator[tuple[PlannedPatch, Tensor]]:
        """Patches of all batches in which one matters, with their ``(K, h/4, w/4)`` logits (a baseline's are larger)."""
        groups = [chosen[i : i + self.batch_size] for i in range(0, len(chosen), self.batch_size)]
        if not self.network.has_two_rounds:  # whole groups: what else is in a batch may change a patch's last bits
            groups = [group for group in groups if any(map(wanted.meets, group))]
        batches = (look.batch(uploaded, group, wanted.planned.shape) for group in groups)
        found = self.network.iter_logits(look.overview, maps, batches)
        for group in groups:
            with self._autocast():
                logits = next(found)  # the network runs in here, not where the iterator was made
            yield from zip(group, look.turn.undo(logits).float(), strict=True)
            steps.advance(len(group))

    def _add_local(self, total: Tensor, wanted: Wanted, patches: Iterable[tuple[PlannedPatch, Tensor]]) -> None:
        for patch, logits in patches:
            if wanted.meets(patch):
                place = wanted.place(patch)
                scores = self._scores(self._upsampled(logits[None], wanted.planned.patch_shape)[0])
                kept = scores[(slice(None), *place.inside)]
                total[:, place.rows, place.cols].addcmul_(kept, place.weights)

    def _add_global(
        self, total: Tensor, wanted: Wanted, chosen: Sequence[PlannedPatch], maps: RegionMaps | None, turn: Turn
    ) -> None:
        """Add the global branch's probabilities where patches were not chosen."""
        if maps is None:  # every patch was
            return
        if self.sees_overviews_only:
            total.add_(self._from_overview(wanted, turn.undo(maps.logits)))
            return
        # Where a patch did not run, the global branch's probabilities take its weight, so that the sum stays one.
        places = {(patch.row, patch.col) for patch in chosen}
        left = [p for p in wanted.candidates if (p.row, p.col) not in places and wanted.meets(p)]
        if left:
            share = torch.zeros(total.shape[1:], device=self.device)
            for place in map(wanted.place, left):
                share[place.rows, place.cols] += place.weights
            total.addcmul_(self._from_overview(wanted, turn.undo(maps.logits)), share)

    def _from_overview(self, wanted: Wanted, logits: Tensor) -> Tensor:
        """``(K, h, w)`` probabilities of the global branch over the window."""
        total = torch.empty((logits.shape[1], *wanted.shape), device=self.device)
        place = wanted.window_in_region.toslices()
        for k in range(len(total)):  # one by one: all at once would take twice the memory
            total[k] = self._upsampled(logits[:, k : k + 1], wanted.planned.shape)[(0, 0, *place)]
        return self._scores(total)

    def _scores(self, logits: Tensor) -> Tensor:
        """Turn ``(K, h, w)`` logits, in place, into what is blended: probabilities or, as the authors do, logits."""
        if self.network.sums_logits:
            return logits
        # Softmax in place: torch's own would take the memory of the region's probabilities twice.
        logits.sub_(logits.amax(dim=0))
        if self.manifest.temperature != 1:
            logits.div_(self.manifest.temperature)
        logits.exp_()
        return logits.div_(logits.sum(dim=0))

    def _upsampled(self, logits: Tensor, shape: Shape) -> Tensor:
        if self.network.sums_logits:
            return F.interpolate(logits.float(), size=shape, mode="nearest")
        return F.interpolate(logits.float(), size=shape, mode="bilinear", align_corners=False)

    def _autocast(self) -> AbstractContextManager[object]:
        is_needed = self._autocasts and self.device.type != "meta"
        return torch.autocast(self.device.type, dtype=self._dtype) if is_needed else nullcontext()


@dataclass(frozen=True, slots=True)
class _Look:
    """One way to look at a region: as it is, or turned."""

    turn: Turn
    overview: Tensor | None

    def batch(self, uploaded: Uploaded, patches: Sequence[PlannedPatch], region: Shape) -> tuple[Tensor, Tensor]:
        """Patches of a region as the network takes them, and their footprints."""
        windows = [patch.window for patch in patches]
        # On the host, where positions are numbers: networks move what they make of them.
        places = torch.from_numpy(self.turn.footprints(footprints(windows, region)))
        return self.turn.apply(uploaded.patches(windows)).contiguous(memory_format=torch.channels_last), places


class Steps:
    """Tells progress of a region's steps, each once, even when the region is begun again."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._left = progress, total

    def advance(self, count: int) -> None:
        for _ in range(min(count, self._left)):  # one by one: a receiver may stop the run at any patch
            self._left -= 1
            self._progress.advance()

    def finish(self) -> None:
        if self._left:
            self._progress.advance(self._left)


class CoarseToFineSegmenter(RegionSegmenter):
    """Segments the part of each region where the global branch sees foreground; the rest is background.

    The part is the rectangle around every cell whose foreground is at all likely, with a margin, grown until foreground and
    background in it are about as large (:class:`CoarseToFineConfig` has the numbers). Its overview is made from it anew, so
    less is lost in decimation. A region without such a cell costs one pass of the global branch and no patch.

    Raises:
        ConfigError: the legend is not of a background and one other class, or the network lacks a branch.
    """

    def __init__(
        self,
        network: Network,
        manifest: Manifest,
        config: PredictConfig,
        coarse: CoarseToFineConfig = CoarseToFineConfig(),  # noqa: B008 - a value
    ) -> None:
        super().__init__(network, manifest, config)
        self._background = background_of(manifest.legend)
        self._coarse = coarse
        if manifest.model.branches is not Branches.BOTH:
            raise ConfigError(
                f"coarse-to-fine needs both branches; {manifest.name} has only the {manifest.model.branches.value} one"
            )

    @torch.inference_mode()
    def foreground(self, wanted: Wanted) -> Place | None:
        """Rows and columns of a region that are refined; they depend on the region alone."""
        region = self.manifest.region
        overview = upload(wanted.pixels, self.manifest, self.device).overview(region.overview_shape(wanted.planned.shape))
        likely = 1 - self._see(overview).logits[0].float().softmax(dim=0)[self._background]
        coarse: np.ndarray[tuple[int, int], np.dtype[np.float32]] = likely.cpu().numpy()
        # NaN is not above any threshold: the whole region would become background without a word.
        if np.isnan(coarse).any():
            window = wanted.planned.window
            raise overflow(f"the region from column {window.col_off}, row {window.row_off}", self.precision)
        return foreground_place(coarse, wanted.planned.shape, region.patch_size, self._coarse)

    def _blended(self, wanted: Wanted, steps: Steps) -> Tensor:
        total = torch.zeros((self.num_classes, *wanted.shape), device=self.device)
        total[self._background] = 1
        place = self.foreground(wanted)
        part = None if place is None else wanted.narrowed(place)
        if part is not None:
            rows, cols = part.window_in(wanted.window).toslices()
            total[:, rows, cols] = super()._blended(part, steps)
        return total

    def _overview(self, uploaded: Uploaded, planned: PlannedRegion) -> Tensor:
        """Decimate the part to the size of a whole region's overview, but never enlarged."""
        size = self.manifest.region.overview_size
        return uploaded.overview(Shape(*(min(size, side) for side in planned.shape)))
