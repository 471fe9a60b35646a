"""Inria aerial image labeling (Maggiori et al. 2017): 180 labeled GeoTIFF tiles of 5000 × 5000 px at 0.3 m in five cities.

Each city has a CRS of its own, so each is a TorchGeo dataset of its own (``rasters``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pyproj import CRS

from geoglnet.datasets.coding import Coding, set_coding
from geoglnet.datasets.layouts import Layout, Tile, chosen, split_keys
from geoglnet.datasets.pairs import Pair
from geoglnet.datasets.reader import PairReader
from geoglnet.datasets.sources import InriaSource
from geoglnet.legend import Legend
from geoglnet.progress import Progress, SilentProgress
from geoglnet.torchgeo.adapter import GeoDataset, ImageRasters, LabelRasters
from geoglnet.torchgeo.rasters import GeoLabels, LabelsFor, by_crs, iter_matched, label_rasters

INRIA_LEGEND = Legend(("background", "building"), ((0, 0, 0), (255, 255, 255)), background=0)

# The number is taken from the file's name alone: folders may have numbers too.
LAYOUT = Layout(
    name="Inria aerial image labeling",
    image=re.compile(r"(?:.*/)?(?P<key>[a-z]+(?:-[a-z]+)?\d+)(?:_sat)?\.tif", re.IGNORECASE),
    labels=re.compile(r"(?:.*/)?(?:gt|labels?|masks?)/(?P<key>[a-z]+(?:-[a-z]+)?\d+)(?:_mask|_sat)?\.tif", re.IGNORECASE),
    expected="images/<city><number>.tif with gt/<city><number>.tif, at any depth",
)
_LISTS = {"train": "train", "validation": "crossvali", "test": "test"}
_FIRST = 5  # tiles of each city that the publishers set aside for validation


def iter_pairs(source: InriaSource, reader: PairReader) -> Iterator[Pair]:
    """Yield the georeferenced tiles of a split with their truth.

    Raises:
        DatasetError: the folder has another layout, or a label raster cannot be used.
        LegendError: the model's legend lacks a class.
    """
    labels = [reader.legend.value_of(name) for name in INRIA_LEGEND.names]
    coding = set_coding(INRIA_LEGEND, reader.legend, "Inria", by_value=dict(zip((0, 255), labels, strict=True)))
    tiles = _tiles(source, LAYOUT.find(reader.folder / source.root, reader.progress), reader)
    yield from iter_matched([tile.image for tile in tiles], _labels_of(tiles, coding, reader), reader)


class InriaLabels(LabelRasters):
    """Truth of Inria's tiles: 0 is background, 1 a building, where the files have 255."""

    def __getitem__(self, index: Any) -> dict[str, Any]:
        sample: dict[str, Any] = super().__getitem__(index)
        return sample | {"mask": sample["mask"].clamp(max=1)}


def inria_cities(
    root: str | Path = "data",
    split: str = "train",
    splits: str = "glnet",
    progress: Progress = SilentProgress(),  # noqa: B008 - it has no state
) -> dict[str, GeoDataset]:
    """Open the tiles of a split as GeoDatasets of images and labels, one for each city, in its own CRS.

    Their classes are those of :data:`INRIA_LEGEND`. Folders are as of TorchGeo's ``InriaAerialImageLabeling``, or any others
    with the same names of files.

    Args:
        root: folder that holds the tiles at any depth.
        split: ``"train"``, ``"validation"``, ``"test"`` or ``"all"``.
        splits: ``"glnet"``: the authors' lists; ``"official"``: the first five tiles of a city are for validation, as of
            TorchGeo's ``"val"``.
        progress: receives what is left out.

    Raises:
        DatasetError: the folder has another layout, or none of the split's tiles.
    """
    source = InriaSource(split=split, splits=splits)
    tiles = _tiles(source, LAYOUT.find(Path(root), progress), PairReader(Path(root), INRIA_LEGEND, 0.3, progress))
    cities: dict[str, list[Tile]] = {}
    for tile in tiles:
        cities.setdefault(re.sub(r"\d+$", "", tile.key).lower(), []).append(tile)
    opened: dict[str, GeoDataset] = {}
    for city, theirs in cities.items():
        images = ImageRasters([str(tile.image) for tile in theirs], cache=False)
        labels = InriaLabels([str(tile.labels) for tile in theirs], crs=images.crs, res=images.res, cache=False)
        opened[city] = images & labels
    return opened


def is_first(key: str) -> bool:
    """Return whether a tile is among the first five of its city."""
    return int(re.sub(r"\D", "", key)) <= _FIRST


def _labels_of(tiles: list[Tile], coding: Coding, reader: PairReader) -> LabelsFor:
    """Return the function that opens the labels of all tiles of one CRS."""
    crs_of = {path: wkt for wkt, paths in by_crs([tile.image for tile in tiles], reader).items() for path in paths}

    def labels_for(images: ImageRasters) -> GeoLabels:
        paths = [tile.labels for tile in tiles if tile.image in crs_of and CRS.from_wkt(crs_of[tile.image]) == images.crs]
        return label_rasters(paths, images, coding, reader)

    return labels_for


def _tiles(source: InriaSource, found: list[Tile], reader: PairReader) -> list[Tile]:
    """Choose the tiles of the split."""
    what = f"Inria {source.split} ({source.splits})"
    if source.split == "all":
        return found
    if source.splits == "glnet":
        return chosen(found, split_keys(f"inria_{_LISTS[source.split]}"), what, reader.progress)
    wanted = [tile.key for tile in found if is_first(tile.key) == (source.split == "validation")]
    return chosen(found, wanted, what, reader.progress)
