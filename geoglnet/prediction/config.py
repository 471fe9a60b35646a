"""How a scene is predicted; loads no torch, so that doors can offer the choices quickly."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from geoglnet.config import suggestion
from geoglnet.errors import ConfigError
from geoglnet.raster.scaling import Scaling

PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True, slots=True)
class PredictConfig:
    """What can be chosen about a prediction.

    Args:
        batch_size: patches that go through the network together; halved by itself where the GPU's memory is too small.
        device: ``"auto"`` (CUDA where there is one, else the CPU), ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``.
        precision: ``"float32"``, or ``"bfloat16"`` for autocast: up to twice as fast where the hardware has it. On a CPU
            it changed 0.07 % of the labels of a real scene, and probabilities by 0.002 on average.
        bands: numbers, from 1, of the bands that the model's bands are; chosen by colour interpretation when left out.
        scaling: how values become 0–255; chosen from the values when left out.
        assumed_pixel_size_m: pixel size of a scene without CRS; the model's own assumption when left out.
        spool_folder: where the strip between two rows of regions lies, a temporary file of num_classes · blend width ·
            scene width · 4 bytes. Left out, it is the system's temporary folder, or, when files are written, theirs.

    Raises:
        ConfigError: a value that cannot be used.
    """

    batch_size: int = 4
    device: str = "auto"
    precision: str = "float32"
    bands: tuple[int, ...] | None = None
    scaling: Scaling | None = None
    assumed_pixel_size_m: float | None = None
    spool_folder: Path | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError(f"batch_size {self.batch_size} must be at least 1")
        if self.precision not in PRECISIONS:
            raise ConfigError(f"unknown precision {self.precision!r}{suggestion(self.precision, PRECISIONS)}")
