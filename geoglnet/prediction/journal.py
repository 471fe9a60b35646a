"""What an unfinished run is a run of, and which of its blocks are done.

JSON lines. The first holds the facts that the result depends on; every other one tells of something finished, and is written
only when what it tells of has reached the disk. So whatever ends the run, even a power failure, what the journal says is true;
a last line that was torn off is overlooked, and its block computed again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from geoglnet.errors import OutputError
from geoglnet.models.manifest import Manifest, model_digest
from geoglnet.output import sync_folder
from geoglnet.prediction.config import PredictConfig
from geoglnet.prediction.layers import Layer
from geoglnet.prediction.source import SceneFiles
from geoglnet.raster.scene import RasterScene

FORMAT = 1
_MOST_DIFFERENCES = 4  # that one line names


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
        if len(self.window) != 4 or not all(type(number) is int and number >= 0 for number in numbers):
            raise TypeError("a block with other than whole numbers")


@dataclass
class Journal:
    """An open journal; made by :func:`begin_journal` or :func:`read_journal`.

    Args:
        path: of the file.
        facts: what the result depends on, as text by name.
        blocks: finished ones by (row, column); some 500 bytes each.
        written: outputs that stand under their final names.
        ready: identities of parts that were whole and about to get their names, by output.
    """

    path: Path
    facts: Mapping[str, str]
    blocks: dict[tuple[int, int], FinishedBlock] = field(default_factory=dict)
    written: set[str] = field(default_factory=set)
    ready: dict[str, list[int]] = field(default_factory=dict)

    def __contains__(self, place: tuple[int, int]) -> bool:
        return place in self.blocks

    def add_block(self, block: FinishedBlock) -> None:
        """Tell of a block whose files have reached the disk.

        Raises:
            OSError: the disk is full.
        """
        self._append({"block": asdict(block)})
        self.blocks[block.row, block.col] = block

    def add_ready(self, kind: str, part_path: Path) -> None:
        """Tell of an output's part that is whole, before it gets its name: a run that is killed in between knows it again."""
        self.ready[kind] = identity(part_path)
        self._append({"ready": {kind: self.ready[kind]}})

    def has_named(self, kind: str, path: Path) -> bool:
        """Whether the file under an output's name is the one that the run has written."""
        return kind in self.written or (path.is_file() and self.ready.get(kind) == identity(path))

    def add_output(self, kind: str) -> None:
        """Tell of an output that stands under its final name."""
        self._append({"written": kind})
        self.written.add(kind)

    def _append(self, entry: Mapping[str, Any]) -> None:
        with self.path.open("ab") as file:
            whole = file.tell()
            try:
                file.write(json.dumps(entry).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                os.truncate(self.path, whole)  # a torn line would hide those after it
                raise


def identity(path: Path) -> list[int]:
    """What a file keeps when it is renamed: its number, size and time."""
    state = path.stat()
    return [state.st_ino, state.st_size, state.st_mtime_ns]


def begin_journal(path: Path, facts: Mapping[str, str]) -> Journal:
    """A new journal, on the disk."""
    with path.open("wb") as file:
        file.write(json.dumps({"format": FORMAT, "facts": dict(facts)}).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    sync_folder(path.parent)
    return Journal(path, facts)


def read_journal(path: Path, *, mend: bool = False) -> Journal | None:
    """The journal of an unfinished run; ``None`` when there is none, or it did not get as far as its first line.

    Args:
        path: of the file.
        mend: cut off a torn last line, to go on behind it; for the run that holds the lock.

    Raises:
        OutputError: it is not a journal, or one of another geoglnet.
    """
    if not path.is_file():
        return None
    *lines, torn = path.read_bytes().split(b"\n")
    if not lines:
        return None
    if torn and mend:
        os.truncate(path, path.stat().st_size - len(torn))
    try:
        head, *entries = map(json.loads, lines)
        if head["format"] != FORMAT:
            raise OutputError(f"{path.parent} is an unfinished run of another geoglnet; finish it there, or begin again")
        journal = Journal(path, dict(head["facts"]), written={entry["written"] for entry in entries if "written" in entry})
        for entry in entries:
            journal.ready.update(entry.get("ready", {}))
            if "block" in entry:
                block = FinishedBlock(**entry["block"] | {"window": tuple(entry["block"]["window"])})
                journal.blocks[block.row, block.col] = block
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise OutputError(f"{path} is damaged ({error}); remove {path.parent} to begin again") from error
    return journal


def differences(ours: Mapping[str, str], theirs: Mapping[str, str]) -> list[str]:
    """What differs between the facts of two runs, in words: ``effort: 0.5, now 1``."""
    names = [*ours, *(name for name in theirs if name not in ours)]
    changed = [name for name in names if ours.get(name) != theirs.get(name)]
    told = [f"{name}: {ours.get(name, 'none')}, now {theirs.get(name, 'none')}" for name in changed[:_MOST_DIFFERENCES]]
    return [*told, f"{len(changed) - len(told)} more"] if len(changed) > len(told) else told


def run_facts(
    scene: RasterScene,
    files: SceneFiles,
    checkpoint: tuple[Path, Manifest],
    config: PredictConfig,
    layers: Collection[Layer],
    device: torch.device,
) -> dict[str, str]:
    """All facts of a run, as text by name."""
    path, manifest = checkpoint
    return {
        "geoglnet": version("geoglnet"),
        "torch": torch.__version__,
        "model": model_fact(manifest, path),
        "layers": ", ".join(layer.name for layer in layers),
        **_option_facts(config, device),
        **scene_facts(scene),
        **files.facts,
    }


def model_fact(manifest: Manifest, path: Path) -> str:
    """A model's name and the beginning of its hash."""
    return f"{manifest.name} {model_digest(path)[:16]}"


def _option_facts(config: PredictConfig, device: torch.device) -> dict[str, str]:
    facts = {
        "device": device.type,
        "precision": config.precision,
        "effort": f"{config.effort:g}",
        "coarse-to-fine": "on" if config.coarse_to_fine else "off",
        "tta": "on" if config.augment else "off",
        "bounds": "none" if config.bounds is None else " ".join(map(repr, config.bounds)),
        "mask": "none" if config.mask_path is None else _digest(config.mask_path),
    }
    # Which kernels run, and with them the last bits, depends on the batch, and on a CPU on the number of threads.
    threads = {"threads": str(torch.get_num_threads())} if device.type == "cpu" else {}
    return facts | {"batch": str(config.batch_size or "auto")} | threads


def scene_facts(scene: RasterScene) -> dict[str, str]:
    """Facts of how a scene is read."""
    height, width = scene.shape
    return {
        "scene grid": f"{width} × {height} px, transform {', '.join(map(repr, scene.transform[:6]))}",
        "scene values": ", ".join(["bands " + ", ".join(map(str, scene.bands)), scene.values_rule or str(scene.scaling)]),
    }


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()[:16]}"
