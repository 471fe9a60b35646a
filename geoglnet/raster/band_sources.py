"""Where the bands of a scene are read from: one raster, several beside each other, or the files of a product."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from rasterio.io import DatasetReader

from geoglnet.config import suggestion
from geoglnet.errors import BandsError
from geoglnet.message import Keyword
from geoglnet.progress import Progress
from geoglnet.raster.band_choice import BandSelection, check_real, choose_bands
from geoglnet.raster.band_names import NamedBand, name_bands
from geoglnet.raster.files import Mosaic, short_name
from geoglnet.raster.gdal import environment, open_raster
from geoglnet.raster.grid import georeference, ground_pixel_size
from geoglnet.raster.products import BandSource, find_product
from geoglnet.types import Shape, StrPath


@dataclass(frozen=True, slots=True)
class SceneBands:
    """The bands of a scene in order.

    Args:
        names: of the model's bands; without a model of the raster's, or their numbers where they have none.
        sources: where each is read from.
        first: raster whose grid is the scene's.
        name: of the scene, if it is not that of the first raster.
        metadata: files that say where the bands of a product are and what their values mean.
    """

    names: tuple[str, ...]
    sources: tuple[BandSource, ...]
    first: StrPath
    name: str = ""
    metadata: tuple[str, ...] = ()


class OpenRasters:
    """Rasters that are opened while a scene is, each once.

    Args:
        on_error: closes them.
    """

    def __init__(self, on_error: ExitStack) -> None:
        self.on_error = on_error
        self._opened: dict[str, DatasetReader] = {}

    def open(self, path: StrPath) -> DatasetReader:
        """Open a raster, or return it if it is open.

        Raises:
            SceneNotFoundError: there is no such file.
            SceneError: GDAL cannot read it.
        """
        if str(path) not in self._opened:
            with environment(path):
                self._opened[str(path)] = self.on_error.enter_context(open_raster(path, **open_options(path)))
        return self._opened[str(path)]


def open_options(path: StrPath) -> dict[str, Any]:
    """Return GDAL's options for opening a raster."""
    return {"driver": "VRT"} if isinstance(path, Mosaic) else {}


def choose_scene_bands(
    files: OpenRasters,
    path: StrPath,
    wanted: Sequence[str] | None,
    selection: BandSelection | None,
    beside: Mapping[str, StrPath],
    progress: Progress,
) -> SceneBands:
    """Choose where every band of a scene is read from.

    Args:
        files: opens the rasters.
        path: the scene.
        wanted: names of the model's bands; without a model, those of the scene come first, then the others.
        selection: bands of ``path`` that the user has selected.
        beside: other rasters, by the name of the band that is read from each.
        progress: receives rules, and a warning for every guess.

    Raises:
        BandsError: a band is missing, or the model takes none of a name in ``beside``.
        SceneError: a raster cannot be read, or its values are complex.
    """
    if wanted is not None:
        for name in beside:
            if name not in wanted:
                raise BandsError(
                    f"the model takes no band {name!r}, which is named in "
                    + (Keyword("beside") + suggestion(name, tuple(wanted)))
                )
    rest = None if wanted is None else [name for name in wanted if name not in beside]
    if rest is not None and not rest:
        raise BandsError(f"no band of {short_name(path)} is read; give one of the other rasters as the scene")
    product = find_product(path)
    if product is None:
        dataset = files.open(path)
        numbers = choose_bands(dataset, rest, selection, progress)
        check_real(dataset, numbers)
        sources, first = [BandSource(path, number) for number in numbers], path
        known = {} if wanted is not None else {band.number: band.name or band.text for band in name_bands(dataset)}
        names = [known.get(number) or str(number) for number in numbers]
    else:
        sources = product.choose(rest, selection, progress)
        for source in sources:
            check_real(files.open(source.path), [source.number])
        names = [product.name_of(source) for source in sources]
        # Of 10 and 20 m bands the scene is that of 10 m.
        first = min(dict.fromkeys(source.path for source in sources), key=lambda path: _pixel_area(files.open(path)))
    others = {word: BandSource(other, _only_band(files.open(other), word, progress)) for word, other in beside.items()}
    name, metadata = ("", ()) if product is None else (product.name, product.metadata)
    if wanted is None or rest is None:
        return SceneBands((*names, *others), (*sources, *others.values()), first, name, metadata)
    by_name = dict(zip(rest, sources, strict=True)) | others
    return SceneBands(tuple(wanted), tuple(by_name[word] for word in wanted), first, name, metadata)


def list_bands(path: StrPath) -> tuple[tuple[NamedBand, tuple[float, float] | None], ...]:
    """List all bands of a raster or product but alpha, each with its scale and offset, as far as its metadata say them.

    Raises:
        SceneNotFoundError: there is no such file.
        SceneError: GDAL cannot read it.
    """
    product = find_product(path)
    if product is not None:
        return tuple((band, source.unit) for band, source in zip(product.bands, product.sources, strict=True))
    with open_raster(path, **open_options(path)) as dataset, environment(path):
        return tuple(
            (band, (dataset.scales[band.number - 1], dataset.offsets[band.number - 1])) for band in name_bands(dataset)
        )


def _pixel_area(dataset: DatasetReader) -> float:
    """Measure a pixel on the ground, or in units of the raster's CRS where that is not known."""
    place = georeference(dataset)
    size = ground_pixel_size(place.crs, place.transform, Shape(dataset.height, dataset.width))
    return abs(place.transform.determinant) if size is None else size[0] * size[1]


def _only_band(dataset: DatasetReader, name: str, progress: Progress) -> int:
    """Choose a band of a raster that was named for one band: its only one whatever it is called, else by name."""
    bands = name_bands(dataset)
    number = bands[0].number if len(bands) == 1 else choose_bands(dataset, [name], None, progress)[0]
    check_real(dataset, [number])
    return number
