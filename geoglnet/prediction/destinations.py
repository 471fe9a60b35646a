"""Where the outcome of a prediction goes, checked before hours are spent on it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from geoglnet.errors import ConfigError
from geoglnet.output import OutputFile, refuse_sharing
from geoglnet.prediction.journal import Journal
from geoglnet.prediction.workspace import workspace_path
from geoglnet.vector.config import VectorConfig
from geoglnet.vector.formats import check_suffix
from geoglnet.vector.vectorize import vector_files

RASTER_SUFFIXES = (".tif", ".tiff")


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

    def workspace(self, *, resume: bool) -> Path:
        """Where the unfinished run lies: beside the first file, or beside another that it was begun with, to go on there."""
        folders = [workspace_path(path) for path in self.paths.values()]
        return next((folder for folder in folders if resume and folder.is_dir()), folders[0])

    def files(self, config: VectorConfig, journal: Journal | None = None) -> dict[str, OutputFile]:
        """The files by kind, each of which can be written; also ``"style"``, when the polygons get one beside them.

        Args:
            config: how polygons are written.
            journal: of the run that is resumed, which may have written some already.

        Raises:
            ConfigError: a file's suffix names a format that is not written, or two are one file.
            OutputExistsError: a file exists, and was not to be overwritten.
            OutputError: a folder is missing or not writable, or no file can be written under a name.
        """
        for kind, path in self.paths.items():
            if kind != "vector" and path.suffix.lower() not in RASTER_SUFFIXES:  # s.tif.msk would be a mask to GDAL
                raise ConfigError(f"{path.name}: {kind} is written as a GeoTIFF; let its name end in .tif")
        named = {kind for kind, path in self.paths.items() if journal is not None and journal.has_named(kind, path)}
        files = {kind: OutputFile(path, self.overwrite or kind in named) for kind, path in self.paths.items()}
        if self.vector_path is not None:
            check_suffix(self.vector_path)
            files |= vector_files(self.vector_path, config, overwrite=files["vector"].overwrite)
        refuse_sharing([*files.values()])
        return files
