"""Tiles of published data sets, in any folders: paired by the id in their names, and chosen by the list of a split."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from geoglnet.errors import DatasetError
from geoglnet.output import PART_SUFFIX
from geoglnet.progress import Progress

_MOST_NAMED = 5


@dataclass(frozen=True, slots=True)
class Tile:
    """An image and its label image.

    Args:
        key: id that both names share.
        image: path.
        labels: path.
    """

    key: str
    image: Path
    labels: Path


@dataclass(frozen=True, slots=True)
class Layout:
    """Names of a data set's files; their folders do not matter.

    Args:
        name: name of the data set, for messages.
        image: pattern of an image's path below the root (with forward slashes) whose group ``key`` is the tile's id.
        labels: pattern of a label image's path, likewise.
        expected: description of both patterns, for messages.
    """

    name: str
    image: re.Pattern[str]
    labels: re.Pattern[str]
    expected: str

    def find(self, root: Path, progress: Progress) -> list[Tile]:
        """Find all labeled tiles below a folder, sorted by id; images without labels are counted and logged.

        Raises:
            DatasetError: there is no such folder, it holds no labeled tile, or an id occurs twice.
        """
        if not root.is_dir():
            raise DatasetError(f"{root} is not a folder; {self.name} needs one with {self.expected}")
        # Part files of running programs, this training's own checkpoint too, are not data.
        paths = sorted(path for path in root.rglob("*") if path.is_file() and path.parent.suffix != PART_SUFFIX)
        labels = self._by_key(root, paths, self.labels)
        # A label image may match the pattern of images too; then it is none.
        taken = set(labels.values())
        images = self._by_key(root, (path for path in paths if path not in taken), self.image)
        tiles = [Tile(key, image, labels[key]) for key, image in sorted(images.items()) if key in labels]
        if not tiles:
            raise DatasetError(
                f"{root} is not a {self.name} folder: looked for {self.expected}; found {_described(root, paths)}"
            )
        if left := len(images) - len(tiles):
            progress.log(f"{self.name}: {left} images without labels are left out")
        return tiles

    def _by_key(self, root: Path, paths: Iterable[Path], pattern: re.Pattern[str]) -> dict[str, Path]:
        """Find the files that match a pattern, by id."""
        found: dict[str, Path] = {}
        for path in paths:
            match = pattern.fullmatch(path.relative_to(root).as_posix())
            if match is None:
                continue
            first = found.setdefault(match["key"], path)
            if first != path:
                raise DatasetError(f"{self.name}: tile {match['key']} lies twice below {root}: {first} and {path}; remove one")
        return found


def chosen(tiles: Iterable[Tile], keys: Iterable[str], what: str, progress: Progress) -> list[Tile]:
    """Choose the tiles of a split; warn about those in its list that the folder lacks.

    Raises:
        DatasetError: the folder has none of them.
    """
    by_key = {tile.key: tile for tile in tiles}
    wanted = sorted(set(keys))
    missing = [key for key in wanted if key not in by_key]
    # Some missing tiles are usual (partial downloads); if all are missing, it is another split or data set.
    if len(missing) == len(wanted):
        raise DatasetError(f"none of the {len(wanted)} tiles of {what} is among the {len(by_key)} found; choose another split")
    if missing:
        progress.warn(f"{what}: {len(missing)} of {len(wanted)} tiles are missing ({_some(missing)})")
    return [by_key[key] for key in wanted if key in by_key]


def split_keys(name: str) -> tuple[str, ...]:
    """Read the ids in one of the lists in ``datasets/splits``, such as ``"deepglobe_train"``."""
    return tuple(files("geoglnet.datasets").joinpath("splits", f"{name}.txt").read_text(encoding="utf-8").split())


def in_folders(tiles: Iterable[Tile], root: Path, words: Mapping[str, tuple[str, ...]], split: str) -> list[str]:
    """List the ids of tiles in a folder of a split; ``words`` has the beginnings of such folders' names, by split."""
    return [
        tile.key
        for tile in tiles
        if any(part.lower().startswith(words[split]) for part in tile.image.relative_to(root).parts[:-1])
    ]


def _described(root: Path, paths: list[Path]) -> str:
    """Describe the files in a folder, for the message that none of them fits."""
    if not paths:
        return "an empty folder"
    kinds = Counter(path.suffix.lower() or "no suffix" for path in paths)
    names = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(_MOST_NAMED))
    folders = sorted({path.relative_to(root).parent.as_posix() for path in paths})
    return f"{names} in {_some(folders)}, such as {paths[0].relative_to(root).as_posix()}"


def _some(names: list[str]) -> str:
    """List the first few names, and the number of the others."""
    rest = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {rest} more" if rest > 0 else "")
