"""Inria aerial image labeling (Maggiori et al. 2017): 180 labeled GeoTIFF tiles of 5000 × 5000 px at 0.3 m in five cities.

Each city has a CRS of its own, so each is a TorchGeo dataset of its own (``rasters``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from pyproj import CRS

from geoglnet.datasets.coding import Coding, set_coding
from geoglnet.datasets.layouts import Layout, Tile, chosen, split_keys
from geoglnet.datasets.pairs import Pair
from geoglnet.datasets.reader import PairReader
from geoglnet.datasets.sources import InriaSource
from geoglnet.legend import Legend
from geoglnet.torchgeo.adapter import ImageRasters
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
