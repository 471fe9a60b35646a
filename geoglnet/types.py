"""Words shared by every floor: sizes, paths, and a file that appears only when it is whole."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, TypeAlias

from geoglnet.errors import OutputError, OutputExistsError

StrPath: TypeAlias = str | os.PathLike[str]
Place: TypeAlias = tuple[slice, slice]
"""Rows and columns of a rectangle of pixels."""

_SIDECAR_SUFFIXES = (".aux.xml", ".ovr", ".msk")  # GDAL's, beside a raster: class names and statistics, pyramid, mask


class Shape(NamedTuple):
    """Size of a raster or array in pixels, rows first."""

    height: int
    width: int


@dataclass(frozen=True, slots=True)
class OutputFile:
    """A file written under a ``.part`` name and renamed when it is whole.

    Use it as a context manager; the value bound by ``as`` is the path to write to. An exception inside removes the part
    file (and the sidecars that begin with its name), so that nothing half-written stands under the final name. GDAL's
    sidecars travel with the file, and those of a file that is replaced are removed.

    Raises:
        OutputExistsError: the file exists and ``overwrite`` is false.
        OutputError: the folder is missing or not writable, or the disk filled up while writing.
    """

    path: Path
    overwrite: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))
        folder = self.path.parent
        if not folder.is_dir():
            raise OutputError(f"folder {folder} does not exist; create it first, or choose another output for {self.path.name}")
        if self.path.is_dir():
            raise OutputError(f"{self.path} is a folder; give a file name")
        if self.path.exists() and not self.overwrite:
            raise OutputExistsError(f"{self.path} exists; pass --overwrite to replace it, or choose another name")
        if not os.access(folder, os.W_OK):
            raise OutputError(f"folder {folder} is not writable; choose another output for {self.path.name}")

    @property
    def part_path(self) -> Path:
        """Where the bytes go until they are all there; the suffix stays last because drivers look at it."""
        return self.path.with_name(f"{self.path.stem}.part{self.path.suffix}")

    def __enter__(self) -> Path:
        self.discard()
        return self.part_path

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            self._publish()
            return
        self.discard()
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise OutputError(f"disk full while writing {self.path}; free some space or choose another output") from error

    def _publish(self) -> None:
        """Rename the part and its sidecars. Old sidecars go first: at no moment do they describe a new file."""
        for suffix in _SIDECAR_SUFFIXES:
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        self.part_path.replace(self.path)
        for suffix in _SIDECAR_SUFFIXES:
            sidecar = self.part_path.with_name(self.part_path.name + suffix)
            if sidecar.exists():
                sidecar.replace(self.path.with_name(self.path.name + suffix))

    def discard(self) -> None:
        """Remove what an interrupted run left under the part name."""
        for left in self._parts():
            left.unlink(missing_ok=True)

    def _parts(self) -> list[Path]:
        return [*self.path.parent.glob(f"{escape(self.part_path.name)}*")]
