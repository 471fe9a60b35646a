"""Files that appear under their names when they are whole, and that replace nothing but what they are asked to replace.

Every writer goes this way::

    file = OutputFile("labels.tif", overwrite=True)  # what cannot be written is refused before any work
    with file.claimed():                             # no other run writes it from here on
        ...
        with file as part_path:                      # labels.tif.part/part.tif
            write(part_path)
                                                     # synced, renamed to labels.tif, its folder synced

The part lies in a folder that is made for it, locked as long as the process lives, and closed to other users. So libraries are
given plain names only, whatever the file is called; what they leave beside the part is ours to remove; and two runs that share
an output exclude each other.
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
LONGEST_SUFFIX = ".unfinished"  # that is put behind an output's name
_LOCK = "geoglnet.lock"
_PLAIN_SUFFIX = re.compile(r"\.[A-Za-z0-9]+")
_FULL = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
_FULL_BYTES = 2**20  # GDAL gives up when its buffer does not fit, and says nothing of why
_WAITS_S = (0.1, 0.4, 1.5)  # Windows: virus scanners and indexers open a new file for a moment
_NAME_MAX = 255


def sync_file(path: Path) -> None:
    """Have the content of a file reach the disk."""
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Have the names in a folder reach the disk, where the system can be asked for it."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems of networks that know no such thing
            raise
    finally:
        os.close(descriptor)


def is_held(path: Path) -> bool:
    """Whether a file cannot be replaced because a program has it open: so on Windows, elsewhere never."""
    try:
        path.rename(path)  # changes nothing, and is refused where replacing would be
    except OSError as error:  # or there is no such file
        return _is_of_windows(error)
    return False


def _is_of_windows(error: OSError) -> bool:
    """Whether a refusal is Windows' own, for an open file; others are about permissions."""
    return isinstance(error, PermissionError) and getattr(error, "winerror", None) is not None


def unwritable(path: StrPath, error: BaseException, size: int = 0) -> OutputError:
    """An error of a writer as ours: of a full disk it says so, of every other failure what it is.

    Args:
        path: what was being written, or its part.
        error: what was raised.
        size: bytes that the file would have taken; newer GDALs remove what they have written when they give up.
    """
    shown = final_path(Path(path))
    if _is_full(error, Path(path), max(size, _FULL_BYTES)):
        return OutputError(f"disk full while writing {shown}; free some space or choose another output")
    return OutputError(f"{shown} cannot be written ({_reason(error)}); choose another output")


def _is_full(error: BaseException, path: Path, size: int = _FULL_BYTES) -> bool:
    for cause in _causes(error):
        if isinstance(cause, OSError) and cause.errno:
            return cause.errno in _FULL
        if getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
            return True
    with suppress(OSError):  # GDAL's errors have no number, and often say no more than that a write failed
        return shutil.disk_usage(path.parent).free < size
    return False


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def _reason(error: BaseException) -> str:
    *_, error = _causes(error)
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()).rstrip(".") or type(error).__name__


def final_path(path: Path) -> Path:
    """What a part will be called; any other path as it is."""
    folder = path.parent
    return folder.with_name(folder.name.removesuffix(PART_SUFFIX)) if folder.name.endswith(PART_SUFFIX) else path


class LockedFolder:
    """A folder of ours beside an output: made by us, and locked against other runs until the context ends or the process.

    Args:
        path: of the folder.
        subject: name of the output, for messages.
        lock_name: name of the lock in it.
        is_ours: whether a folder that is there was made by an earlier run.

    Raises:
        OutputError: another run is at it, it cannot be made, or what lies there is not ours.
    """

    def __init__(self, path: Path, subject: str, lock_name: str, is_ours: Callable[[Path], bool]) -> None:
        self.path = path
        self._subject = subject
        self._lock_path = path / lock_name
        self._is_ours = is_ours
        self._lock: BaseFileLock | None = None

    def __enter__(self) -> LockedFolder:
        try:
            while self._lock is None:
                self._make()
                self._lock = self._acquired()
        except Timeout as error:
            raise OutputError(f"another run is writing {self._subject}; wait for it, or stop it") from error
        except (OSError, NotImplementedError) as error:
            if isinstance(error, OutputError):
                raise
            with suppress(OSError):  # made, but not kept: a folder with another run's lock in it is not empty
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
        try:
            self.path.mkdir(0o700)
            sync_folder(self.path.parent)
        except FileExistsError:
            state = self.path.lstat()
            is_folder = stat.S_ISDIR(state.st_mode)
            is_own = sys.platform == "win32" or state.st_uid == os.geteuid()
            if not is_folder or not is_own or not self._is_ours(self.path):
                owner = "" if is_own or not is_folder else " by this user"
                raise OutputError(
                    f"{self.path} was not made by geoglnet{owner}; move it away, or choose another output"
                ) from None

    def _acquired(self) -> BaseFileLock | None:
        """The lock; ``None`` when the run that had it removed the folder at this moment."""
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
        """Remove everything in it but the lock; nothing behind a link."""
        for path in self.path.iterdir():
            if path != self._lock_path:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

    def remove(self) -> None:
        """Remove the lock while it is held, since a run that took it in between would lose its own; then the folder."""
        with suppress(OSError):
            try:
                self._lock_path.unlink(missing_ok=True)
            except PermissionError:  # Windows removes no open file, so none that another run has taken either
                self.__exit__(None, None, None)
                self._lock_path.unlink(missing_ok=True)
            self.path.rmdir()


