"""Doors for notebooks and programs: the tools under short names. Imports stand in the functions, for start-up time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from geoglnet.legend import Legend
    from geoglnet.prediction.config import PredictConfig
    from geoglnet.prediction.segment import Segmented
    from geoglnet.progress import Progress
    from geoglnet.types import StrPath
    from geoglnet.vector.vectorize import VectorConfig


def predict(
    scene_path: StrPath,
    labels_path: StrPath | None = None,
    *,
    vector_path: StrPath | None = None,
    confidence_path: StrPath | None = None,
    model: str = "buildings",
    config: PredictConfig | None = None,
    vector_config: VectorConfig | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Segmented:
    """Segment a scene into a label raster, polygons, or both.

    The scene may be larger than memory, of any type and in any CRS, or have none. It is read at the model's resolution;
    pixels that are nodata, transparent or masked get no class. Memory depends on the model's region, not on the scene::

        import geoglnet

        done = geoglnet.predict("scene.tif", "labels.tif", vector_path="roofs.gpkg")
        print(done.num_polygons, done.crs)

    Args:
        scene_path: anything that GDAL opens: a file, a URL, a /vsi path.
        labels_path: cloud-optimised GeoTIFF to write: class numbers, 255 where there is no class, with colours and names.
        vector_path: polygons to write with class, area and confidence: GeoPackage (styled when opened in QGIS), FlatGeobuf,
            GeoJSON or GeoParquet, as its suffix says.
        confidence_path: cloud-optimised GeoTIFF to write: the chosen class's probability times 254, else 255.
        model: name of a shipped model, or a ``.safetensors`` file.
        config: device, batch size, precision, bands, scaling; see :class:`~geoglnet.prediction.config.PredictConfig`.
        vector_config: simplification, clean-up and so on; see :class:`~geoglnet.vector.config.VectorConfig`.
        overwrite: replace outputs that exist.
        progress: receiver of steps and of the rules applied; may raise :class:`~geoglnet.errors.Cancelled` to stop.

    Returns:
        Paths of what was written, number of polygons, shape and CRS; never the array.

    Raises:
        ConfigError: nothing to write, or settings that cannot be used.
        OutputExistsError: an output exists.
        OutputError: an output cannot be written, or the disk is full.
        ModelNotFoundError: no such model.
        CheckpointError: the model file cannot be used.
        SceneNotFoundError: no such scene.
        SceneError: the scene cannot be read, or its bands don't fit the model.
        Cancelled: ``progress`` said so.
    """
    from geoglnet.prediction.destinations import Destinations
    from geoglnet.prediction.segment import segment

    labels, vector, confidence = (None if p is None else Path(p) for p in (labels_path, vector_path, confidence_path))
    destinations = Destinations(labels, vector, confidence, overwrite)
    return segment(scene_path, destinations, model=model, config=config, vector_config=vector_config, progress=progress)


def vectorize(
    labels_path: StrPath,
    vector_path: StrPath,
    *,
    legend: Legend | None = None,
    confidence_path: StrPath | None = None,
    config: VectorConfig | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> int:
    """Trace a label raster into polygons.

    Polygons equal those of tracing the raster as a whole, in memory that does not grow with it.

    Args:
        labels_path: uint8 raster of class numbers, 255 where there is no class.
        vector_path: polygons to write with ``class_id, class_name, area_m2, perimeter_m, confidence, part_of, scene, model``:
            GeoPackage (styled in QGIS), FlatGeobuf, GeoJSON or GeoParquet, as its suffix says.
        legend: class names and colours; the raster's own when left out, else numbered classes.
        confidence_path: raster of the chosen class's probability times 254 (or of fractions, one band or one per class), for
            the polygons' mean confidence.
        config: see :class:`~geoglnet.vector.config.VectorConfig`.
        overwrite: replace the vector file if it exists.
        progress: receiver of steps.

    Returns:
        The number of polygons written.

    Raises:
        ConfigError: a format that is not written, or settings that cannot be used.
        SceneError: the raster cannot be read, or does not hold labels.
        OutputExistsError: the vector file exists.
        OutputError: it cannot be written.
    """
    from geoglnet.vector.vectorize import vectorize as tool

    return tool(
        labels_path,
        vector_path,
        legend=legend,
        confidence_path=confidence_path,
        config=config,
        overwrite=overwrite,
        progress=progress,
    )
