"""Which blocks of a run are finished, by its journals.

JSON lines. The first line of ``journal.jsonl`` holds the run's facts and settings (:mod:`geoglnet.prediction.facts`); every
other one names something finished, and is written only once that has reached the disk. So whatever ends the run, even a power
failure, what the journal says is true; a last line that was torn off is ignored, and its block computed again.

Every process that joins a run writes a journal of its own (``journal-1.jsonl`` and so on), which begins with the run's
identity. All of them are read together.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from geoglnet.errors import OutputError
from geoglnet.message import Keyword
from geoglnet.output import sync_folder

FORMAT = 2
JOURNAL = "journal.jsonl"
_OF_WRITERS = "journal-*.jsonl"


@dataclass(frozen=True, slots=True)
class FinishedBlock:
    """What is known of a block without reading it.

    Args:
        row: which row of cores.
        col: which column.
        window: column, row, width and height in the scene.
        sizes: bytes of its file per layer; no file where nothing is valid.
        num_valid: pixels that have a class.
        compared: pixels that two regions gave probabilities to.
        differing: those where the two would have chosen different classes.
        pairs: neighboring pixels inside the block that both have a class.
        borders: those pairs whose classes differ.
    """

    row: int
    col: int
    window: tuple[int, int, int, int]
    sizes: Mapping[str, int] = field(default_factory=dict)
    num_valid: int = 0
    compared: int = 0
    differing: int = 0
    pairs: int = 0
    borders: int = 0

    def __post_init__(self) -> None:
        counts = (self.row, self.col, self.num_valid, self.compared, self.differing, self.pairs, self.borders)
        numbers = (*counts, *self.window, *self.sizes.values())
        # type() and not isinstance(): JSON's true would pass for 1.
        if len(self.window) != 4 or not all(type(number) is int and number >= 0 for number in numbers):
            raise TypeError("a block with other than whole numbers")


@dataclass
class Journal:
    """An open journal; made by :func:`begin_journal`, :func:`read_journal` or :func:`writer_journal`.

    Args:
        path: of the file that is added to.
        run: identity of the run, another one whenever it is begun anew.
        facts: what the result depends on, as text by name.
        settings: of the run, in plain form.
        blocks: finished ones by (row, column); some 500 bytes each.
        written: outputs that stand under their final names.
        ready: identities of parts that were whole and about to get their names, by output.
    """

    path: Path
    run: str
    facts: Mapping[str, str]
    settings: Mapping[str, Any] = field(default_factory=dict)
    blocks: dict[tuple[int, int], FinishedBlock] = field(default_factory=dict)
    written: set[str] = field(default_factory=set)
    ready: dict[str, list[int]] = field(default_factory=dict)

    def add_block(self, block: FinishedBlock) -> None:
        """Enter a block whose files have reached the disk.

        Raises:
            OSError: the disk is full.
        """
        self._append({"block": asdict(block)})
        self.blocks[block.row, block.col] = block

    def add_ready(self, kind: str, part_path: Path) -> None:
        """Enter an output's part that is whole, before it gets its name: a run that is killed in between knows it again."""
        self.ready[kind] = identity(part_path)
        self._append({"ready": {kind: self.ready[kind]}})

    def has_named(self, kind: str, path: Path) -> bool:
        """Check whether the file under an output's name is the one that the run has written."""
        return kind in self.written or (path.is_file() and self.ready.get(kind) == identity(path))

    def add_output(self, kind: str) -> None:
        """Enter an output that stands under its final name."""
        self._append({"written": kind})
        self.written.add(kind)

    def set_settings(self, settings: Mapping[str, Any]) -> None:
        """Enter settings that have changed since the run was begun: other outputs, or other polygons from the same blocks."""
        if dict(settings) != dict(self.settings):
            self._append({"settings": dict(settings)})
            self.settings = settings

    def _append(self, entry: Mapping[str, Any]) -> None:
        with self.path.open("ab") as file:
            whole = file.tell()  # "ab" stands at the end
            try:
                file.write(json.dumps(entry).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                os.truncate(self.path, whole)  # a torn line would hide those after it
                raise


def identity(path: Path) -> list[int]:
    """Read what a file keeps when it is renamed: its number, size and time."""
    state = path.stat()
    return [state.st_ino, state.st_size, state.st_mtime_ns]


def begin_journal(path: Path, facts: Mapping[str, str], settings: Mapping[str, Any]) -> Journal:
    """Write the first line of a new journal, and have it reach the disk."""
    journal = Journal(path, uuid.uuid4().hex, facts, settings)
    _begin(path, {"format": FORMAT, "run": journal.run, "facts": dict(facts), "settings": dict(settings)})
    return journal


def writer_journal(journal: Journal, number: int) -> Journal:
    """Open the journal of one of several writers of a run, who holds the lock of this number.

    A journal that a writer of this number has left is added to.
    """
    path = journal.path.with_name(_OF_WRITERS.replace("*", str(number)))
    lines = _lines(path, mend=True)
    if not lines or _identity_in(lines[0]) != journal.run:
        _begin(path, {"format": FORMAT, "run": journal.run})
    return replace(journal, path=path)


def read_journal(path: Path, *, mend: bool = False) -> Journal | None:
    """Read the journals of an unfinished run.

    Args:
        path: of the run's own journal; those of other writers lie beside it.
        mend: cut off a torn last line, to go on behind it; for the process that holds the lock.

    Returns:
        ``None`` when there is no run, or it did not get as far as its first line.

    Raises:
        OutputError: a file is not a journal, or one of another geoglnet.
    """
    lines, read = _lines(path, mend=mend), path
    if not lines:
        return None
    try:
        head, *entries = map(json.loads, lines)
        if head["format"] != FORMAT:
            raise OutputError(
                f"{path.parent} is an unfinished run of another geoglnet (its journal has format {head['format']!r}, not "
                f"{FORMAT}); finish it with the version that began it, or start over with "
                + (Keyword("overwrite", True) + " and without " + Keyword("resume", True))
            )
        journal = Journal(path, str(head["run"]), dict(head["facts"]), dict(head["settings"]))
        _add(journal, entries)
        # Writers may be adding lines at this moment: what has no end of line yet is not there.
        for read in sorted(path.parent.glob(_OF_WRITERS)):
            first, *others = _lines(read) or [b""]
            if _identity_in(first) == journal.run:  # what a run before this one may have left is none of its blocks
                _add(journal, map(json.loads, others))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise OutputError(f"{read} is damaged ({error}); remove {path.parent} to begin again") from error
    return journal


def _add(journal: Journal, entries: Iterable[Any]) -> None:
    for entry in entries:
        if "written" in entry:
            journal.written.add(entry["written"])
        journal.ready.update(entry.get("ready", {}))
        journal.settings = dict(entry.get("settings", journal.settings))
        if "block" in entry:
            block = FinishedBlock(**entry["block"] | {"window": tuple(entry["block"]["window"])})
            journal.blocks[block.row, block.col] = block


def _lines(path: Path, *, mend: bool = False) -> list[bytes]:
    """Read the whole lines of a file; none when there is no file."""
    if not path.is_file():
        return []
    *lines, torn = path.read_bytes().split(b"\n")
    # Without a first line there is no run: the file will be begun anew, not added to.
    if torn and mend and lines:
        os.truncate(path, path.stat().st_size - len(torn))
    return lines


def _identity_in(line: bytes) -> str | None:
    try:
        identity: str | None = json.loads(line)["run"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return identity


def _begin(path: Path, head: Mapping[str, Any]) -> None:
    with path.open("wb") as file:
        file.write(json.dumps(head).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    sync_folder(path.parent)
