"""ISIC 2018 Task 1 (lesion boundaries): 2594 photographs of mixed sizes, up to 30 Mpx, with binary masks."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from geoglnet.datasets.coding import set_coding
from geoglnet.datasets.layouts import Layout, Tile, chosen
from geoglnet.datasets.pairs import Pair
from geoglnet.datasets.reader import PairReader
from geoglnet.datasets.sources import IsicSource
from geoglnet.datasets.truth import image_truth
from geoglnet.errors import DatasetError
from geoglnet.legend import Legend
from geoglnet.output import OutputFile
from geoglnet.raster.gdal import open_raster

ISIC_LEGEND = Legend(("background", "lesion"), ((0, 0, 0), (255, 255, 255)), background=0)

LAYOUT = Layout(
    name="ISIC 2018 Task 1",
    image=re.compile(r"(?:.*/)?(?P<key>ISIC_\d+)\.(?:jpg|jpeg|png)", re.IGNORECASE),
    labels=re.compile(r"(?:.*/)?(?P<key>ISIC_\d+)_segmentation\.png", re.IGNORECASE),
    expected="ISIC_<number>.jpg with ISIC_<number>_segmentation.png, at any depth",
)
_PROPORTIONS = {"train": 2074, "validation": 260, "test": 260}  # paper §4.3


def iter_pairs(source: IsicSource, reader: PairReader) -> Iterator[Pair]:
    """Yield the images of a split with their truth, without georeference.

    Raises:
        DatasetError: the folder has another layout, or a mask cannot be used.
        LegendError: the model's legend lacks a class.
        OutputError: the split cannot be written.
    """
    labels = [reader.legend.value_of(name) for name in ISIC_LEGEND.names]
    coding = set_coding(ISIC_LEGEND, reader.legend, "ISIC", by_value=dict(zip((0, 255), labels, strict=True)))
    for tile in _tiles(source, reader):
        file = reader.look_at(tile.image, _pixel_size(tile.image, source.longest_side, reader.resolution_m))
        if file is not None:
            yield Pair(file, image_truth(tile.image, tile.labels, coding, reader.legend, file.shape))


def _pixel_size(path: Path, longest_side: int, resolution_m: float) -> float:
    """Return the pixel size to assume for an image so that it is read with ``longest_side`` pixels along its longer side."""
    if not longest_side:
        return resolution_m
    with open_raster(path) as src:
        return float(resolution_m * longest_side / max(src.height, src.width))


def _tiles(source: IsicSource, reader: PairReader) -> list[Tile]:
    """Choose the tiles of the split; draw the split and write it, where its file is missing."""
    found = LAYOUT.find(reader.folder / source.root, reader.progress)
    if source.split == "all":
        return found
    # The challenge has no published split of its training set; written once, ours stays the same for all later runs.
    path = reader.folder / source.split_file
    if not path.exists():
        _write_split(path, draw_split([tile.key for tile in found], source.seed))
        reader.progress.log(f"split of {len(found)} images drawn with seed {source.seed}, written to {path}")
    keys = [key for key, split in _read_split(path).items() if split == source.split]
    return chosen(found, keys, f"ISIC {source.split} ({path.name})", reader.progress)


def draw_split(keys: list[str], seed: int) -> dict[str, str]:
    """Draw the split of each id, in the paper's proportions (2074 : 260 : 260), by seed."""
    order = np.random.default_rng(seed).permutation(len(keys))
    total, ends, names = sum(_PROPORTIONS.values()), np.cumsum(list(_PROPORTIONS.values())), list(_PROPORTIONS)
    # Places are scaled to the paper's 2594 images, so that a part of the data set is split in the same proportions.
    position = (np.arange(len(keys)) + 0.5) * total / max(1, len(keys))
    drawn = {keys[i]: names[int(np.searchsorted(ends, at))] for i, at in zip(order, position, strict=True)}
    return dict(sorted(drawn.items()))


def _write_split(path: Path, split_of: dict[str, str]) -> None:
    """Write a split as CSV."""
    with OutputFile(path) as part, part.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened)
        writer.writerow(("id", "split"))
        writer.writerows(split_of.items())


def _read_split(path: Path) -> dict[str, str]:
    """Read a split from CSV."""
    with path.open(newline="", encoding="utf-8-sig") as opened:
        rows = list(csv.DictReader(opened))
    try:
        return {row["id"]: row["split"] for row in rows}
    except KeyError as error:
        raise DatasetError(f"{path} has no column {error}; it needs the columns id and split") from error
