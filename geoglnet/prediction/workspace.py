"""The folder of an unfinished run, and the thread that writes finished blocks into it.

A block's files are written and synced first, then their folder, then the journal's line; so a run that was killed, or lost
its power, has lost at most the blocks under way.

One process *holds* a run, from the moment it begins or resumes it: it alone may write outputs and remove the folder. While
nobody holds it, any number of processes may *join* it; each computes blocks, has a lock of its own, and writes a journal of its
own. A run that others have joined is neither held nor begun anew before they have ended.
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from affine import Affine
from filelock import BaseFileLock, FileLock, Timeout
from rasterio.crs import CRS
from rasterio.windows import Window

from geoglnet.errors import OutputError, OutputExistsError
from geoglnet.filenames import check_filename
from geoglnet.legend import NO_CLASS
from geoglnet.message import Keyword
from geoglnet.output import LockedFolder, sync_folder, unwritable
from geoglnet.prediction.facts import differences
from geoglnet.prediction.journal import JOURNAL, FinishedBlock, Journal, begin_journal, read_journal, writer_journal
from geoglnet.prediction.layers import LAYERS, Layer
from geoglnet.prediction.plan import shifted
from geoglnet.prediction.seam_report import count_inner_borders
from geoglnet.raster.encoding import encoded
from geoglnet.raster.mosaic import write_block_mosaic
from geoglnet.types import Shape

if TYPE_CHECKING:  # who only finishes a run needs no torch
    from geoglnet.prediction.blocks import Block, PendingBlock

SUFFIX = ".unfinished"
_LOCK = "lock"
_OWN_FILES = re.compile(r"geoglnet-\w+|journal-\d+\.jsonl|writer-\d+\.lock")
_BLOCK = re.compile(r"\d{6,}_\d{6,}\.tif")
_PATIENCE_S = 30.0  # for the moment in which another process joins
_BEHIND = 2  # blocks that may wait: more would only hide a disk that cannot keep up


def workspace_path(output_path: Path) -> Path:
    """Name the folder of an output's unfinished run.

    Raises:
        OutputError: the output is a folder such as ``.``, which has no name.
    """
    check_filename(output_path)
    return output_path.with_name(output_path.name + SUFFIX)


def workspace_of(paths: Iterable[Path], *, resume: bool) -> Path:
    """Choose where the run of some outputs lies: beside the first, or beside another that it was begun with, to resume it."""
    folders = [workspace_path(path) for path in paths]
    return next((folder for folder in folders if resume and folder.is_dir()), folders[0])


def unfinished_journal(folder: Path) -> Journal | None:
    """Read what the unfinished run in a folder has written, if there is one; the run may be going on.

    Raises:
        OutputError: the journal there is damaged, or of another geoglnet.
    """
    return read_journal(folder / JOURNAL) if folder.is_dir() and not folder.is_symlink() else None


@dataclass
class Workspace:
    """The open folder of a run.

    Args:
        folder: of the run.
        journal: which blocks are finished; this process adds to it.
        number: 0 of the process that holds the run, else that under which this one has joined it.
        is_finished: whether all outputs are written, so that the folder can go.
    """

    folder: Path
    journal: Journal
    number: int = 0
    is_finished: bool = False

    def store(self, block: Block) -> None:
        """Bring a block to the disk, then enter it in the journal.

        Raises:
            OutputError: the disk is full, or the folder gone.
        """
        try:
            # Nothing but 255 needs no file: the mosaic has 255 wherever no block lies.
            sizes = {name: self._store(name, block) for name, values in block.layers.items() if (values != NO_CLASS).any()}
            for name in sizes:  # a name is on the disk only once its folder is
                sync_folder(self.folder / name)
            self.journal.add_block(finished_block(block, sizes))
        except OSError as error:
            raise unwritable(self.folder, error) from error

    def mosaic(self, layer: Layer, area: Window, num_bands: int, place: tuple[CRS | None, Affine]) -> Path:
        """Write a VRT of all blocks of a layer.

        Args:
            layer: which.
            area: window of the scene that the run is about.
            num_bands: of the layer.
            place: CRS of the scene, and transform of the area.
        """
        path = self.parts_folder / f"{layer.name}.vrt"
        shape = Shape(int(area.height), int(area.width))
        top, left = int(area.row_off), int(area.col_off)
        parts = ((name, part, shifted(window, -top, -left)) for name, part, window in self.iter_parts(layer))
        write_block_mosaic(path, parts, shape, num_bands, place)
        return path

    @property
    def parts_folder(self) -> Path:
        """Folder that the rasters of finished blocks lie in."""
        return self.folder

    def iter_parts(self, layer: Layer) -> Iterator[tuple[str, Window, Window]]:
        """List the rasters of a layer: the name below the folder, the window that is used, and where in the scene it lies."""
        for _, block in sorted(self.journal.blocks.items()):
            if layer.name in block.sizes:
                window = Window(*block.window)
                yield _block_name(layer.name, block.row, block.col), Window(0, 0, window.width, window.height), window

    @property
    def num_valid(self) -> int:
        """Pixels that have a class, in all blocks."""
        return sum(block.num_valid for block in self.journal.blocks.values())

    def refresh(self) -> None:
        """Read what other processes have finished since, and forget blocks whose files were removed or cut."""
        # In place: the thread that writes enters its blocks in the same journal.
        found = unfinished_journal(self.folder)
        if found is not None and found.run == self.journal.run:
            self.journal.blocks.update(found.blocks)
        for place in [place for place, block in self.journal.blocks.items() if not self._is_whole(block)]:
            del self.journal.blocks[place]

    def _is_whole(self, block: FinishedBlock) -> bool:
        paths = ((self.folder / _block_name(name, block.row, block.col), size) for name, size in block.sizes.items())
        return all(path.is_file() and path.stat().st_size == size for path, size in paths)

    def _store(self, name: str, block: Block) -> int:
        path = self.folder / _block_name(name, block.row, block.col)
        path.parent.mkdir(exist_ok=True)
        content = encoded(np.ascontiguousarray(block.layers[name]))
        # Renamed when whole: another process may have the same block finished already, and it must stay so.
        part_path = self.folder / f"geoglnet-block{self.number}"
        with part_path.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part_path.replace(path)
        return len(content)


def _block_name(layer: str, row: int, col: int) -> str:
    return f"{layer}/{row:06}_{col:06}.tif"


@contextmanager
def open_workspace(
    folder: Path,
    facts: Mapping[str, str],
    settings: Mapping[str, Any],
    *,
    resume: bool,
    overwrite: bool,
    kind: Callable[[Path, Journal], Workspace] = Workspace,
) -> Iterator[Workspace]:
    """Begin a run, or go on with one, and hold it.

    The folder is removed when the run is finished, and when an exception ends it before anything worth keeping was done.

    Args:
        folder: see :func:`workspace_path`.
        facts: what the result depends on, as text by name.
        settings: what the run is made from, in plain form.
        resume: go on with the run that lies there, if there is one.
        overwrite: give up the run that lies there, unless it is resumed.
        kind: of workspace to make of the folder and its journal.

    Raises:
        OutputError: another process is at it, the folder cannot be made, or the run that lies there has other facts.
        OutputExistsError: a run lies there, and was neither to be resumed nor to be given up.
    """
    with LockedFolder(folder, _subject(folder), _LOCK, _is_workspace) as locked:
        _refuse_writers(folder)
        workspace, has_failed = None, True
        try:
            workspace = kind(folder, _journal(folder, facts, settings, resume, overwrite))
            workspace.refresh()
            yield workspace
            has_failed = False
        finally:
            is_finished = workspace is not None and workspace.is_finished
            if is_finished or (has_failed and not _has_results(folder)):
                _clear(folder)
                locked.remove()


@contextmanager
def joined_workspace(folder: Path, facts: Mapping[str, str]) -> Iterator[Workspace]:
    """Join a run that nobody holds, beside any number of other processes.

    Args:
        folder: of the run.
        facts: what the result depends on in this process, which must be what it depended on where the run was begun.

    Raises:
        OutputError: no run lies there, another process holds it, or it has other facts.
    """
    # thread_local=False: a lock is given back by whichever thread ends the run.
    register = FileLock(folder / _LOCK, timeout=_PATIENCE_S, thread_local=False)
    try:
        register.acquire()  # so that nobody begins to hold the run between the check and our own lock
    except Timeout as error:
        raise _busy(folder) from error
    try:
        journal = run_in(folder)
        check_facts(journal, facts)
        number, lock = _first_free(folder)
        workspace = Workspace(folder, writer_journal(journal, number), number)
    except OSError as error:
        raise error if isinstance(error, OutputError) else unwritable(folder, error) from error
    finally:
        register.release()
    try:
        workspace.refresh()
        yield workspace
    finally:
        lock.release()


def run_in(folder: Path) -> Journal:
    """Read the run in a folder.

    Raises:
        OutputError: there is none, or its journal is damaged, or of another geoglnet.
    """
    journal = unfinished_journal(folder)
    if journal is None:
        raise OutputError(f"{folder} holds no unfinished run; begin one, or give the folder of one")
    return journal


def _first_free(folder: Path) -> tuple[int, BaseFileLock]:
    """Take the lock of the first number that no living process has."""
    number = 0
    while True:
        number += 1
        lock = FileLock(folder / f"writer-{number}.lock", timeout=0, thread_local=False)
        with suppress(Timeout):
            lock.acquire()
            return number, lock


def _refuse_writers(folder: Path) -> None:
    for path in folder.glob("writer-*.lock"):
        try:
            with FileLock(path, timeout=0, thread_local=False):  # free if its process has ended, however that was
                pass
        except Timeout as error:
            raise _busy(folder) from error


def _busy(folder: Path) -> OutputError:
    return OutputError(f"another run is writing {_subject(folder)}; wait for it, or stop it")


def _subject(folder: Path) -> str:
    return folder.name.removesuffix(SUFFIX)


def _journal(folder: Path, facts: Mapping[str, str], settings: Mapping[str, Any], resume: bool, overwrite: bool) -> Journal:
    if resume or not overwrite:  # else it does not matter what lies there, nor whether it can be read
        found = read_journal(folder / JOURNAL, mend=True)
        if found is not None and resume:
            check_facts(found, facts)
            found.set_settings(settings)
            return found
        if found is not None and found.blocks:
            raise OutputExistsError(
                f"{folder} holds {len(found.blocks)} finished blocks of an interrupted run; pass "
                + (Keyword("resume", True) + " to continue it, or " + Keyword("overwrite", True) + " to start over")
            )
    _clear(folder)
    return begin_journal(folder / JOURNAL, facts, settings)


def _has_results(folder: Path) -> bool:
    """Check whether an unfinished run is worth keeping."""
    try:
        journal = read_journal(folder / JOURNAL)
    except OutputError:
        return True
    return journal is not None and bool(journal.blocks or journal.ready)


def _is_workspace(folder: Path) -> bool:
    """Check whether a folder was made by a run: it has a journal, or nothing yet but a lock and a journal without its head."""
    names = {path.name for path in folder.iterdir()} - {_LOCK}
    if not names:
        return True
    path = folder / JOURNAL
    if not path.is_file() or path.is_symlink():
        return False
    with path.open("rb") as file:
        return file.read(1) in (b"{", b"") if names == {JOURNAL} else file.read(10) == b'{"format":'


def check_facts(journal: Journal, facts: Mapping[str, str]) -> None:
    """Refuse to go on with the run of a journal when facts differ.

    Raises:
        OutputError: some do; the message names them.
    """
    changed = differences(journal.facts, facts)
    if changed:
        raise OutputError(
            f"{journal.path.parent} is an unfinished run with other settings ({'; '.join(changed)}); use those, or start over "
            "with " + Keyword("overwrite", True) + " and without " + Keyword("resume", True)
        )


def _clear(folder: Path) -> None:
    """Remove what runs make, and nothing that somebody has put there; the journal last, which makes it a run's folder."""
    with suppress(OSError):  # what cannot be removed is left, and taken over next time
        for path in folder.iterdir():
            is_ours = path.name.removesuffix(".vrt") in LAYERS or _OWN_FILES.fullmatch(path.name)
            if path.is_symlink() or not is_ours:
                continue
            if not path.is_dir():
                path.unlink()
                continue
            for block in path.iterdir():
                if _BLOCK.fullmatch(block.name):
                    block.unlink()
            with suppress(OSError):
                path.rmdir()
        (folder / JOURNAL).unlink(missing_ok=True)


