"""Writes a generated scene: the image as a GeoTIFF, the true polygons as a GeoPackage."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rasterio

from geoglnet.errors import OutputError
from geoglnet.output import OutputFile, unwritable
from geoglnet.progress import Progress, SilentProgress
from geoglnet.raster.class_table import ClassTable
from geoglnet.raster.failures import writing
from geoglnet.raster.files import GDAL_ERRORS
from geoglnet.raster.gdal import environment
from geoglnet.synthetic.generator import (
    DEFAULT_PIXEL_SIZE_M,
    DEFAULT_SHAPE,
    GENERATED_LEGEND,
    GeneratedScene,
    generate_scene,
)
from geoglnet.types import Shape, StrPath
from geoglnet.vector.geopackage import LayerDefinition, write_geopackage
from geoglnet.vector.rows import PolygonRecords


def write_generated(
    folder: StrPath,
    *,
    shape: Shape = DEFAULT_SHAPE,
    seed: int = 0,
    pixel_size_m: float = DEFAULT_PIXEL_SIZE_M,
    overwrite: bool = False,
    progress: Progress = SilentProgress(),  # noqa: B008 - it has no state
) -> tuple[Path, ...]:
    """Write ``scene.tif`` and its true polygons ``truth.gpkg`` into a folder, which is made when it is missing.

    Args:
        folder: folder to write into.
        shape: size in pixels.
        seed: seed of everything that is drawn.
        pixel_size_m: ground size of a pixel.
        overwrite: replace existing files.
        progress: receives the stage ``demo`` in steps.

    Returns:
        Paths of the files.

    Raises:
        OutputExistsError: one of them exists and ``overwrite`` is false.
        OutputError: the folder cannot be made, or the disk is full.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"folder {folder} cannot be made ({error.strerror}); choose another") from error
    # Both are checked before the scene is generated, which takes a while.
    scene_file, truth_file = OutputFile(folder / "scene.tif", overwrite), OutputFile(folder / "truth.gpkg", overwrite)
    progress.plan("demo", 3, "steps")
    scene = generate_scene(shape, seed, pixel_size_m)
    progress.advance()
    with scene_file as part_path:
        _write_image(part_path, scene)
    progress.advance()
    with truth_file as part_path:
        _write_truth(part_path, truth_file.path, scene)
    progress.advance()
    return scene_file.path, truth_file.path


def _write_image(path: Path, scene: GeneratedScene) -> None:
    """Write the image, and read it back: GDAL does not report every failed write."""
    bands, height, width = scene.image.shape
    profile = {"driver": "GTiff", "dtype": "uint8", "count": bands, "height": height, "width": width}
    profile |= {"crs": scene.crs, "transform": scene.transform, "photometric": "RGB", "interleave": "pixel"}
    profile |= {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "DEFLATE", "predictor": 2}
    with writing(path), rasterio.open(path, "w", **profile) as dst:
        dst.write(scene.image)
    try:
        with environment(), rasterio.open(path) as src:
            is_whole = np.array_equal(src.read(), scene.image)
    except GDAL_ERRORS as error:
        raise unwritable(path, error) from error
    if not is_whole:
        raise unwritable(path, OutputError("its pixels did not reach the file"))


def _write_truth(part_path: Path, path: Path, scene: GeneratedScene) -> None:
    """Write the true polygons with the columns of traced ones."""
    geometries = np.array([polygon.geometry for polygon in scene.polygons], dtype=object)
    classes = np.array([GENERATED_LEGEND.value_of(polygon.class_name) for polygon in scene.polygons], dtype=np.int64)
    layer = LayerDefinition(path, ClassTable.of(GENERATED_LEGEND), scene.crs.to_wkt())
    write_geopackage(part_path, layer, [PolygonRecords.of(geometries, classes, layer.crs_wkt)], {})
