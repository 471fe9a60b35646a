"""Stores: where a job, finished tasks and their rasters lie, seen by every machine.

Nothing in a store is ever locked, added to or changed in part. A name gets its content at once, and many writers agree by
putting a name *if it is absent*: the first one wins, and the others learn that.
"""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from geoglnet.errors import OutputError
from geoglnet.output import sync_folder, unwritable

_TEMPORARY = "geoglnet-"
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EACCES}


class Store(Protocol):
    """Port: named contents. Names are relative, with ``/`` between folders."""

    @property
    def place(self) -> str:
        """Name the store for messages: a folder or an address."""

    def put(self, name: str, content: bytes, *, if_absent: bool = False) -> bool:
        """Put a content under a name, all of it at once.

        Returns:
            Whether it was put; false if the name was there already and ``if_absent`` is true.

        Raises:
            OutputError: it cannot be written.
        """

    def put_file(self, name: str, path: Path) -> None:
        """Move a whole file, made in :meth:`scratch`, to a name; one that is there is replaced.

        Raises:
            OutputError: it cannot be written.
        """

    def get(self, name: str) -> bytes | None:
        """Read a content; ``None`` if there is none.

        Raises:
            OutputError: it cannot be read.
        """

    def size(self, name: str) -> int | None:
        """Return the bytes of a content; ``None`` if there is none."""

    def names(self, folder: str) -> list[str]:
        """List the names in a folder, in order, without it."""

    def remove(self, name: str) -> None:
        """Remove a content, if it is there."""

    def scratch(self) -> TemporaryDirectory[str]:
        """Make a temporary folder for files that are still being written."""

    def tidy(self) -> None:
        """Remove temporary files that killed processes have left, and what is empty."""


class FolderStore:
    """A folder on a disk that all machines share.

    Args:
        folder: which; see :func:`store_at`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def place(self) -> str:
        return str(self.folder)

    def make(self) -> None:
        """Make the folder, if it is not there.

        Raises:
            OutputError: it cannot be made, or holds other files.
        """
        try:
            self.folder.mkdir(exist_ok=True)
            strangers = [path.name for path in self.folder.iterdir()]
        except OSError as error:
            raise OutputError(f"{self.folder} cannot be made ({error.strerror}); choose another folder") from error
        if strangers and self.size("job.json") is None:
            raise OutputError(f"{self.folder} holds other files, such as {strangers[0]}; choose a folder that is new or empty")

    def put(self, name: str, content: bytes, *, if_absent: bool = False) -> bool:
        path = self.folder / name
        try:
            self._make_folder(path.parent)
            with self._temporary(path) as part_path:
                with part_path.open("wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                if if_absent and not self._named_if_absent(part_path, path):
                    return False
                if not if_absent:
                    part_path.replace(path)
            sync_folder(path.parent)
        except OSError as error:
            raise unwritable(path, error) from error
        return True

    def put_file(self, name: str, path: Path) -> None:
        target = self.folder / name
        try:
            self._make_folder(target.parent)
            path.replace(target)
            sync_folder(target.parent)
        except OSError as error:
            raise unwritable(target, error) from error

    def get(self, name: str) -> bytes | None:
        try:
            return (self.folder / name).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise OutputError(f"{self.folder / name} cannot be read ({error.strerror}); check the disk") from error

    def size(self, name: str) -> int | None:
        try:
            return (self.folder / name).stat().st_size
        except OSError:
            return None

    def names(self, folder: str) -> list[str]:
        try:
            return sorted(path.name for path in (self.folder / folder).iterdir() if not path.name.startswith(_TEMPORARY))
        except FileNotFoundError:
            return []

    def remove(self, name: str) -> None:
        with suppress(OSError):
            (self.folder / name).unlink()

    def scratch(self) -> TemporaryDirectory[str]:
        try:
            return TemporaryDirectory(prefix=_TEMPORARY, dir=self.folder)
        except OSError as error:
            raise unwritable(self.folder / "tasks", error) from error

    def tidy(self) -> None:
        """Remove temporary files that killed processes have left, and folders that are empty."""
        for path in self.folder.glob(f"{_TEMPORARY}*"):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
        with suppress(OSError):
            for folder in (*(path for path in self.folder.iterdir() if path.is_dir() and not path.is_symlink()), self.folder):
                for path in folder.glob(f"{_TEMPORARY}*"):
                    path.unlink()
                with suppress(OSError):  # somebody else's files are in it
                    folder.rmdir()

    def _make_folder(self, folder: Path) -> None:
        if not folder.is_dir():
            folder.mkdir(exist_ok=True)
            sync_folder(folder.parent)

    @contextmanager
    def _temporary(self, path: Path) -> Iterator[Path]:
        part_path = path.with_name(f"{_TEMPORARY}{uuid.uuid4().hex}")
        try:
            yield part_path
        finally:
            with suppress(OSError):
                part_path.unlink(missing_ok=True)

    def _named_if_absent(self, part_path: Path, path: Path) -> bool:
        """Give a whole file its name, unless somebody else has."""
        try:
            os.link(part_path, path)  # refused when the name is there; renaming would replace it
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            return self._written_if_absent(part_path, path)
        return True

    def _written_if_absent(self, part_path: Path, path: Path) -> bool:
        """Do the same on file systems without links, where a process that is killed may leave a torn content."""
        try:
            with path.open("xb") as file:
                file.write(part_path.read_bytes())
                file.flush()
                os.fsync(file.fileno())
        except FileExistsError:
            return False
        return True


def store_at(place: str | os.PathLike[str]) -> FolderStore:
    """Find the store at a place.

    Args:
        place: path of a folder.
    """
    return FolderStore(Path(place))
