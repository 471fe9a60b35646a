"""``geoglnet.vectorize``: label rasters in, polygons out, and a handle to them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geoglnet.api.bars import watched
from geoglnet.api.report import Report
from geoglnet.api.views import Views
from geoglnet.raster.gdal import check_exists
from geoglnet.vector.formats import vector_files
from geoglnet.vector.settings import VectorConfig

if TYPE_CHECKING:
    from geopandas import GeoDataFrame
    from matplotlib.axes import Axes

    from geoglnet.api.maps import WebMap
    from geoglnet.legend import Legend
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
        labels_path: what they were traced from.
        legend: classes, as far as they are known.
        notes: what was said meanwhile.

    Raises:
        MemoryLimitError: a view would read more at once than ``geoglnet.options`` or its ``limit_mb`` allows.
        ModuleNotFoundError: an optional library is missing; says how to get it.
    """

    path: Path
    num_polygons: int
    labels_path: Path
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
        facts: dict[str, Any] = {"polygons": self.num_polygons, "vector": str(self.path), "labels": str(self.labels_path)}
        return Report(f"Traced {self.labels_path}", facts, self.notes)

    def _views(self) -> Views:
        return Views(self.legend, (), None, self.path)


def vectorize(
    labels_path: StrPath,
    vector_path: StrPath,
    *,
    legend: Legend | None = None,
    confidence_path: StrPath | None = None,
    config: VectorConfig | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> PolygonLayer:
    """Trace a label raster into polygons.

    Polygons equal those of tracing the raster as a whole, in memory that does not grow with it.

    >>> import geoglnet
    >>> from geoglnet import VectorConfig
    >>> layer = geoglnet.vectorize("labels.tif", "simple.gpkg", config=VectorConfig(simplify="1.5px", min_area_m2=10))
    >>> layer.num_polygons == len(layer.polygons())
    True

    Args:
        labels_path: uint8 raster of class numbers, 255 where there is no class.
        vector_path: polygons to write with ``class_id, class_name, area_m2, perimeter_m, confidence, part_of, scene, model``:
            GeoPackage (styled in QGIS), FlatGeobuf, GeoJSON or GeoParquet, as its suffix says.
        legend: class names and colors; the raster's own when left out, else numbered classes.
        confidence_path: raster of the chosen class's probability times 254 (or of fractions, one band or one per class), for
            the polygons' mean confidence.
        config: see :class:`~geoglnet.vector.settings.VectorConfig`.
        overwrite: replace the vector file if it exists.
        progress: receiver of steps; bars when left out.

    Returns:
        Path and number of the polygons, and views of them.

    Raises:
        ConfigError: a format that is not written, or settings that cannot be used.
        SceneError: the raster cannot be read, or does not hold labels.
        OutputExistsError: the vector file exists.
        OutputError: it cannot be written.
    """
    # What is refused by its name does not wait for pandas and numba, which are loaded only then.
    vector_files(vector_path, config or VectorConfig(), overwrite=overwrite)
    check_exists(labels_path)
    from geoglnet.raster.cog import read_legend
    from geoglnet.vector.polygonizer import vectorize as tool

    with watched(progress) as recorder:
        count = tool(
            labels_path,
            vector_path,
            legend=legend,
            confidence_path=confidence_path,
            config=config,
            overwrite=overwrite,
            progress=recorder,
        )
    path, classes = Path(vector_path), legend or read_legend(labels_path)
    return PolygonLayer(path, count, Path(labels_path), classes, (*recorder.rules, *recorder.warnings))
