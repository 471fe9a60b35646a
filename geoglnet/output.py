"""Output files: complete before they get their names, and replacing only what the user allows them to replace.

Every writer uses them like this::

    file = OutputFile("labels.tif", overwrite=True)  # what cannot be written is refused before any work
    with file.claimed():                             # no other run writes it from here on
        ...
        with file as part_path:                      # labels.tif.part/part.tif
            write(part_path)
                                                     # synced, renamed to labels.tif, its folder synced

The part lies in a folder of its own, which is locked as long as the process lives, and closed to other users. So libraries see
plain names only, whatever the output is called; files that they leave beside the part can be removed; and two runs with the
same output exclude each other.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import sqlite3
import stat
import sys
import time
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import combinations, count
from pathlib import Path
from types import TracebackType

from filelock import BaseFileLock, FileLock, Timeout

from geoglnet.errors import ConfigError, OutputError, OutputExistsError
from geoglnet.existing import CARRIED, check_replaceable, machine_made, made_by_hand, set_aside
from geoglnet.filenames import check_filename
from geoglnet.message import Keyword
from geoglnet.types import StrPath

PART_SUFFIX = ".part"
LONGEST_SUFFIX = ".unfinished"  # longest suffix that is appended to an output's name
_LOCK = "geoglnet.lock"
_PLAIN_SUFFIX = re.compile(r"\.[A-Za-z0-9]+")
_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
_FULL_BYTES = 2**20  # with less free space a disk is full: GDAL fails when its buffer does not fit, without a reason
_WAITS_S = (0.1, 0.4, 1.5)  # Windows: virus scanners and indexers open a new file for a moment
_NAME_MAX = 255


def sync_file(path: Path) -> None:
    """Flush the content of a file to the disk."""
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk, where the system can do that."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # network file systems that cannot sync folders
            raise
    finally:
        os.close(descriptor)


def is_held(path: Path) -> bool:
    """Return whether a file cannot be replaced because a program has it open, which happens on Windows only."""
    try:
        path.rename(path)  # changes nothing, and is refused where replacing would be
    except OSError as error:  # or there is no such file
        return _is_of_windows(error)
    return False


def _is_of_windows(error: OSError) -> bool:
    """Return whether an error is Windows' refusal to touch an open file; others are about permissions."""
    return isinstance(error, PermissionError) and getattr(error, "winerror", None) is not None


def unwritable(path: StrPath, error: BaseException, size: int = 0) -> OutputError:
    """Turn the error of a writer into ours: it says that the disk is full, or the reason of any other failure.

    Args:
        path: file that was being written, or its part.
        error: error of the library.
        size: bytes that the file would have taken; newer GDALs remove an incomplete file, so that the disk looks free again.
    """
    shown = final_path(Path(path))
    if _is_full(error, Path(path), max(size, _FULL_BYTES)):
        return OutputError(f"disk full while writing {shown}; free some space or choose another output")
    return OutputError(f"{shown} cannot be written ({_reason(error)}); choose another output")


def _is_full(error: BaseException, path: Path, size: int = _FULL_BYTES) -> bool:
    """Return whether a write failed because the disk is full: by the error's number, else by the space that is free."""
    for cause in _causes(error):
        if isinstance(cause, OSError) and cause.errno:
            return cause.errno in _FULL
        if getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            return True
    with suppress(OSError):  # GDAL's errors have no number, and often just say that a write failed
        return shutil.disk_usage(path.parent).free < size
    return False


def is_disk_full(error: BaseException) -> bool:
    """Return whether an error, or a cause of it, says that a disk is full."""
    return any(
        (isinstance(cause, OSError) and cause.errno in _FULL) or getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
        for cause in _causes(error)
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its causes, the innermost last."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def _reason(error: BaseException) -> str:
    """Return the innermost message of an error, in one line and without its final stop."""
    *_, error = _causes(error)
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()).rstrip(".") or type(error).__name__


def final_path(path: Path) -> Path:
    """Return the final path of a part file; any other path unchanged."""
    folder = path.parent
    return folder.with_name(folder.name.removesuffix(PART_SUFFIX)) if folder.name.endswith(PART_SUFFIX) else path


