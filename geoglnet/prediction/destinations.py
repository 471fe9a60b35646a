"""Where the outcome of a prediction goes, checked before hours are spent on it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from geoglnet.errors import ConfigError, OutputError
from geoglnet.prediction.opening import Source
from geoglnet.types import OutputFile
from geoglnet.vector.formats import check_suffix


@dataclass(frozen=True, slots=True)
class Destinations:
    """Files to write; at least one.

    Args:
        labels_path: cloud-optimised GeoTIFF of class numbers, 255 where the scene is invalid.
        vector_path: GeoPackage of polygons with class, area and confidence.
        confidence_path: cloud-optimised GeoTIFF of the chosen class's probability times 254, 255 where the scene is invalid.
        entropy_path: the same of the probabilities' entropy, as a fraction of the largest possible.
        probabilities_path: the same of every class's probability, one band each.
        overwrite: replace files that exist.

    Raises:
        ConfigError: nothing to write, or the same file twice.
    """

    labels_path: Path | None = None
    vector_path: Path | None = None
    confidence_path: Path | None = None
    entropy_path: Path | None = None
    probabilities_path: Path | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        paths = self.paths.values()
        if not paths:
            raise ConfigError("nothing to write: give a label raster, a vector file, or both")
        if len({path.absolute() for path in paths}) < len(paths):
            raise ConfigError(f"outputs share a file: {', '.join(map(str, paths))}; give each its own")

    @property
    def paths(self) -> dict[str, Path]:
        """The files by kind: ``"labels"``, ``"vector"``, ``"confidence"``, ``"entropy"``, ``"probabilities"``."""
        named = {
            "labels": self.labels_path,
            "vector": self.vector_path,
            "confidence": self.confidence_path,
            "entropy": self.entropy_path,
            "probabilities": self.probabilities_path,
        }
        return {kind: path for kind, path in named.items() if path is not None}

    @property
    def first(self) -> Path:
        """The file beside which an unfinished run lies."""
        return next(iter(self.paths.values()))

    def claim(self, source: Source, written: Collection[str] = ()) -> dict[str, OutputFile]:
        """The files by kind, each of which can be written.

        Args:
            source: what is segmented.
            written: kinds that an earlier part of the run has written already.

        Raises:
            ConfigError: the vector file's format is not written.
            OutputExistsError: a file exists, and was not to be overwritten.
            OutputError: a folder is missing or not writable, or a file is the scene itself.
        """
        if self.vector_path is not None:
            check_suffix(self.vector_path)
        for path in self.paths.values():
            if source.holds(path):
                raise OutputError(f"{path} is the scene itself; choose another output")
        return {kind: OutputFile(path, self.overwrite or kind in written) for kind, path in self.paths.items()}
