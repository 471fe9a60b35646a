"""Sources of training and validation scenes, as a configuration file describes them; one dataclass per kind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from glob import glob
from pathlib import Path
from typing import Any, Literal, TypeAlias

from geoglnet.config import from_plain, suggestion
from geoglnet.errors import ConfigError
from geoglnet.plain import checked, shortened

Unlabeled: TypeAlias = Literal["ignore", "background"]
SPLITS = ("train", "validation", "test", "all")
SPLITTERS = (
    "random_bbox_assignment",
    "random_bbox_splitting",
    "random_grid_cell_assignment",
    "roi_split",
    "time_series_split",
)
"""Functions of ``torchgeo.datasets`` that split a dataset."""


@dataclass(frozen=True, slots=True)
class DeepGlobeSource:
    """Tiles of the DeepGlobe 2018 land-cover challenge, in any published folder layout; no georeference.

    Args:
        kind: ``"deepglobe"``.
        root: folder below the data folder; masks are paired with images by their number wherever they lie in it.
        split: ``"train"``, ``"validation"``, ``"test"`` or ``"all"``.
        splits: whose split. ``"glnet"``: the authors' 454 / 207 / 142 tiles; ``"glnet_v1"``: the same lists with validation and
            test the other way round (454 / 142 / 207, the paper's first version and later papers); ``"folders"``: as the
            folders are called (TorchGeo's ``training_data`` and ``test_data``, say).
        order: whose numbers masks of one band have: ``"glnet"`` (unknown 0, urban 1 … barren 6) or ``"torchgeo"`` (urban 0 …
            barren 5, unknown 6). Colored masks need none.
        pixel_size_m: ground pixel size.
        weight: how often these scenes are drawn, relative to their share of the area.
    """

    kind: Literal["deepglobe"] = "deepglobe"
    root: str = ""
    split: str = "train"
    splits: str = "glnet"
    order: str = ""
    pixel_size_m: float = 0.5
    weight: float = 1.0

    def __post_init__(self) -> None:
        _check_choice(self.kind, "split", self.split, SPLITS)
        _check_choice(self.kind, "splits", self.splits, ("glnet", "glnet_v1", "folders"))
        _check_choice(self.kind, "order", self.order, ("", "glnet", "torchgeo"))


@dataclass(frozen=True, slots=True)
class InriaSource:
    """Tiles of the Inria aerial image labeling set: georeferenced, 0.3 m, buildings.

    Args:
        kind: ``"inria"``.
        root: folder below the data folder that holds, at any depth, ``images/<city><number>.tif`` and the same names in ``gt``.
        split: ``"train"``, ``"validation"``, ``"test"`` or ``"all"``.
        splits: whose split. ``"glnet"``: the authors' 126 / 27 / 27 tiles; ``"official"``: the first five tiles of each city
            for validation, the others for training (there is no labeled test set).
        weight: how often these scenes are drawn, relative to their share of the area.
    """

    kind: Literal["inria"] = "inria"
    root: str = ""
    split: str = "train"
    splits: str = "glnet"
    weight: float = 1.0

    def __post_init__(self) -> None:
        _check_choice(self.kind, "split", self.split, SPLITS)
        _check_choice(self.kind, "splits", self.splits, ("glnet", "official"))
        if self.splits == "official" and self.split == "test":
            raise ConfigError("inria: the official test tiles have no labels; use split = 'validation' or splits = 'glnet'")


@dataclass(frozen=True, slots=True)
class IsicSource:
    """Images of ISIC 2018 Task 1 (lesion boundaries): photographs of mixed sizes.

    Args:
        kind: ``"isic"``.
        root: folder below the data folder that holds, at any depth, ``ISIC_<number>.jpg`` and
            ``ISIC_<number>_segmentation.png``.
        split: ``"train"``, ``"validation"``, ``"test"`` or ``"all"``.
        split_file: CSV file of ids and their split, relative to the data folder. Where it is missing, a split in the paper's
            proportions (2074 : 260 : 260) is drawn by ``seed`` and written there, so that it can be published.
        seed: of the split.
        longest_side: pixels along the longer side that every image is read at; 0 keeps each image's own size.
        weight: how often these images are drawn, relative to their share of the area.
    """

    kind: Literal["isic"] = "isic"
    root: str = ""
    split: str = "train"
    split_file: str = "isic_split.csv"
    seed: int = 0
    longest_side: int = 0
    weight: float = 1.0

    def __post_init__(self) -> None:
        _check_choice(self.kind, "split", self.split, SPLITS)
        if not 0 <= self.longest_side <= 100_000:
            raise ConfigError(f"isic: longest_side = {self.longest_side} must be a number of pixels, or 0")
        if self.seed < 0:
            raise ConfigError(f"isic: seed = {self.seed} must be 0 or more")


@dataclass(frozen=True, slots=True)
class ImagesSource:
    """Images paired by name with label images or vector files.

    Args:
        kind: ``"images"``.
        images: pattern of the images, relative to the data folder, with at most one ``*``.
        labels: pattern of the label image of each; its ``*`` is what matched in ``images``. Colored by the legend (any other
            color is an error, black means unlabeled), or one band of label values. Its size must be the image's.
        polygons: pattern of the vector file of each, instead of ``labels``.
        class_column: attribute of the polygons that names their class; without it all are the legend's last class.
        values: class name by what the files hold (a label value, or the text in ``class_column``), where they differ from
            the legend.
        ignore: label values, or classes in ``class_column``, that mean that nothing is known there.
        unlabeled: what a pixel outside all polygons, or with the label image's nodata value, is.
        pixel_size_m: ground pixel size of images without a CRS.
        nodata: a value that all bands of the images have where there is none, beside what the files declare.
        bands: names or numbers of the images' bands that the model's are, in its order, or a preset, as in ``["BGR"]``; found
            by name when left out.
        beside: pattern of other rasters of the same places, by the name of the model's band that is read from each, as in
            ``beside = { height = "dsm/*.tif" }``; a ``*`` is what matched in ``images``. Any CRS and resolution will do.
        weight: how often these scenes are drawn, relative to their share of the area.

    Raises:
        ConfigError: not exactly one kind of truth, or a pattern with two stars.
    """

    kind: Literal["images"] = "images"
    images: str = ""
    labels: str = ""
    polygons: str = ""
    class_column: str = ""
    values: Mapping[str, str] = field(default_factory=dict)
    ignore: tuple[int | str, ...] = ()
    unlabeled: Unlabeled = "ignore"
    pixel_size_m: float = 0.0
    nodata: float | None = None
    bands: tuple[int | str, ...] = ()
    beside: Mapping[str, str] = field(default_factory=dict)
    weight: float = 1.0

    def __post_init__(self) -> None:
        _check_truth(self.kind, self.images, self.labels, self.polygons)
        _check_nodata(self.kind, self.nodata)
        _check_choice(self.kind, "unlabeled", self.unlabeled, ("ignore", "background"))
        if any(pattern.count("*") > 1 for pattern in (self.images, self.polygons, self.labels)):
            raise ConfigError(f"source {self.images!r}: at most one * in a pattern")


@dataclass(frozen=True, slots=True)
class RastersSource:
    """Georeferenced rasters matched by place with a vector layer or with label rasters.

    Args:
        kind: ``"rasters"``.
        images: pattern of the rasters, relative to the data folder; each is read on a grid of its own.
        labels: pattern of label rasters, in any CRS and tiling.
        polygons: pattern of vector files, instead of ``labels``, in any CRS.
        layer: layer of the vector files; the first one with geometries when left out.
        class_column: attribute of the polygons that names their class; without it all are the legend's last class.
        values: class name by what the files hold (a label value, or the text in ``class_column``), where they differ from
            the legend.
        ignore: label values, or classes in ``class_column``, that mean that nothing is known there.
        area: vector file of the area of interest; outside it nothing is known.
        unlabeled: what a pixel outside all polygons, or with the label raster's nodata value, is (inside ``area``).
        nodata: a value that all bands of the images have where there is none, beside what the files declare.
        bands: names or numbers of the images' bands that the model's are, in its order, or a preset, as in ``["BGR"]``; found
            by name when left out.
        beside: pattern of other rasters of the same places, by the name of the model's band that is read from each, as in
            ``beside = { height = "dsm/*.tif" }``; a ``*`` is what matched in ``images``. Any CRS and resolution will do.
        weight: how often these scenes are drawn, relative to their share of the area.

    Raises:
        ConfigError: not exactly one kind of truth.
    """

    kind: Literal["rasters"] = "rasters"
    images: str = ""
    labels: str = ""
    polygons: str = ""
    layer: str = ""
    class_column: str = ""
    values: Mapping[str, str] = field(default_factory=dict)
    ignore: tuple[int | str, ...] = ()
    area: str = ""
    unlabeled: Unlabeled = "ignore"
    nodata: float | None = None
    bands: tuple[int | str, ...] = ()
    beside: Mapping[str, str] = field(default_factory=dict)
    weight: float = 1.0

    def __post_init__(self) -> None:
        _check_truth(self.kind, self.images, self.labels, self.polygons)
        _check_nodata(self.kind, self.nodata)
        _check_choice(self.kind, "unlabeled", self.unlabeled, ("ignore", "background"))


@dataclass(frozen=True, slots=True)
class TorchgeoSource:
    """A GeoDataset of TorchGeo, or of one's own, with the labels in its samples or in those of another GeoDataset.

    Args:
        kind: ``"torchgeo"``.
        dataset: class, as ``"torchgeo.datasets.NAIP"``; any subclass of ``GeoDataset`` that can be imported.
        args: of its constructor. ``paths`` and ``root`` are relative to the data folder, ``crs`` is text.
        labels: class of the labels, as ``"torchgeo.datasets.VectorDataset"``; the two are intersected (``dataset & labels``).
            Left out, ``dataset`` itself has both.
        labels_args: of its constructor.
        splits: function of ``torchgeo.datasets`` that splits the dataset, as ``"random_grid_cell_assignment"``; left out, all
            of it is one split.
        splits_args: of that function: ``lengths``, ``fractions``, ``grid_size``; ``rois`` as lists of left, bottom, right, top
            in the dataset's CRS; spans of time as lists of two dates.
        split: number of the split to take, from 0.
        seed: of a random split; equal in ``[[train]]`` and ``[[validation]]``, it gives parts of one split.
        values: class name by label value, where the values differ from the legend.
        ignore: label values that mean that nothing is known there.
        unlabeled: what a pixel with the label raster's nodata value is.
        nodata: a value that all bands of the images have where there is none, beside what the files declare.
        weight: how often these scenes are drawn, relative to their share of the area.

    Raises:
        ConfigError: no dataset is named, or the function of ``splits`` is unknown.
    """

    kind: Literal["torchgeo"] = "torchgeo"
    dataset: str = ""
    args: Mapping[str, Any] = field(default_factory=dict)
    labels: str = ""
    labels_args: Mapping[str, Any] = field(default_factory=dict)
    splits: str = ""
    splits_args: Mapping[str, Any] = field(default_factory=dict)
    split: int = 0
    seed: int = 0
    values: Mapping[str, str] = field(default_factory=dict)
    ignore: tuple[int | str, ...] = ()
    unlabeled: Unlabeled = "ignore"
    nodata: float | None = None
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not self.dataset:
            raise ConfigError("a source of kind = 'torchgeo' needs dataset = '…', as in dataset = 'torchgeo.datasets.NAIP'")
        _check_nodata(self.kind, self.nodata)
        _check_choice(self.kind, "unlabeled", self.unlabeled, ("ignore", "background"))
        if self.splits:
            _check_choice(self.kind, "splits", self.splits, SPLITTERS)
        if self.seed < 0 or self.split < 0:
            raise ConfigError(f"torchgeo: split = {self.split} and seed = {self.seed} must be 0 or more")

    def files(self, folder: Path) -> Iterator[str]:
        """Yield the files and folders that the constructors are given, below a data folder where they are no addresses."""
        for args in (self.args, self.labels_args):
            for key in PATH_ARGUMENTS:
                given = args.get(key, ())
                yield from (placed(path, folder) for path in ((given,) if isinstance(given, str) else given))


PATH_ARGUMENTS = ("paths", "root")
"""Arguments of TorchGeo's datasets that name files and folders."""


def placed(path: str, folder: Path) -> str:
    """Place a file or folder below the data folder, if it is no address of another machine."""
    return path if "://" in path else str(folder / path)


@dataclass(frozen=True, slots=True)
class GeneratedSource:
    """Generated scenes, so that a model knows those of ``geoglnet demo``; for training only.

    Args:
        kind: ``"generated"``.
        generated: number of scenes, with seeds from 1.
        weight: how often they are drawn, relative to their share of the area.
    """

    kind: Literal["generated"] = "generated"
    generated: int = 1
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not 1 <= self.generated <= 100_000:
            raise ConfigError(f"generated = {self.generated} scenes; name 1 to 100000")


SourceConfig: TypeAlias = (
    DeepGlobeSource | InriaSource | IsicSource | ImagesSource | RastersSource | TorchgeoSource | GeneratedSource
)

SOURCE_KINDS: dict[str, type[Any]] = {
    "deepglobe": DeepGlobeSource,
    "inria": InriaSource,
    "isic": IsicSource,
    "images": ImagesSource,
    "rasters": RastersSource,
    "torchgeo": TorchgeoSource,
    "generated": GeneratedSource,
}


def source_from_plain(plain: Mapping[str, Any]) -> SourceConfig:
    """Make a source from a ``[[train]]`` or ``[[validation]]`` table; without ``kind`` it is images, or generated scenes.

    Raises:
        ConfigError: an unknown kind or key (the nearest known one is suggested), or settings that contradict each other.
    """
    kind = checked("kind", plain.get("kind", "generated" if "generated" in plain else "images"), str)
    if kind not in SOURCE_KINDS:
        raise ConfigError(f"unknown kind = {shortened(kind)} of a source{suggestion(kind, tuple(SOURCE_KINDS))}")
    # The dataclass is the schema of the table: types and unknown keys are checked against it.
    source: SourceConfig = from_plain(SOURCE_KINDS[kind], plain)
    if not 0 < source.weight <= 1e9:
        raise ConfigError(
            f"{kind}: weight = {source.weight} must be above 0 and at most 1e9; remove the source to leave it out"
        )
    return source


def source_files(source: SourceConfig, folder: Path) -> Iterator[Path]:
    """Yield every file below the data folder that a source may read.

    Args:
        source: source of training or validation.
        folder: data folder that its patterns start from.
    """
    if isinstance(source, TorchgeoSource):
        for path in map(Path, source.files(folder)):
            yield from path.rglob("*") if path.is_dir() else (path,)
        return
    # By the names of fields: no other kind of source needs code of its own here.
    for key in ("images", "labels", "polygons", "area", "split_file"):
        if pattern := getattr(source, key, ""):
            yield from map(Path, glob(str(folder / pattern), recursive=True))  # noqa: PTH207 - patterns may be absolute
    for pattern in getattr(source, "beside", {}).values():
        yield from map(Path, glob(str(folder / pattern), recursive=True))  # noqa: PTH207
    if hasattr(source, "root"):
        yield from (folder / source.root).rglob("*")


def _check_truth(kind: str, images: str, labels: str, polygons: str) -> None:
    """Check that a source names images and one kind of truth."""
    if not images:
        raise ConfigError(f"a source of kind = {kind!r} needs images = '…'")
    if bool(labels) == bool(polygons):
        raise ConfigError(f"source {images!r} needs exactly one of labels = '…' and polygons = '…'")


def _check_nodata(kind: str, nodata: Any) -> None:
    """Check that a nodata value is a number; in Python, ``True`` is one."""
    if nodata is not None and (isinstance(nodata, bool) or not isinstance(nodata, (int, float))):
        raise ConfigError(f"{kind}: nodata = {nodata!r} must be a number, as in nodata = -9999")


def _check_choice(kind: str, key: str, value: str, known: tuple[str, ...]) -> None:
    """Check that a value is one of those known."""
    if value not in known:
        raise ConfigError(f"{kind}: {key} = {value!r}{suggestion(value, known)}")
