"""Where the outcome of a prediction goes, checked before hours are spent on it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from geoglnet.errors import ConfigError, OutputError
from geoglnet.types import OutputFile, StrPath
from geoglnet.vector.writer import check_suffix


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

    labels_path: StrPath | None = None
    vector_path: StrPath | None = None
    confidence_path: StrPath | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        paths = self._paths
        if not paths:
            raise ConfigError("nothing to write: give a label raster, a vector file, or both")
        if len({path.absolute() for path in paths}) < len(paths):
            raise ConfigError(f"outputs share a file: {', '.join(map(str, paths))}; give each its own")

    @property
    def folder(self) -> Path:
        """Folder of the first file."""
        return self._paths[0].parent

    @property
    def labels(self) -> OutputFile | None:
        return self._file(self.labels_path)

    @property
    def vector(self) -> OutputFile | None:
        return self._file(self.vector_path)

    @property
    def confidence(self) -> OutputFile | None:
        return self._file(self.confidence_path)

    def check(self, scene_path: StrPath) -> None:
        """Whether every file can be written.

        Raises:
            ConfigError: the vector file's format is not written.
            OutputExistsError: a file exists, and was not to be overwritten.
            OutputError: a folder is missing or not writable, or a file is the scene itself.
        """
        for path in self._paths:
            if path.exists() and Path(scene_path).exists() and path.samefile(scene_path):
                raise OutputError(f"{path} is the scene itself; choose another output")
            OutputFile(path, self.overwrite)
        if self.vector_path is not None:
            check_suffix(self.vector_path)

    @property
    def _paths(self) -> list[Path]:
        named = (self.labels_path, self.vector_path, self.confidence_path)
        return [Path(path) for path in named if path is not None]

    def _file(self, path: StrPath | None) -> OutputFile | None:
        return None if path is None else OutputFile(Path(path), self.overwrite)
