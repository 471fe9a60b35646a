"""Networks in ONNX files, run by ONNX Runtime."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from geoglnet.config import ModelConfig
from geoglnet.errors import CheckpointError
from geoglnet.message import Keyword
from geoglnet.models.checks import check_footprints, check_image
from geoglnet.models.foreign.onnx_file import OnnxFile
from geoglnet.models.network import Network, PatchLogits, RegionMaps
from geoglnet.optional import needed

_LEAST = 1e-12  # probability whose logarithm is taken
_OFF_BY = 1e-3  # that sums of probabilities may be, in half precision too

Values = npt.NDArray[np.float32]


class OnnxNetwork(Network):
    """A network that sees patches, in a file that others saved.

    It is run by ONNX Runtime, on a GPU where its build has one; nothing of the file is executed by anything else. Smaller
    images than it takes are filled up with the mean.

    Args:
        config: of its manifest.
        file: what was read of it.

    Raises:
        CheckpointError: ONNX Runtime does not take it, or its results are not what they should be.
        ModuleNotFoundError: ONNX Runtime is not installed.
    """

    def __init__(self, config: ModelConfig, file: OnnxFile) -> None:
        super().__init__(config)
        self.file, self.ring_size = file, file.ring
        self.side = file.manifest.region.patch_size
        runtime = needed("onnxruntime", "onnx")
        options = runtime.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 4, torch.get_num_threads()
        wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
        there = runtime.get_available_providers()
        try:
            self._session = runtime.InferenceSession(file.path, options, providers=[name for name in wanted if name in there])
        except _failures(runtime) as error:
            raise _refusal(file, "cannot be opened by", runtime, error) from error
        self.input_name, self.output_name = self._session.get_inputs()[0].name, self._session.get_outputs()[0].name
        self._runtime = runtime
        self.head = self._found_head()

    def _found_head(self) -> str:
        """Run a drawn image, and see what comes out of each pixel.

        Raises:
            CheckpointError: results of another shape than they should have, or other values than is said of them.
        """
        image = np.random.default_rng(0).normal(0, 1, (1, self.config.in_channels, self.side, self.side)).astype(np.float32)
        found, name, said = self._run(image), self.file.path, self.file.facts.head
        if found.shape[:2] != (1, self.file.results) or found.shape[2] != found.shape[3] or found.shape[2] > self.side:
            raise CheckpointError(f"{name} gives results of the shape {found.shape} of an image of {self.side} px")
        if not np.isfinite(found).all():
            raise CheckpointError(f"{name} gives NaN or infinite results of a plain image; the file is damaged")
        within = bool(found.min() >= -_OFF_BY and found.max() <= 1 + _OFF_BY)
        adds_up = within and bool(np.abs(found.sum(axis=1) - 1).max() <= self.file.results * _OFF_BY)
        seen = "sigmoid" if within and (self.file.results == 1 or not adds_up) else "softmax" if adds_up else "logits"
        seen = self.file.head or seen
        if said in (None, seen):
            if seen == "sigmoid" and self.file.results > 1:
                raise CheckpointError(
                    f"{name} gives a probability of its own for each of {self.file.results} classes, which may all hold at "
                    "once, and a pixel has one class; describe it (geoglnet import-model) with " + Keyword("head", "largest")
                )
            return seen
        if (said == "largest" and self.file.results > 1) or (said == "logits" and not within):
            return said
        raise CheckpointError(f"{name} is said to give {said}, and gives {seen}; describe it again: geoglnet import-model")

    def segment(
        self, patches: Tensor, footprints: Tensor, maps: RegionMaps | None = None, overview_index: Tensor | None = None
    ) -> PatchLogits:
        """Segment patches, wherever they lie; see :meth:`Network.segment`."""
        check_image(patches, self.config.in_channels)
        check_footprints(footprints, len(patches))
        height, width = patches.shape[-2:]
        filled = F.pad(patches, (0, self.side - width, 0, self.side - height)) if min(height, width) < self.side else patches
        images = np.ascontiguousarray(filled.float().cpu().numpy())
        step = self.file.batch or len(images)
        parts = [self._run(self._whole(images[start : start + step], step)) for start in range(0, len(images), step)]
        found = torch.from_numpy(np.concatenate(parts)[: len(images)])
        logits = self._widened(self._logits(found))
        if (height, width) != (self.side, self.side):
            whole = F.interpolate(logits, size=(self.side, self.side), mode="bilinear", align_corners=False)
            logits = whole[..., :height, :width]
        return PatchLogits(s_loc=logits.to(patches.device))

    def _whole(self, images: Values, count: int) -> Values:
        """Fill up a batch of a fixed size."""
        return images if len(images) == count else np.concatenate([images, np.repeat(images[-1:], count - len(images), axis=0)])

    def _run(self, images: Values) -> Values:
        step = self.file.batch
        batch = images if step is None or len(images) == step else self._whole(images, step)
        try:
            (found,) = self._session.run(None, {self.input_name: batch.astype(self.file.dtype)})
        except _failures(self._runtime) as error:
            raise _refusal(self.file, f"cannot be run on images of {images.shape[-1]} px by", self._runtime, error) from error
        found = np.asarray(found, dtype=np.float32)
        return (found[:, None] if found.ndim == 3 else found)[: len(images)]

    def _logits(self, found: Tensor) -> Tensor:
        """Turn results into logits whose softmax they are."""
        if self.head == "logits":
            return F.pad(found, (0, 0, 0, 0, 1, 0)) if found.shape[1] == 1 else found
        scores = found.clamp(_LEAST, 1)
        if self.file.results > 1:
            return scores.log()
        threshold = self.file.facts.threshold
        odds = scores.log() - (1 - found).clamp(_LEAST, 1).log() - math.log(threshold / (1 - threshold))
        return F.pad(odds, (0, 0, 0, 0, 1, 0))

    def _widened(self, logits: Tensor) -> Tensor:
        """Put a ring around results that are smaller than their image; the predictor gives it no weight inside of a scene."""
        if not self.ring_size:
            return logits
        rest = self.side - logits.shape[-1]
        return F.pad(logits, (rest // 2, rest - rest // 2) * 2, mode="replicate")


def _failures(runtime: Any) -> tuple[type[Exception], ...]:
    """List the errors of ONNX Runtime, which have no class in common."""
    kinds = vars(runtime.capi.onnxruntime_pybind11_state).values()
    return tuple(kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Exception))


def _refusal(file: OnnxFile, what: str, runtime: Any, error: Exception) -> CheckpointError:
    """Say in one line what ONNX Runtime says of a file."""
    reason = " ".join(str(error).split())[:160]
    return CheckpointError(f"{file.path} {what} ONNX Runtime {runtime.__version__} ({reason})")