def finished_block(block: Block, sizes: Mapping[str, int]) -> FinishedBlock:
    """Count what is known of a block without reading it again.

    Args:
        block: in memory.
        sizes: bytes of its files, by layer.
    """
    window = block.window
    pairs, borders = count_inner_borders(block.labels)
    return FinishedBlock(
        block.row,
        block.col,
        (int(window.col_off), int(window.row_off), int(window.width), int(window.height)),
        sizes,
        int(np.count_nonzero(block.labels != NO_CLASS)),
        block.overlap.num_compared,
        block.overlap.num_differing,
        pairs,
        borders,
    )


def write_behind(blocks: Iterable[PendingBlock], store: Callable[[Block], None]) -> None:
    """Store blocks in another thread, in their order; whatever ends this, those that were computed are stored first.

    Memory: two blocks.

    Raises:
        OutputError: what ``store`` raised; nothing is stored after it.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="write") as pool:
        waiting: deque[Future[None]] = deque()
        try:
            for pending in blocks:
                waiting.append(pool.submit(_store, pending, store))
                if len(waiting) > _BEHIND:
                    _settle_first(waiting)
            while waiting:
                _settle_first(waiting)
        finally:
            pool.shutdown(wait=True, cancel_futures=_has_failed(waiting))


def _store(pending: PendingBlock, store: Callable[[Block], None]) -> None:
    store(pending.resolve())


def _settle_first(waiting: deque[Future[None]]) -> None:
    waiting[0].result()  # one that failed stays, so that those after it are not tried
    waiting.popleft()


def _has_failed(waiting: Iterable[Future[None]]) -> bool:
    return any(future.done() and future.exception() is not None for future in waiting)
