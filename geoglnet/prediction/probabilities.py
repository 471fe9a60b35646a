"""From the pixels of a region to class probabilities: the network, its patches, and their blending."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from rasterio.windows import Window
from torch import Tensor

from geoglnet.config import Branches
from geoglnet.errors import BandsError, ConfigError
from geoglnet.models.folding import FoldedGLNet
from geoglnet.models.glnet import GLNet
from geoglnet.models.manifest import Manifest
from geoglnet.prediction.config import PredictConfig
from geoglnet.prediction.device import resolve_device
from geoglnet.prediction.plan import PlannedPatch, PlannedRegion, overlap, shifted
from geoglnet.progress import Progress, SilentProgress
from geoglnet.raster.scene import Pixels
from geoglnet.types import Shape
from geoglnet.windows import footprints


class RegionSegmenter:
    """A network made ready to turn regions into probabilities.

    The network is moved to the device, laid out channels last, and put into evaluation mode.

    Memory on the device, with K classes, a region of side R, an overview of side S and patches of side P, float32 bytes:
    the region 3 · R² · 4, its probabilities K · R² · 4 (168 MB for 7 classes of 2448 px), a batch of n patches
    2 · n · K · P² · 4, plus the network's own: its weights, the overview's maps, and the activations of one batch.

    Args:
        network: GLNet, folded or not, or anything that keeps its contract.
        manifest: sizes, mean and std.
        config: device, batch size and precision.

    Raises:
        ConfigError: the device is not there.
    """

    def __init__(self, network: GLNet | FoldedGLNet, manifest: Manifest, config: PredictConfig) -> None:
        self.device = resolve_device(config.device)
        self.batch_size = config.batch_size
        self.network: Any = network.to(self.device).to(memory_format=torch.channels_last).eval()
        self._ring = self.network.ring_size if isinstance(self.network, FoldedGLNet) else 0
        self._manifest = manifest
        self._uses_bfloat16 = config.precision == "bfloat16"
        self._mean = torch.tensor(manifest.mean, device=self.device)[:, None, None] * 255
        self._std = torch.tensor(manifest.std, device=self.device)[:, None, None] * 255

    @property
    def sees_only(self) -> bool:
        """Whether the network has only a global branch, so that there are no patches."""
        return self.network.config.branches is Branches.GLOBAL

    def num_steps(self, planned: PlannedRegion) -> int:
        """How often progress is told of a region."""
        return 1 if self.sees_only else len(planned.patches)

    @torch.inference_mode()
    def probabilities(self, planned: PlannedRegion, pixels: Pixels, progress: Progress | None = None) -> Tensor:
        """Class probabilities over the reach of a region.

        Patches without a valid pixel in the reach are left out.

        Args:
            planned: where the region lies.
            pixels: what was read there.
            progress: told of every patch.

        Returns:
            ``(K, h, w)`` float32 on the device, adding up to one at every valid pixel of the reach.

        Raises:
            BandsError: the pixels have not the model's bands.
            ConfigError: not even a single patch fits into the GPU's memory.
        """
        progress = progress or SilentProgress()
        image = self._normalised(pixels)
        maps = self._see(image)
        if maps is not None and self.sees_only:
            progress.advance()
            return self._from_overview(planned, maps)
        wanted = [patch for patch in planned.patches if pixels.valid[_kept(planned, patch).toslices()].any()]
        if len(wanted) < len(planned.patches):
            progress.advance(len(planned.patches) - len(wanted))
        return self._from_patches(planned, self._iter_patch_probabilities(planned, image, wanted, maps), progress)

    def _normalised(self, pixels: Pixels) -> Tensor:
        found, wanted = pixels.image.shape[0], len(self._manifest.mean)
        if found != wanted:
            raise BandsError(
                f"{found} bands read, the model takes {wanted} ({', '.join(self._manifest.bands)}); choose --bands"
            )
        image = torch.from_numpy(pixels.image).to(self.device).float().sub_(self._mean).div_(self._std)
        valid = torch.from_numpy(pixels.valid).to(self.device)
        return image.masked_fill_(~valid, 0.0)[None]  # 0: the mean

    def _see(self, image: Tensor) -> Any:
        if self.network.config.branches is Branches.LOCAL:
            return None
        size = self._manifest.region.overview_shape(Shape(image.shape[2], image.shape[3]))
        overview = F.interpolate(image, size=size, mode="bilinear", align_corners=False, antialias=True)
        with self._autocast():
            return self.network.see(overview.contiguous(memory_format=torch.channels_last))

    def _from_overview(self, planned: PlannedRegion, maps: Any) -> Tensor:
        total = self._empty(planned)
        rows, cols = planned.reach_in_region.toslices()
        for k in range(len(total)):  # one by one: all at once would take twice the memory
            total[k] = _upsampled(maps.logits[:, k : k + 1], planned.shape)[0, 0, rows, cols]
        total.sub_(total.amax(dim=0)).exp_()
        return total.div_(total.sum(dim=0))

    def _empty(self, planned: PlannedRegion) -> Tensor:
        shape = (self.network.config.num_classes, int(planned.reach.height), int(planned.reach.width))
        return torch.zeros(shape, device=self.device)

    def _from_patches(
        self, planned: PlannedRegion, patches: Iterator[tuple[PlannedPatch, Tensor]], progress: Progress
    ) -> Tensor:
        total = self._empty(planned)
        row_weights, col_weights = (torch.from_numpy(w).to(self.device) for w in planned.patch_weights(self._ring))
        reach = planned.reach_in_region
        for patch, probabilities in patches:
            kept = _kept(planned, patch)
            rows, cols = shifted(kept, -int(reach.row_off), -int(reach.col_off)).toslices()
            from_rows, from_cols = shifted(kept, -int(patch.window.row_off), -int(patch.window.col_off)).toslices()
            weights = torch.outer(row_weights[patch.row, from_rows], col_weights[patch.col, from_cols])
            total[:, rows, cols].addcmul_(probabilities[:, from_rows, from_cols], weights)
            progress.advance()
        return total

    def _iter_patch_probabilities(
        self, planned: PlannedRegion, image: Tensor, patches: Sequence[PlannedPatch], maps: Any
    ) -> Iterator[tuple[PlannedPatch, Tensor]]:
        left = list(patches)
        while left:
            batch = left[: self.batch_size]
            probabilities = self._batch_probabilities(planned, image, batch, maps)
            if probabilities is None:
                self._halve(len(batch))
                continue
            yield from zip(batch, probabilities, strict=True)
            left = left[len(batch) :]

    def _batch_probabilities(
        self, planned: PlannedRegion, image: Tensor, patches: Sequence[PlannedPatch], maps: Any
    ) -> Tensor | None:
        """``(n, K, h, w)`` probabilities of a batch of patches; none when the GPU's memory is too small for it."""
        windows = [patch.window for patch in patches]
        places = torch.from_numpy(footprints(windows, planned.shape)).to(self.device)
        try:
            batch = torch.cat([image[(..., *window.toslices())] for window in windows])
            with self._autocast():
                logits = self.network.segment(batch.contiguous(memory_format=torch.channels_last), places, maps).final
            return _upsampled(logits, planned.patch_shape).softmax(dim=1)
        except torch.cuda.OutOfMemoryError:
            return None

    def _halve(self, tried: int) -> None:
        if tried == 1:
            raise ConfigError(f"{self.device} has no memory left for a single patch; use --device cpu, or free the GPU")
        self.batch_size = tried // 2
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self._uses_bfloat16)


def _upsampled(logits: Tensor, shape: Shape) -> Tensor:
    return F.interpolate(logits.float(), size=shape, mode="bilinear", align_corners=False)


def _kept(planned: PlannedRegion, patch: PlannedPatch) -> Window:
    """The part of a patch inside the reach, in the region."""
    return overlap(patch.window, planned.reach_in_region)
