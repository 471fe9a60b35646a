"""DeepGlobe land cover (Demir et al. 2018): 803 labeled tiles of 2448 × 2448 px at 0.5 m, without georeference.

Layouts in circulation, all found by the tiles' numbers: one flat folder of ``<id>_sat.jpg`` and ``<id>_mask.png`` (the
challenge, Kaggle), ``training_data/{images,masks}`` (TorchGeo), ``{train,crossvali}/{Sat,Label}`` (the GLNet authors).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from geoglnet.datasets.coding import Coding, set_coding
from geoglnet.datasets.layouts import Layout, Tile, chosen, in_folders, split_keys
from geoglnet.datasets.pairs import Pair
from geoglnet.datasets.reader import PairReader
from geoglnet.datasets.sources import DeepGlobeSource
from geoglnet.datasets.truth import image_truth
from geoglnet.legend import NO_CLASS, Legend

DEEPGLOBE_LEGEND = Legend(
    ("urban", "agriculture", "rangeland", "forest", "water", "barren", "unknown"),
    ((0, 255, 255), (255, 255, 0), (255, 0, 255), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)),
)
"""In TorchGeo's order; the authors' files have unknown 0, urban 1 … barren 6."""

LAYOUT = Layout(
    name="DeepGlobe land-cover",
    image=re.compile(r"(?:.*/)?(?P<key>\d+)_sat\.(?:jpg|jpeg|png|tif)", re.IGNORECASE),
    labels=re.compile(r"(?:.*/)?(?P<key>\d+)_mask\.(?:png|tif)", re.IGNORECASE),
    expected="<id>_sat.jpg with <id>_mask.png, at any depth",
)
_LISTS = {
    "glnet": {"train": "train", "validation": "crossvali", "test": "test"},
    "glnet_v1": {"train": "train", "validation": "test", "test": "crossvali"},
}
_FOLDERS = {"train": ("train", "land-train"), "validation": ("val", "crossvali"), "test": ("test", "offical_crossvali")}
_IMPURE = 32  # tolerance of colors; the publishers say: "values of the mask image may not be pure 0 and 255"


def iter_pairs(source: DeepGlobeSource, reader: PairReader) -> Iterator[Pair]:
    """Yield the tiles of a split with their truth, without georeference.

    Raises:
        DatasetError: the folder has another layout, or a mask cannot be used.
        LegendError: the model's legend lacks a class.
    """
    coding = deepglobe_coding(source.order, reader.legend)
    root = reader.folder / source.root
    for tile in _tiles(source, root, LAYOUT.find(root, reader.progress), reader):
        file = reader.look_at(tile.image, source.pixel_size_m)
        if file is not None:
            yield Pair(file, image_truth(tile.image, tile.labels, coding, reader.legend, file.shape))


def deepglobe_coding(order: str, legend: Legend) -> Coding:
    """Make the coding of masks: by color, and by number where the order of the numbers is configured.

    Raises:
        LegendError: the model's legend lacks a class.
    """
    # Two orders of the same seven numbers are in circulation; guessing wrong would train six wrong classes.
    hint = "set the order of its classes: order = 'glnet' (unknown 0 … barren 6) or 'torchgeo' (urban 0 … unknown 6)"
    by_name = {name: legend.value_of(name) if name in legend.names else NO_CLASS for name in DEEPGLOBE_LEGEND.names}
    names = DEEPGLOBE_LEGEND.names
    ordered = {"": (), "torchgeo": names, "glnet": (names[-1], *names[:-1])}[order]
    by_value = {value: by_name[name] for value, name in enumerate(ordered)}
    return set_coding(DEEPGLOBE_LEGEND, legend, "DeepGlobe", by_value=by_value, tolerance=_IMPURE, hint=hint)


def _tiles(source: DeepGlobeSource, root: Path, found: list[Tile], reader: PairReader) -> list[Tile]:
    """Choose the tiles of the split."""
    if source.split == "all":
        return found
    if source.splits == "folders":
        keys = in_folders(found, root, _FOLDERS, source.split)
    else:
        keys = list(split_keys(f"deepglobe_{_LISTS[source.splits][source.split]}"))
    return chosen(found, keys, f"DeepGlobe {source.split} ({source.splits})", reader.progress)
