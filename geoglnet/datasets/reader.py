"""Opens what a model learns from: the scenes of all sources (each kind has a module of its own), of which regions are drawn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Protocol, cast

from geoglnet.bands import Bands
from geoglnet.config import RegionConfig
from geoglnet.datasets.generated import generated_region
from geoglnet.datasets.moments import measure_moments
from geoglnet.datasets.pairs import Pair, SceneFile, scene_file
from geoglnet.datasets.regions import DecodedScene, LabeledScene
from geoglnet.datasets.samplers import RegionDataset, SampleConfig, all_squares
from geoglnet.datasets.sources import GeneratedSource, ImagesSource, RastersSource, SourceConfig
from geoglnet.datasets.survey import Survey, survey
from geoglnet.datasets.transforms import AugmentConfig
from geoglnet.errors import DatasetError, SceneError
from geoglnet.legend import NO_CLASS, Legend
from geoglnet.progress import Progress

# Modules of kinds that TorchGeo's indexes match by place: a room above this one opens them.
_GEOREFERENCED = {"rasters": "torchgeo.rasters", "inria": "torchgeo.inria", "torchgeo": "torchgeo.class_paths"}


@dataclass(frozen=True, slots=True)
class PairReader:
    """Opens the scenes of sources at a model's resolution.

    Args:
        folder: data folder that the sources' patterns start from.
        legend: classes of the model.
        resolution_m: the model's resolution.
        progress: receives the rules applied to each raster, and what is left out.
        skip_corrupt: leave damaged files out, with a warning, instead of stopping.
        bands: bands of the model, with the rule that scales their values.
    """

    folder: Path
    legend: Legend
    resolution_m: float
    progress: Progress
    skip_corrupt: bool = False
    bands: Bands = field(default_factory=Bands)

    def iter_scenes(self, source: SourceConfig) -> Iterator[LabeledScene]:
        """Yield the labeled scenes of one source, from files or generated, without decoding any file.

        Raises:
            DatasetError: files are missing or cannot be used.
            SceneError: a raster cannot be read.
        """
        if isinstance(source, GeneratedSource):
            for seed in range(1, source.generated + 1):
                yield DecodedScene(
                    f"generated scene {seed}", generated_region(seed, self.legend, self.resolution_m, self.bands)
                )
        else:
            yield from self.iter_pairs(source)

    def iter_pairs(self, source: SourceConfig) -> Iterator[Pair]:
        """Yield the rasters of one source with their truth.

        Raises:
            DatasetError: files are missing or cannot be used.
            SceneError: a raster cannot be read.
        """
        if isinstance(source, GeneratedSource):
            raise DatasetError("generated scenes are for training only; name files for validation")
        # By name, so that a new kind is one module, and torchgeo is imported only where it is needed.
        module = _GEOREFERENCED.get(source.kind, f"datasets.{source.kind}")
        opener = cast(_Opener, import_module(f"geoglnet.{module}"))
        yield from opener.iter_pairs(source, self)

    def look_at(
        self, path: Path, assumed_pixel_size_m: float | None = None, source: ImagesSource | RastersSource | None = None
    ) -> SceneFile | None:
        """Describe a raster at the model's resolution; return ``None`` for a damaged one when those are skipped.

        Args:
            path: the raster.
            assumed_pixel_size_m: pixel size of a raster without CRS.
            source: that it belongs to: which bands are read, from which other rasters too, and what is no value.

        Raises:
            SceneError: the raster cannot be read, and damaged files are not skipped.
        """
        try:
            if source is None:
                return scene_file(path, self.resolution_m, assumed_pixel_size_m, self.progress, self.bands)
            others = {name: self.beside(path, source.images, pattern) for name, pattern in source.beside.items()}
            return scene_file(
                path,
                self.resolution_m,
                assumed_pixel_size_m,
                self.progress,
                self.bands,
                nodata=source.nodata,
                selection=source.bands or None,
                beside=others,
            )
        except SceneError as error:
            self.leave_out(error)
            return None

    def beside(self, path: Path, images: str, pattern: str) -> Path:
        """Name the file that belongs to an image: the ``*`` of its pattern is what that of the images' matched.

        Args:
            path: the image.
            images: pattern that it matches.
            pattern: of the other file.
        """
        before, _, after = str(self.folder / images).partition("*")
        matched = str(path)[len(before) : len(str(path)) - len(after)]
        return self.folder / pattern.replace("*", matched)

    def leave_out(self, error: SceneError) -> None:
        """Warn about a damaged file, or stop when damaged files are not to be skipped."""
        if not self.skip_corrupt:
            raise error
        self.progress.warn(f"skipped: {error}")

    def matching(self, pattern: str) -> list[Path]:
        """List the files, and folders of Sentinel-2 products, that match a pattern below the data folder, or an absolute one.

        Raises:
            DatasetError: there is none.
        """
        whole = self.folder / pattern
        root, inner = (Path(whole.anchor), whole.relative_to(whole.anchor)) if Path(pattern).anchor else (self.folder, pattern)
        found = sorted(path for path in root.glob(str(inner)) if path.is_file() or path.suffix == ".SAFE")
        if not found:
            hint = "write / between folders, on Windows too" if "\\" in pattern else "check the data folder"
            raise DatasetError(f"no file matches {whole}; {hint}")
        return found


class _Opener(Protocol):
    def iter_pairs(self, source: SourceConfig, reader: PairReader) -> Iterator[Pair]: ...


def open_dataset(
    sources: Sequence[SourceConfig], reader: PairReader, region: RegionConfig, sample: SampleConfig, augment: AugmentConfig
) -> RegionDataset:
    """Open all sources for training; its length is 0 until a stage sets it, and what is left out is counted and logged.

    Its bands are the reader's, with mean and std measured on the scenes where they are not known.

    Memory: 4 bytes per decoded pixel of three 8-bit bands, up to ``sample.cache_mb``, and 12 bytes per 256 labeled pixels of
    all scenes.

    Raises:
        DatasetError: files are missing or cannot be used, or there is only one class to learn.
        LegendError: files have classes that the legend lacks.
        SceneError: a raster cannot be read.
    """
    opened = [(scene, source.weight) for source in sources for scene in reader.iter_scenes(source)]
    bands = reader.bands
    if not bands.is_measured:
        drawn = [weight * _pixels(scene) ** 0.5 for scene, weight in opened]
        bands = measure_moments([scene for scene, _ in opened], drawn, bands, reader.leave_out, reader.progress)
    # Decoded before the survey, so that the survey reads small scenes from memory too.
    scenes = _decoded([scene for scene, _ in opened], reader, sample.cache_mb)
    surveyed = survey(scenes, reader.leave_out, reader.progress)
    # By the root of the area: a scene of a hundred times the area is drawn ten times as often, so that small ones are seen too.
    labeled = surveyed.labeled_scenes()
    weights = [weight * _pixels(scene) ** 0.5 * (i in labeled) for i, (scene, weight) in enumerate(opened)]
    dataset = RegionDataset(scenes, weights, region, sample, augment, length=0, surveyed=surveyed, bands=bands)
    _log(dataset, surveyed, reader, _hint(sources, reader.legend))
    return dataset


def open_specimens(
    sources: Sequence[SourceConfig], reader: PairReader, region: RegionConfig, sample: SampleConfig, count: int
) -> RegionDataset:
    """Open some regions of the first scenes of sources, whole and not augmented, for pictures during training.

    Raises:
        DatasetError: files are missing or cannot be used.
        SceneError: a raster cannot be read.
    """
    scenes = list(islice((pair for source in sources for pair in reader.iter_pairs(source)), count))
    whole = replace(sample, patches_per_region=0, balanced_fraction=0.0, order="exhaustive")
    return RegionDataset(
        scenes, [1.0] * len(scenes), region, whole, AugmentConfig(False, 1, 1, 0), length=count, bands=reader.bands
    )


def _decoded(scenes: Sequence[LabeledScene], reader: PairReader, cache_mb: int) -> list[LabeledScene]:
    """Decode scenes into memory, the smallest first, until the cache is full; damaged ones stay as they are."""
    kept, budget = list(scenes), cache_mb * 2**20 // (len(reader.bands) * (1 if reader.bands.is_8bit else 4) + 1)  # and labels
    for index in sorted(range(len(kept)), key=lambda i: _pixels(kept[i])):
        # The smallest first: then most scenes fit, and opening a file for a few pixels is what costs.
        scene, size = kept[index], _pixels(kept[index])
        if isinstance(scene, DecodedScene) or size > budget:
            continue
        try:
            whole = scene.read_region(slice(0, scene.shape.height), slice(0, scene.shape.width))
        except SceneError as error:
            reader.leave_out(error)
        else:
            kept[index], budget = DecodedScene(scene.name, whole), budget - size
    return kept


def _hint(sources: Sequence[SourceConfig], legend: Legend) -> str:
    """Write the end of a message about a missing class: label rasters may use 255 for it."""
    if not any(getattr(source, "labels", "") and not getattr(source, "values", {}) for source in sources):
        return ""
    mapped = f'0 = "{legend.names[legend.background or 0]}", {NO_CLASS} = "{legend.names[-1]}"'
    return f". In label rasters {NO_CLASS} means no class; where it is one, map it: values = {{ {mapped} }}"


def _log(dataset: RegionDataset, surveyed: Survey, reader: PairReader, hint: str) -> None:
    """Log what the training set consists of.

    Raises:
        DatasetError: all labels are of one class.
    """
    log, scenes, size = reader.progress.log, dataset.scenes, dataset.sample.region_size
    absent = surveyed.absent(reader.legend)
    if len(absent) == reader.legend.num_classes - 1 > 0:
        raise DatasetError(
            f"no training pixel of {', '.join(absent)}: only one class is labeled. Set unlabeled = 'background' if pixels "
            f"outside polygons (or nodata pixels of label rasters) are background, or label more classes{hint}"
        )
    if absent:
        reader.progress.warn(f"no training pixel of {', '.join(absent)}: the model cannot learn these classes{hint}")
    unlabeled = [scene.name for i, scene in enumerate(scenes) if i not in surveyed.labeled_scenes()]
    if unlabeled:
        log(f"{len(unlabeled)} of {len(scenes)} scenes have no label and are left out: {', '.join(unlabeled[:5])}")
    if small := sum(min(scene.shape) < size for scene in scenes):
        log(f"{small} of {len(scenes)} scenes are smaller than a region of {size} px and are filled up unlabeled")
    if dataset.sample.order == "exhaustive":
        total = len(all_squares([scene.shape for scene in scenes], size))
        log(f"{len(dataset.squares)} regions per round; {total - len(dataset.squares)} without a label are left out")
    decoded = sum(isinstance(scene, DecodedScene) for scene in scenes)
    log(f"{len(scenes)} training scenes, {sum(map(_pixels, scenes)) / 1e6:.1f} Mpx; {decoded} held in memory")


def _pixels(scene: LabeledScene) -> int:
    """Count the pixels of a scene."""
    return scene.shape.height * scene.shape.width
