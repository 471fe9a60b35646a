"""Words shared by every floor: sizes, paths, and a file that appears only when it is whole."""

from __future__ import annotations

import errno
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from glob import escape
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, TypeAlias

from geoglnet.errors import OutputError, OutputExistsError
from geoglnet.filenames import check_filename

StrPath: TypeAlias = str | os.PathLike[str]
Place: TypeAlias = tuple[slice, slice]
"""Rows and columns of a rectangle of pixels."""

_WAITS_S = (0.1, 0.4, 1.5)  # Windows: virus scanners and indexers open a new file for a moment
_SIDECAR_SUFFIXES = (".aux.xml", ".ovr", ".msk")  # GDAL's, beside a raster: class names and statistics, pyramid, mask


def is_held(path: Path) -> bool:
    """Whether a file cannot be replaced because a program has it open: so on Windows, elsewhere never."""
    try:
        path.rename(path)  # changes nothing, and is refused where replacing would be
    except PermissionError:
        return True
    except OSError:  # there is no such file
        return False
    return False


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

    On Windows a file that any program has open cannot be replaced. That is refused before the work; when it turns out at the
    end, the new file is kept as ``labels (2).tif``, and the error says so.

    Raises:
        OutputExistsError: the file exists and ``overwrite`` is false.
        OutputError: the folder is missing or not writable, the disk filled up while writing, or the file cannot be replaced.
    """

    path: Path
    overwrite: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))
        check_filename(self.path)
        folder = self.path.parent
        if not folder.is_dir():
            raise OutputError(f"folder {folder} does not exist; create it first, or choose another output for {self.path.name}")
        if self.path.is_dir():
            raise OutputError(f"{self.path} is a folder; give a file name")
        if self.path.exists() and not self.overwrite:
            raise OutputExistsError(f"{self.path} exists; pass --overwrite to replace it, or choose another name")
        if any(is_held(path) for path in (self.path, *self._sidecars(self.path))):
            raise OutputError(f"{self.path} is open in another program (QGIS?); close it there, or choose another output")
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
        """Rename the part and its sidecars, to another name when the file cannot be replaced."""
        for wait_s in (*_WAITS_S, 0.0):
            if not is_held(self.path):
                with suppress(PermissionError):
                    self._move(self.path)
                    return
            time.sleep(wait_s)
        raise OutputError(f"{self.path} cannot be replaced, another program has it open (QGIS?); {self._keep()}")

    def _move(self, path: Path) -> None:
        """Old sidecars go first: at no moment do they describe a new file."""
        for sidecar in self._sidecars(path):
            sidecar.unlink(missing_ok=True)
        self.part_path.replace(path)
        for suffix in _SIDECAR_SUFFIXES:
            sidecar = self.part_path.with_name(self.part_path.name + suffix)
            if sidecar.exists():
                sidecar.replace(path.with_name(path.name + suffix))

    def _keep(self) -> str:
        """Give the new file the first name that is free, or else leave it where it is; in words."""
        names = (self.path.with_name(f"{self.path.stem} ({number}){self.path.suffix}") for number in count(2))
        kept = next(path for path in names if not any(map(os.path.lexists, (path, *self._sidecars(path)))))
        try:
            self._move(kept)
        except OSError:
            kept = self.part_path
        return f"the new one is kept as {kept}"

    @staticmethod
    def _sidecars(path: Path) -> list[Path]:
        return [path.with_name(path.name + suffix) for suffix in _SIDECAR_SUFFIXES]

    def discard(self) -> None:
        """Remove what an interrupted run left under the part name."""
        for left in self._parts():
            left.unlink(missing_ok=True)

    def _parts(self) -> list[Path]:
        return [*self.path.parent.glob(f"{escape(self.part_path.name)}*")]