class LockedFolder:
    """A working folder beside an output, locked against other runs until the context or the process ends.

    Args:
        path: the folder; made when it does not exist.
        subject: name of the output, for messages.
        lock_name: name of the lock file in it.
        is_ours: check whether an existing folder was made by an earlier run.

    Raises:
        OutputError: another run uses it, it cannot be made, or something else has its name.
    """

    def __init__(self, path: Path, subject: str, lock_name: str, is_ours: Callable[[Path], bool]) -> None:
        self.path = path
        self._subject = subject
        self._lock_path = path / lock_name
        self._is_ours = is_ours
        self._lock: BaseFileLock | None = None

    def __enter__(self) -> LockedFolder:
        try:
            # Another run may remove the folder between our making it and our locking it: then both are tried again.
            while self._lock is None:
                self._make()
                self._lock = self._acquired()
        except Timeout as error:
            raise OutputError(f"another run is writing {self._subject}; wait for it, or stop it") from error
        except (OSError, NotImplementedError) as error:
            if isinstance(error, OutputError):
                raise
            with suppress(OSError):  # removed if we made it: a folder with another run's lock in it is not empty
                self.path.rmdir()
            if _is_full(error, self.path):
                raise OutputError(
                    f"disk full while writing {self._subject}; free some space or choose another output"
                ) from error
            raise OutputError(f"{self.path} cannot be made ({_reason(error)}); choose another output") from error
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _make(self) -> None:
        """Make the folder, or accept the one that an earlier run has made."""
        try:
            self.path.mkdir(0o700)
            sync_folder(self.path.parent)
        except FileExistsError:
            state = self.path.lstat()
            is_folder = stat.S_ISDIR(state.st_mode)
            # In a folder that many may write to, another user could prepare one of this name, with links in it.
            is_own = sys.platform == "win32" or state.st_uid == os.geteuid()
            if not is_folder or not is_own or not self._is_ours(self.path):
                owner = "" if is_own or not is_folder else " by this user"
                raise OutputError(
                    f"{self.path} was not made by geoglnet{owner}; move it away, or choose another output"
                ) from None

    def _acquired(self) -> BaseFileLock | None:
        """Acquire the lock; return ``None`` when the run that had it removed the folder at this moment."""
        lock = FileLock(self._lock_path, timeout=0, thread_local=False)
        try:
            lock.acquire()
        except FileNotFoundError:
            return None
        if self._lock_path.exists():
            return lock
        lock.release()
        return None

    def clear(self) -> None:
        """Remove everything in the folder except the lock; links are not followed."""
        for path in self.path.iterdir():
            if path != self._lock_path:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

    def remove(self) -> None:
        """Remove the lock while it is held, then the folder: released first, another run's lock might be removed."""
        with suppress(OSError):
            try:
                self._lock_path.unlink(missing_ok=True)
            except PermissionError:  # Windows does not remove open files, so another run's lock is safe
                self.__exit__(None, None, None)
                self._lock_path.unlink(missing_ok=True)
            self.path.rmdir()