class OutputFile:
    """A file written in a folder of its own and renamed when it is whole; see the module.

    An exception inside removes the part, so that nothing half-written stands under the final name. Sidecars that the part has
    beside it travel with it; for those of a file that is replaced see :mod:`geoglnet.existing`. Of a symbolic link the target
    is replaced, and the link stays.

    On Windows a file that any program has open cannot be replaced. That is refused before the work; when it turns out at the
    end, or another file has come under the name meanwhile, the new file is kept as ``labels (2).tif``, and the error says so.

    Args:
        path: as people gave it.
        overwrite: replace the file that is there.
        companions: outputs that are written beside it and belong to it, such as a style.

    Raises:
        OutputExistsError: the file exists and ``overwrite`` is false.
        OutputError: no file can be written under this name, the folder is missing or not writable, the file to replace holds
            what is not ours, another run writes it, or the disk is full.
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
                folder.clear()  # what a run that was killed has left
            except OSError as error:
                raise unwritable(self.path, error) from error
            self._folder = folder
            try:
                yield
            finally:
                self._folder = None
                # A part that is still there could not be renamed, and the error says where it is. What Windows holds open is
                # left with the lock, and taken over next time.
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
        if self._folder is not None:
            self._folder.clear()

    def _publish(self) -> None:
        """Rename the part and its sidecars, to another name when the file cannot be replaced."""
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
        """What has come under the name while we worked is not ours to replace."""
        if os.path.lexists(self.target) and not self.overwrite:
            raise OutputExistsError(f"{self.path} has been written by somebody else meanwhile")
        if self.overwrite:
            check_replaceable(self.target)

    def _move(self, path: Path) -> None:
        """Old sidecars go first: at no moment do they describe a new file."""
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
        """Give the new file the first name that is free, or else leave it where it is; in words."""
        names = (self.target.with_name(f"{self.target.stem} ({number}){self.target.suffix}") for number in count(2))
        kept = next(path for path in names if not any(map(os.path.lexists, (path, *machine_made(path)))))
        try:
            self._move(kept)
        except OSError:
            kept = self.part_path
        return f"the new one is kept as {kept}"


def _carried(part_path: Path) -> list[Path]:
    return [path for suffix in CARRIED if (path := part_path.with_name(part_path.name + suffix)).exists()]


def _is_part_folder(folder: Path) -> bool:
    """Whether a folder was made for a part: our lock is in it, or nothing yet."""
    names = {path.name for path in folder.iterdir()}
    return not names or (_LOCK in names and stat.S_ISREG((folder / _LOCK).lstat().st_mode))


def _check_name(path: Path) -> None:
    try:
        str(path.absolute()).encode()
    except UnicodeEncodeError as error:
        raise OutputError(f"{str(path)!a} is not a name in UTF-8, which no GIS opens; choose another output") from error
    if any(unicodedata.category(sign) == "Cc" for sign in str(path)):
        raise OutputError(f"{str(path)!r} has a line break or a control character in it; choose another output")
    length = len(os.fsencode(path.name + LONGEST_SUFFIX))
    if length > _NAME_MAX:
        over = length - _NAME_MAX
        raise OutputError(f"{path.name[:40]}… is {over} bytes too long for what is written beside it; choose a shorter name")


def _target(path: Path) -> Path:
    """What is replaced: of a link the file that it leads to."""
    if not path.is_symlink():
        return path.absolute()
    target = Path(os.path.realpath(path))
    if target.is_symlink():
        raise OutputError(f"{path} is a link that leads nowhere; remove it, or choose another output")
    _check_name(target)
    return target


def refuse_sharing(outputs: Sequence[OutputFile]) -> None:
    """Refuse outputs of one run that are one file, or of which one is a sidecar of another.

    Raises:
        ConfigError: two of them are.
    """
    for first, second in combinations(outputs, 2):
        sidecars = [(beside, second) for beside in machine_made(first.target)]
        sidecars += [(beside, first) for beside in machine_made(second.target)]
        if any(_is_same(path, other.target) for path, other in ((first.target, second), *sidecars)):
            raise ConfigError(f"outputs share a file: {first.path}, {second.path}; give each its own")


def refuse_inputs(outputs: Iterable[OutputFile], inputs: Iterable[tuple[str, StrPath]]) -> None:
    """Refuse outputs that would replace or remove what the run reads, under whatever name.

    Args:
        outputs: of the run.
        inputs: what each is, such as ``"the model"``, and its path; URLs and names of drivers are passed over.

    Raises:
        OutputError: an output is an input, or has it beside it as a sidecar.
    """
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
            raise OutputError(f"{path.name}, {what}, would go when {output.path} is replaced; choose another output")


def _identity(path: StrPath) -> tuple[int, int] | None:
    try:
        state = Path(path).stat()
    except (OSError, ValueError):  # there is none, or it is no name of a file
        return None
    return state.st_dev, state.st_ino


def _is_same(first: Path, second: Path) -> bool:
    """Whether two names are of one file, there or not."""
    with suppress(OSError):
        return first.samefile(second)
    if first.exists() or second.exists():
        return False
    with suppress(OSError):
        return first.parent.samefile(second.parent) and _folded(first.name) == _folded(second.name)
    return False


def _folded(name: str) -> str:
    """A name as file systems compare it."""
    return unicodedata.normalize("NFC", name).casefold() if sys.platform in ("win32", "darwin") else name
