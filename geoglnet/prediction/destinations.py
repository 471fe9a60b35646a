"""Where the outcome of a prediction goes, checked before hours are spent on it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from geoglnet.errors import ConfigError, OutputError
from geoglnet.types import OutputFile, StrPath
from geoglnet.vector.formats import check_suffix


@dataclass(frozen=True, slots=True)
class Destinations:
    """Files to write; at least one.

    Args:
        labels_path: cloud-optimised GeoTIFF of class numbers, 255 where the scene is invalid.
        vector_path: GeoPackage of polygons with class, area and confidence.
        confidence_path: cloud-optimised GeoTIFF of the chosen class's probability times 254, 255 where the scene is invalid.
        overwrite: replace files that exist.

    Raises:
        ConfigError: nothing to write, or the same file twice.
    """

    labels_path: Path | None = None
    vector_path: Path | None = None
    confidence_path: Path | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        paths = self.paths.values()
        if not paths:
            raise ConfigError("nothing to write: give a label raster, a vector file, or both")
        if len({path.absolute() for path in paths}) < len(paths):
            raise ConfigError(f"outputs share a file: {', '.join(map(str, paths))}; give each its own")

    @property
    def paths(self) -> dict[str, Path]:
        """The files by kind: ``"labels"``, ``"vector"``, ``"confidence"``."""
        named = {"labels": self.labels_path, "vector": self.vector_path, "confidence": self.confidence_path}
        return {kind: path for kind, path in named.items() if path is not None}

    def claim(self, scene_path: StrPath) -> dict[str, OutputFile]:
        """The files by kind, each of which can be written.

        Raises:
            ConfigError: the vector file's format is not written.
            OutputExistsError: a file exists, and was not to be overwritten.
            OutputError: a folder is missing or not writable, or a file is the scene itself.
        """
        if self.vector_path is not None:
            check_suffix(self.vector_path)
        for path in self.paths.values():
            if path.exists() and Path(scene_path).exists() and path.samefile(scene_path):
                raise OutputError(f"{path} is the scene itself; choose another output")
        return {kind: OutputFile(path, self.overwrite) for kind, path in self.paths.items()}
