"""Settings of what the values of a raster mean: codes of classes, numbers of objects, quantities, or probabilities.

Loads neither GDAL nor numba, so that wrong settings are refused at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

from geoglnet.errors import ConfigError
from geoglnet.message import Keyword
from geoglnet.vector.settings import VectorConfig

MOST_BREAKS = 254
NO_BACKGROUND = "none"


@dataclass(frozen=True, slots=True)
class RasterValues:
    """What the values of a raster mean; by default they are codes of classes.

    >>> RasterValues(breaks=(0, 10, 20)).class_names
    ('below 0', '0 to 10', '10 to 20', '20 or more')

    Args:
        band: 1-based number of the band to read; left out, the raster must have one beside its alpha band.
        breaks: thresholds, rising: values of quantities become classes between them. What lies below the first is background.
        argmax: the bands are probabilities of classes: the largest wins, and is the confidence.
        instances: every value is one object: all its parts are one row.
        parts: with ``instances``, a row for each connected part.
        class_of: with ``instances``, a label raster of the same size: objects get the class that most of their pixels have.
        background: code that makes no polygons; ``"none"`` where every code makes some. Left out, the legend says; where there
            is none, it is 0.
        whole_numbers: read a raster of floating-point numbers as codes; each must be whole.

    Raises:
        ConfigError: settings that exclude each other, or breaks that do not rise.
    """

    band: int | None = None
    breaks: Sequence[float] = ()
    argmax: bool = False
    instances: bool = False
    parts: bool = False
    class_of: Path | None = None
    background: int | Literal["none"] | None = None
    whole_numbers: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "breaks", tuple(float(value) for value in self.breaks))
        if self.class_of is not None:
            object.__setattr__(self, "class_of", Path(self.class_of))
        if self.band is not None and self.band < 1:
            raise ConfigError(f"band = {self.band} must be a number from 1")
        if isinstance(self.background, str) and self.background != NO_BACKGROUND:
            raise ConfigError(f"background = {self.background!r} must be a code, or 'none'")
        self._check_breaks()
        kinds = [name for name in ("breaks", "argmax", "instances", "whole_numbers") if getattr(self, name)]
        if len(kinds) > 1 and kinds != ["instances", "whole_numbers"]:
            raise ConfigError(f"{kinds[0]} and {kinds[1]} " + "read values in different ways; choose one")
        if self.argmax and self.band is not None:
            raise ConfigError(
                "argmax compares all bands of a raster, " + Keyword("band", self.band) + " is only one; leave it out"
            )
        for name in ("parts", "class_of"):
            if getattr(self, name) and not self.instances:
                raise ConfigError(Keyword(name) + " is about objects; add " + Keyword("instances", True))

    def _check_breaks(self) -> None:
        """Refuse thresholds that are no numbers, do not rise, or are too many."""
        shown = ", ".join(f"{value:g}" for value in self.breaks[:8])
        if not all(map(math.isfinite, self.breaks)):
            raise ConfigError(f"breaks = {shown} must be finite numbers")
        if any(low >= high for low, high in pairwise(self.breaks)):
            raise ConfigError(f"breaks = {shown} must rise; sort them, each once")
        if len(self.breaks) > MOST_BREAKS:
            raise ConfigError(f"{len(self.breaks)} breaks are too many; use at most {MOST_BREAKS}")

    @property
    def are_objects(self) -> bool:
        """Whether all parts of one value become one row."""
        return self.instances and not self.parts

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes that breaks make; empty without breaks."""
        if not self.breaks:
            return ()
        texts = [f"{value:.15g}" for value in self.breaks]
        between = (f"{low} to {high}" for low, high in pairwise(texts))
        return (f"below {texts[0]}", *between, f"{texts[-1]} or more")

    def check(self, config: VectorConfig, *, has_legend: bool) -> None:
        """Refuse settings of polygons that objects have no use for.

        Args:
            config: settings of polygons.
            has_legend: whether a legend is given.

        Raises:
            ConfigError: cleaning, which would give pixels of one object to another; a choice of classes; or a legend without
                classes.
        """
        if not self.instances:
            return
        for name in ("opening", "sieve", "fill_holes"):
            if getattr(config, name):
                raise ConfigError(
                    Keyword(name) + " is about classes, and would give pixels of one object to another; leave it out"
                )
        if config.classes:
            raise ConfigError(Keyword("classes") + " chooses among classes, not among objects; leave it out")
        if has_legend and self.class_of is None:
            raise ConfigError("a legend is about classes, which objects have with " + Keyword("class_of") + " only")
