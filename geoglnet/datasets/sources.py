"""Sources: which files make training and validation scenes, as a config file names them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from geoglnet.errors import ConfigError, DatasetError


@dataclass(frozen=True, slots=True)
class SourceConfig:
    """One kind of labelled scenes. Exactly one of ``polygons``, ``labels`` and ``generated`` says where the truth is.

    Args:
        images: pattern of the rasters, relative to the data folder, with at most one ``*``.
        polygons: pattern of the vector file of each raster; its ``*`` is what matched in ``images``.
        labels: pattern of the label image of each raster, coloured by the legend (any other colour is an error, black
            means unlabelled) or single-band label values.
        generated: number of generated scenes instead of files, with seeds from 1 (for the demo's sake).
        class_column: attribute of the polygons that names their class; without it all are the legend's last class.
        pixel_size_m: ground pixel size of rasters without a CRS.
        weight: how often these scenes are drawn, relative to their share of the area.

    Raises:
        ConfigError: no truth or more than one, or a pattern with two stars.
    """

    images: str = ""
    polygons: str = ""
    labels: str = ""
    generated: int = 0
    class_column: str = ""
    pixel_size_m: float = 0.0
    weight: float = 1.0

    def __post_init__(self) -> None:
        given = [bool(self.polygons), bool(self.labels), self.generated > 0]
        if sum(given) != 1:
            raise ConfigError("a source needs exactly one of polygons = …, labels = … or generated = N")
        if not self.generated and not self.images:
            raise ConfigError("a source with polygons or labels needs images = '…'")
        if any(pattern.count("*") > 1 for pattern in (self.images, self.polygons, self.labels)):
            raise ConfigError(f"source {self.images!r}: at most one * in a pattern")

    def iter_files(self, folder: Path) -> Iterator[tuple[Path, Path]]:
        """Rasters and the files of their truth, sorted by name.

        Raises:
            DatasetError: no raster matches, or the truth of one is missing.
        """
        found = sorted(folder.glob(self.images))
        if not found:
            raise DatasetError(f"no file matches {folder / self.images}; check the data folder")
        before, _, after = str(folder / self.images).partition("*")
        for image_path in found:
            matched = str(image_path)[len(before) : len(str(image_path)) - len(after)]
            truth_path = folder / (self.polygons or self.labels).replace("*", matched)
            if not truth_path.is_file():
                raise DatasetError(f"{image_path.name} has no truth at {truth_path}")
            yield image_path, truth_path