class OutputFile:
    """A file that is written in a folder of its own and renamed when it is complete; see the module.

    An exception inside the context removes the part, so that no incomplete file has the final name. Sidecars of the part are
    renamed with it; for those of a replaced file see :mod:`geoglnet.existing`. A symbolic link stays, and its target is
    replaced.

    On Windows a file that any program has open cannot be replaced. This is refused before the work begins; if it is noticed at
    the end, or another file has got the name meanwhile, the new file is kept as ``labels (2).tif``, and the error says so.

    Args:
        path: path as the user wrote it.
        overwrite: replace an existing file.
        companions: outputs that are written beside it and belong to it, such as a style.

    Raises:
        OutputExistsError: the file exists and ``overwrite`` is false.
        OutputError: no file can be written under this name, the folder is missing or not writable, the file to replace holds
            data that are not ours, another run writes it, or the disk is full.
    """

    def __init__(self, path: StrPath, overwrite: bool = False, *, companions: Collection[Path] = ()) -> None:
        self.path = Path(path)
        self.overwrite = overwrite
        self._companions = tuple(companions)
        check_filename(self.path)
        _check_name(self.path)
        self.target = _target(self.path)
        self._check()
        suffix = self.path.suffix if _PLAIN_SUFFIX.fullmatch(self.path.suffix) else ""
        self.part_path = self.target.with_name(self.target.name + PART_SUFFIX) / f"part{suffix}"
        self._folder: LockedFolder | None = None
        self._open = ExitStack()

    def __repr__(self) -> str:
        return f"OutputFile({str(self.path)!r}, overwrite={self.overwrite})"

    def _check(self) -> None:
        """Refuse an output that cannot be written, before any work."""
        folder = self.target.parent if self.path.is_symlink() else self.path.parent
        if not folder.is_dir():
            raise OutputError(f"folder {folder} does not exist; create it first, or choose another output for {self.path.name}")
        if self.target.is_dir():
            raise OutputError(f"{self.path} is a folder; give a file name")
        if self.target.exists() and not self.target.is_file():
            raise OutputError(f"{self.path} is a device or a pipe; give a file name")
        self._check_existing()
        if not os.access(folder, os.W_OK):
            raise OutputError(f"folder {folder} is not writable; choose another output for {self.path.name}")

    def _check_existing(self) -> None:
        """Refuse to replace a file without permission, one that is open, or one with data that are not ours."""
        if not os.path.lexists(self.target):
            return
        if not self.overwrite:
            raise OutputExistsError(
                f"{self.path} exists; pass " + Keyword("overwrite", True) + " to replace it, or choose another name"
            )
        if any(is_held(path) for path in (self.target, *machine_made(self.target))):
            raise OutputError(f"{self.path} is open in another program (QGIS?); close it there, or choose another output")
        check_replaceable(self.target)

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Keep other runs from writing the file.

        Raises:
            OutputError: another run is writing it, or what lies in the way was not made by us.
        """
        if self._folder is not None:
            yield
            return
        with LockedFolder(self.part_path.parent, self.path.name, _LOCK, _is_part_folder) as folder:
            try:
                folder.clear()  # leftovers of a run that was killed
            except OSError as error:
                raise unwritable(self.path, error) from error
            self._folder = folder
            try:
                yield
            finally:
                self._folder = None
                # A part that is still there could not be renamed, and the error says where it is. Files that are open on
                # Windows stay with the lock; the next run clears them.
                with suppress(OSError):
                    if not os.path.lexists(self.part_path):
                        folder.clear()
                        folder.remove()

    def __enter__(self) -> Path:
        self._open.enter_context(self.claimed())
        return self.part_path

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._open:
            if error is None:
                try:
                    self._publish()
                except OSError as failure:
                    if isinstance(failure, OutputError):
                        raise
                    self._discard()
                    raise unwritable(self.path, failure) from failure
                return
            is_full = isinstance(error, OSError) and error.errno in _FULL
            self._discard()
            if is_full:
                raise unwritable(self.path, error) from error

    def _discard(self) -> None:
        """Remove the part and everything beside it."""
        if self._folder is not None:
            self._folder.clear()

    def _publish(self) -> None:
        """Rename the part and its sidecars, to another name when the file cannot be replaced."""
        # First the content, then the name: after a power failure there is the old file or the new one, never an empty one.
        for path in (self.part_path, *_carried(self.part_path)):
            sync_file(path)
        sync_folder(self.part_path.parent)
        try:
            self._check_existing_again()
        except OutputError as error:
            raise type(error)(f"{error}; {self._keep()}") from error
        for wait_s in (*_WAITS_S, 0.0):
            if not is_held(self.target):
                try:
                    self._move(self.target)
                    return
                except PermissionError as error:
                    if not _is_of_windows(error):
                        raise OutputError(f"{self.path} cannot be replaced ({_reason(error)}); {self._keep()}") from error
            time.sleep(wait_s)
        raise OutputError(f"{self.path} cannot be replaced, another program has it open (QGIS?); {self._keep()}")

    def _check_existing_again(self) -> None:
        """Refuse to replace a file that has got the name while this one was written."""
        if os.path.lexists(self.target) and not self.overwrite:
            raise OutputExistsError(f"{self.path} has been written by another program meanwhile")
        if self.overwrite:
            check_replaceable(self.target)

    def _move(self, path: Path) -> None:
        """Rename the part; old sidecars are removed first, so that at no moment they describe the new file."""
        if path.exists():
            for beside in made_by_hand(path):
                if not any(_is_same(beside, companion) for companion in self._companions):
                    set_aside(beside)
        for beside in machine_made(path):
            beside.unlink(missing_ok=True)
        carried = _carried(self.part_path)
        self.part_path.replace(path)
        for sidecar in carried:
            sidecar.replace(path.with_name(path.name + sidecar.name.removeprefix(self.part_path.name)))
        sync_folder(path.parent)

    def _keep(self) -> str:
        """Give the new file the first free name, or else leave it where it is; return where, for the message."""
        names = (self.target.with_name(f"{self.target.stem} ({number}){self.target.suffix}") for number in count(2))
        kept = next(path for path in names if not any(map(os.path.lexists, (path, *machine_made(path)))))
        try:
            self._move(kept)
        except OSError:
            kept = self.part_path
        return f"the new one is kept as {kept}"


def _carried(part_path: Path) -> list[Path]:
    """List the sidecars of a part that are renamed with it."""
    return [path for suffix in CARRIED if (path := part_path.with_name(part_path.name + suffix)).exists()]


def _is_part_folder(folder: Path) -> bool:
    """Return whether a folder was made for a part: our lock is in it, or it is empty."""
    names = {path.name for path in folder.iterdir()}
    return not names or (_LOCK in names and stat.S_ISREG((folder / _LOCK).lstat().st_mode))


def _check_name(path: Path) -> None:
    """Refuse a name that other programs cannot open, or that is too long with our suffixes."""
    try:
        str(path.absolute()).encode()
    except UnicodeEncodeError as error:
        raise OutputError(f"{str(path)!a} is not a UTF-8 name, which GIS programs require; choose another output") from error
    if any(unicodedata.category(sign) == "Cc" for sign in str(path)):
        raise OutputError(f"{str(path)!r} has a line break or a control character in it; choose another output")
    length = len(os.fsencode(path.name + LONGEST_SUFFIX))
    if length > _NAME_MAX:
        over = length - _NAME_MAX
        raise OutputError(f"{path.name[:40]}… is {over} bytes too long for the files written beside it; choose a shorter name")


def _target(path: Path) -> Path:
    """Return the path to replace: that of the file a symbolic link leads to, else the path itself."""
    if not path.is_symlink():
        return path.absolute()
    target = Path(os.path.realpath(path))
    if target.is_symlink():
        raise OutputError(f"{path} is a broken link; remove it, or choose another output")
    _check_name(target)
    return target


def refuse_sharing(outputs: Sequence[OutputFile]) -> None:
    """Refuse outputs of one run that are the same file, or one of which is a sidecar of another.

    Raises:
        ConfigError: two outputs share a file.
    """
    for first, second in combinations(outputs, 2):
        sidecars = [(beside, second) for beside in machine_made(first.target)]
        sidecars += [(beside, first) for beside in machine_made(second.target)]
        if any(_is_same(path, other.target) for path, other in ((first.target, second), *sidecars)):
            raise ConfigError(f"outputs share a file: {first.path}, {second.path}; give each its own")


def refuse_inputs(outputs: Iterable[OutputFile], inputs: Iterable[tuple[str, StrPath]]) -> None:
    """Refuse outputs that would replace or remove an input of the run, under whatever name.

    Args:
        outputs: outputs of the run.
        inputs: description of each input, such as ``"the model"``, and its path; URLs and virtual paths are skipped.

    Raises:
        OutputError: an output is an input, or an input is its sidecar.
    """
    # Files are compared by device and inode, which see through links and different spellings.
    touched: dict[tuple[int, int] | None, tuple[OutputFile, Path]] = {}
    for output in outputs:
        beside = (*machine_made(output.target), *(made_by_hand(output.target) if output.target.exists() else ()))
        touched |= {_identity(path): (output, path) for path in (*beside, output.target)}
    touched.pop(None, None)
    if not touched:
        return
    for what, source in inputs:
        found = touched.get(_identity(source))
        if found is not None:
            output, path = found
            if path == output.target:
                raise OutputError(f"{output.path} is {what}; choose another output")
            raise OutputError(f"{path.name}, {what}, would be lost when {output.path} is replaced; choose another output")


def _identity(path: StrPath) -> tuple[int, int] | None:
    """Return device and inode of a file; ``None`` where there is none."""
    try:
        state = Path(path).stat()
    except (OSError, ValueError):  # no such file, or not a file name
        return None
    return state.st_dev, state.st_ino


def _is_same(first: Path, second: Path) -> bool:
    """Return whether two names mean the same file, whether it exists or not."""
    with suppress(OSError):
        return first.samefile(second)
    if first.exists() or second.exists():
        return False
    with suppress(OSError):
        return first.parent.samefile(second.parent) and _folded(first.name) == _folded(second.name)
    return False


def _folded(name: str) -> str:
    """Return a name as the system's usual file system compares it."""
    return unicodedata.normalize("NFC", name).casefold() if sys.platform in ("win32", "darwin") else name
