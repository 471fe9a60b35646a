"""``geoglnet.vectorize``: rasters and arrays in, polygons out, and a handle to them."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoglnet.api.bars import watched
from geoglnet.api.report import Report
from geoglnet.api.views import Views
from geoglnet.errors import ConfigError
from geoglnet.legend import Legend
from geoglnet.raster.gdal import check_exists
from geoglnet.vector.formats import vector_files
from geoglnet.vector.settings import VectorConfig
from geoglnet.vector.values import RasterValues

if TYPE_CHECKING:
    import numpy.typing as npt
    from affine import Affine
    from geopandas import GeoDataFrame
    from matplotlib.axes import Axes
    from xarray import DataArray

    from geoglnet.api.maps import WebMap
    from geoglnet.progress import Progress
    from geoglnet.types import Bounds, StrPath


@dataclass(frozen=True, slots=True)
class PolygonLayer:
    """What :func:`vectorize` wrote: a path, and views that read what is asked for.

    >>> import geoglnet
    >>> layer = geoglnet.vectorize("labels.tif", "again.gpkg")
    >>> print(type(layer.polygons()).__name__, layer.polygons().crs.to_epsg())
    GeoDataFrame 32736

    Args:
        path: the vector file.
        num_polygons: how many it has.
        labels_path: what they were traced from; ``None`` for an array.
        legend: classes, as far as they are known.
        notes: what was said meanwhile.

    Raises:
        MemoryLimitError: a view would read more at once than ``geoglnet.options`` or its ``limit_mb`` allows.
        ModuleNotFoundError: an optional library is missing; says how to get it.
    """

    path: Path
    num_polygons: int
    labels_path: Path | None
    legend: Legend | None = None
    notes: tuple[str, ...] = ()

    def polygons(self, *, bounds: Bounds | None = None, limit_mb: float | None = None) -> GeoDataFrame:
        """Read the polygons, or those that touch (left, bottom, right, top); areas in m², perimeters in m, confidence 0–1."""
        return self._views().polygons(bounds, limit_mb)

    def plot(self, *, bounds: Bounds | None = None, size: int = 1000, ax: Axes | None = None) -> Axes:
        """Draw the polygons; needs ``geoglnet[notebook]``."""
        return self._views().plot(bounds, size, ax)

    def explore(self, *, bounds: Bounds | None = None, size: int = 800, limit: int | None = None) -> WebMap:
        """Make a web map with attributes and legend: one page that needs no network."""
        return self._views().explore(bounds, size, limit)

    @property
    def report(self) -> Report:
        """Report what was traced from what."""
        facts: dict[str, Any] = {
            "polygons": self.num_polygons,
            "vector": str(self.path),
            "raster": str(self.labels_path or "array"),
        }
        return Report(f"Traced {self.labels_path or 'an array'}", facts, self.notes)

    def _views(self) -> Views:
        return Views(self.legend, (), None, self.path)


def vectorize(
    raster: StrPath | npt.NDArray[Any] | DataArray,
    vector_path: StrPath,
    *,
    values: RasterValues | None = None,
    legend: Legend | StrPath | None = None,
    confidence_path: StrPath | None = None,
    transform: Affine | None = None,
    crs: Any = None,
    config: VectorConfig | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> PolygonLayer:
    """Trace a raster into polygons: codes of classes, objects, or quantities.

    Polygons equal those of tracing the raster as a whole, in memory that does not grow with it.

    >>> import geoglnet
    >>> from geoglnet import RasterValues, VectorConfig
    >>> layer = geoglnet.vectorize("labels.tif", "simple.gpkg", config=VectorConfig(simplify="1.5px", min_area_m2=10))
    >>> layer.num_polygons == len(layer.polygons())
    True
    >>> import numpy as np
    >>> fields = np.kron(np.array([[1, 2], [2, 70000]]), np.ones((8, 8), int))
    >>> geoglnet.vectorize(fields, "fields.gpkg", values=RasterValues(instances=True)).polygons().object_id.tolist()
    [1, 2, 70000]

    Args:
        raster: label raster with a class number or code in every pixel, or what ``values`` says: a file's name, an array of
            ``(h, w)`` or ``(bands, h, w)`` values (masked pixels have none), or an xarray ``DataArray``. Arrays are written to
            a temporary file, strip by strip.
        vector_path: polygons to write with ``class_id, class_name, area_m2, perimeter_m, confidence, part_of, scene, model``:
            GeoPackage (styled in QGIS), FlatGeobuf, GeoJSON or GeoParquet, as its suffix says.
        values: see :class:`~geoglnet.vector.values.RasterValues`.
        legend: class names and colors; or a file of them (TOML, QML, SLD, CSV, or a label raster). The raster's own when left
            out, else numbered classes.
        confidence_path: raster of the chosen class's probability times 254 (or of fractions, one band or one per class), for
            the polygons' mean confidence.
        transform: pixel to CRS coordinates of an array; that of a ``DataArray`` when left out.
        crs: coordinate reference system of an array, in any form; that of a ``DataArray`` when left out.
        config: see :class:`~geoglnet.vector.settings.VectorConfig`.
        overwrite: replace the vector file if it exists.
        progress: receiver of steps; bars when left out.

    Returns:
        Path and number of the polygons, and views of them.

    Raises:
        ConfigError: a format that is not written, or settings that cannot be used.
        LegendError: a file that names no codes.
        SceneError: the raster cannot be read, or its values cannot be read in this way.
        OutputExistsError: the vector file exists.
        OutputError: it cannot be written.
    """
    # What is refused by its name does not wait for pandas and numba, which are loaded only then.
    vector_files(vector_path, config or VectorConfig(), overwrite=overwrite)
    (values or RasterValues()).check(config or VectorConfig(), has_legend=legend is not None)
    path = Path(raster) if isinstance(raster, PathLike) else raster if isinstance(raster, str) else None
    if path is not None:
        check_exists(path)
        if transform is not None or crs is not None:
            raise ConfigError(f"{path} has a transform and a CRS of its own; give them for arrays only")
    from geoglnet.raster.arrays import array_raster
    from geoglnet.raster.class_files import read_class_file
    from geoglnet.raster.cog import read_legend
    from geoglnet.vector.polygonizer import vectorize as tool

    classes = read_class_file(legend) if isinstance(legend, (str, PathLike)) else legend
    with (
        watched(progress) as recorder,
        array_raster(raster, transform=transform, crs=crs) if path is None else nullcontext(path) as name,
    ):
        count = tool(
            name,
            vector_path,
            legend=classes,
            confidence_path=confidence_path,
            config=config,
            values=values,
            overwrite=overwrite,
            progress=recorder,
        )
    shown = classes if isinstance(classes, Legend) else None
    if path is not None and classes is None:
        shown = read_legend(path)
    notes = (*recorder.rules, *recorder.warnings)
    return PolygonLayer(Path(vector_path), count, None if path is None else Path(path), shown, notes)
