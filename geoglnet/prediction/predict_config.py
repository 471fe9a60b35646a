"""How a scene is predicted; loads no torch, so that doors can offer the choices quickly."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from geoglnet.config import suggestion
from geoglnet.errors import ConfigError
from geoglnet.raster.band_choice import BandSelection, parse_bands
from geoglnet.raster.scaling import BandScaling, Scaling

PRECISIONS = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True, slots=True)
class PredictConfig:
    """What can be chosen about a prediction.

    >>> PredictConfig(device="cpu", effort=0.5, bounds=(612000, 9311900, 612050, 9312000)).precision
    'auto'

    Args:
        batch_size: patches that go through the network together, or ``None`` for a number that suits the device; halved by
            itself where the GPU's memory is too small.
        device: ``"auto"`` (CUDA where there is one, else the CPU), ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or ``"mps"``.
        precision: ``"float32"``, ``"bfloat16"``, ``"float16"`` (for GPUs without bfloat16), or ``"auto"``: bfloat16 on a CPU
            that has AMX for it, with a model that was measured in it and lost nothing; float32 otherwise.
        effort: share of care from 0 (the global branch alone) to 1 (every patch); in between, the fewest patches of each
            region run that hold this share of the global branch's doubt.
        coarse_to_fine: look for the foreground with the global branch first, and run the whole network on that part of each
            region only, with an overview made anew (paper §3.3); for legends of a background and one other class.
        augment: look at every region in the eight ways that a square can be turned, and average; eight times the cost.
        bands: names or numbers (from 1) of the scene's bands that the model's are, in its order, or a preset that says what
            the scene's bands are: RGB, BGR, RGBN, BGRN, gray. Found by name when left out; see ``docs/bands.md``.
        scaling: how values become 0–255; chosen from the values when left out.
        nodata: a value that all bands have where there is none, beside what the scene itself declares.
        resolution_m: ground size of the pixels to segment at; the model's when left out.
        assumed_pixel_size_m: pixel size of a scene without CRS; the model's own assumption when left out.
        bounds: (left, bottom, right, top) in the scene's CRS of what to segment; all of it when left out. The pixels are
            those of the whole scene, and get the same labels.
        mask_path: polygons outside of which there is no class; what is written ends where they end.
        num_readers: threads that read ahead.
        spool_folder: where the strip between two rows of regions lies, a temporary file of num_classes · blend width ·
            scene width · 4 bytes. Left out, it is the system's temporary folder, or, when files are written, theirs.

    Raises:
        ConfigError: a value that cannot be used.
    """

    batch_size: int | None = None
    device: str = "auto"
    precision: str = "auto"
    effort: float = 1.0
    coarse_to_fine: bool = False
    augment: bool = False
    bands: BandSelection | None = None
    scaling: Scaling | BandScaling | None = None
    nodata: float | None = None
    resolution_m: float | None = None
    assumed_pixel_size_m: float | None = None
    bounds: tuple[float, float, float, float] | None = None
    mask_path: Path | None = None
    num_readers: int = 2
    spool_folder: Path | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "bands", parse_bands(self.bands))
        if self.batch_size is not None and self.batch_size < 1:
            raise ConfigError(f"batch_size {self.batch_size} must be at least 1")
        if self.num_readers < 1:
            raise ConfigError(f"num_readers {self.num_readers} must be at least 1")
        if self.precision not in PRECISIONS:
            raise ConfigError(f"unknown precision {self.precision!r}{suggestion(self.precision, PRECISIONS)}")
        if not 0 <= self.effort <= 1:
            raise ConfigError(f"effort {self.effort:g} must be from 0 (the global branch alone) to 1 (every patch)")
        if self.bounds is not None and not (len(self.bounds) == 4 and all(map(math.isfinite, self.bounds))):
            raise ConfigError(f"bounds {self.bounds} must be four numbers: left, bottom, right, top")
