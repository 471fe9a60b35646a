"""Writes final rasters: cloud-optimized GeoTIFFs (COG) that QGIS opens with the right colors and class names."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import rasterio.shutil
from rasterio.io import DatasetReader

from geoglnet.errors import LegendError, SceneError
from geoglnet.escaping import xml
from geoglnet.legend import Legend
from geoglnet.output import unwritable
from geoglnet.progress import Progress, SilentProgress
from geoglnet.raster.classnames import distinct_names, read_class_names, sidecar_path, write_class_names
from geoglnet.raster.crs import stored_wkt
from geoglnet.raster.failures import writing
from geoglnet.raster.files import block_sources
from geoglnet.raster.gdal import environment, open_raster
from geoglnet.raster.writer import NODATA, num_valid_pixels, verify
from geoglnet.types import StrPath

LEGEND_TAG = "GEOGLNET_LEGEND"
"""Of label rasters: their legend."""
CLASSES_TAG = "GEOGLNET_CLASSES"
"""Of stacks of class probabilities: the legend of their bands."""
BLOCK_SIZE = 512
_ROOM = 2**16  # bytes: more than the directories of all levels
_OPTIONS = {
    "driver": "COG",
    "COMPRESS": "DEFLATE",
    "BLOCKSIZE": BLOCK_SIZE,
    "BIGTIFF": "IF_SAFER",
    "SPARSE_OK": "YES",
    "NUM_THREADS": "ALL_CPUS",  # threads compress, and do not write
    "OVERVIEWS": "IGNORE_EXISTING",
}


def write_cog(
    source_path: StrPath,
    part_path: StrPath,
    *,
    legend: Legend | None,
    band_names: Sequence[str] = (),
    tags: Mapping[str, str] | None = None,
    num_valid: int | None = None,
    progress: Progress = SilentProgress(),  # noqa: B008 - it has no state
) -> None:
    """Copy a uint8 raster to a cloud-optimized GeoTIFF with pyramid levels; nodata is 255.

    With a legend the raster holds labels: it gets a color table, the class names (in a tag, and in an ``.aux.xml`` sidecar
    for other programs), and pyramid levels by majority. Without one it holds quantities: its levels are averages.

    Args:
        source_path: raster of labels, with one band, or of quantities.
        part_path: file to write; its sidecar is ``<part_path>.aux.xml``.
        legend: classes of a label raster; ``None`` for quantities.
        band_names: descriptions of the bands, if they have some.
        tags: dataset tags, such as ``GEOGLNET_MODEL``.
        num_valid: number of valid pixels of the source, which the copy must have too; counted when left out.
        progress: receives the stage ``pyramid``.

    Raises:
        OutputError: the disk is full or the folder not writable.
        SceneError: the source cannot be read.
    """
    part_path = Path(part_path)
    progress.plan("pyramid", 1, "rasters")
    _check_room(part_path)
    num_valid = num_valid_pixels(source_path) if num_valid is None else num_valid
    all_tags = dict(tags or {}) | ({} if legend is None else {LEGEND_TAG: json.dumps(legend.to_dict())})
    resampling = "AVERAGE" if legend is None else "MODE"
    # GDAL's COG driver copies a dataset as it is, so colors and tags are put into a VRT around the source.
    with (
        open_raster(source_path) as source,
        open_raster(_described(source, legend, band_names, all_tags), driver="VRT") as described,
    ):
        size = Path(source_path).stat().st_size
        with writing(part_path, size=size + size // 2):  # pyramids take a third
            rasterio.shutil.copy(described, os.fspath(part_path), OVERVIEW_RESAMPLING=resampling, **_OPTIONS)
    verify(part_path, num_valid)
    if legend is not None:
        write_class_names(sidecar_path(part_path), legend)
    progress.advance()


def _check_room(part_path: Path) -> None:
    """Refuse a disk on which nothing can be written: GDAL 3.10 crashes where it cannot begin a pyramid."""
    try:
        part_path.write_bytes(bytes(_ROOM))  # GDAL makes the file anew
    except OSError as error:
        raise unwritable(part_path, error) from error


def read_legend(path: StrPath) -> Legend | None:
    """Read the legend of a label raster: our own tag, else the class names that GDAL knows with the color table.

    Names that are empty or repeat are made distinct by their values (:func:`~geoglnet.raster.classnames.distinct_names`).

    Returns:
        ``None`` when the raster does not name its classes.

    Raises:
        SceneNotFoundError: there is no such file.
        SceneError: the file is not a raster.
        LegendError: the tag is not a legend.
    """
    with open_raster(path) as src, environment(path):
        tag = src.tags().get(LEGEND_TAG)
        colors = _colors(src)
    if tag is not None:
        return parsed_legend(tag, path)
    names = distinct_names(read_class_names(path))
    if not names:
        return None
    # A table of names without colors, or with fewer, gets shades of gray.
    grays = [round(255 * value / len(names)) for value in range(len(names))]
    return Legend(names, tuple(colors.get(value, (gray, gray, gray)) for value, gray in enumerate(grays)))


def parsed_legend(tag: str, path: StrPath) -> Legend:
    """Parse our own tag, :data:`LEGEND_TAG`.

    Raises:
        LegendError: it is not a legend.
    """
    try:
        return Legend.from_dict(json.loads(tag))
    except ValueError as error:
        raise LegendError(f"{os.fspath(path)}: tag {LEGEND_TAG} is not a legend ({error}); remove the tag") from error


def _colors(src: DatasetReader) -> dict[int, tuple[int, int, int]]:
    """Read the color table; empty when there is none."""
    if not src.count:
        raise SceneError(f"{src.name} has no bands; give a label raster")
    try:
        return {value: (red, green, blue) for value, (red, green, blue, _) in src.colormap(1).items()}
    except ValueError:  # raised by rasterio where there is no color table
        return {}


def _described(source: DatasetReader, legend: Legend | None, band_names: Sequence[str], tags: Mapping[str, str]) -> str:
    """Write a VRT of ``source`` with colors, names and tags, so that the source itself need not be changed.

    For a block mosaic it has the blocks themselves as sources: once GDAL 3.10 has read a VRT within a VRT, it returns zeros for
    parts of later ones that it cannot open (:mod:`geoglnet.raster.failures`).
    """
    items = "".join(f'<MDI key="{xml(key)}">{xml(value)}</MDI>' for key, value in sorted(tags.items()))
    numbers = ", ".join(repr(float(number)) for number in source.transform.to_gdal())
    placed = "" if source.transform.is_identity else f"<GeoTransform>{numbers}</GeoTransform>"
    if source.crs:
        placed = f"<SRS>{xml(stored_wkt(source.crs))}</SRS>{placed}"
    height, width = source.block_shapes[0]
    name = xml(str(Path(source.name).absolute()))
    sources = block_sources(source) or [
        f'<SimpleSource><SourceFilename relativeToVRT="0">{name}</SourceFilename><SourceBand>{band}</SourceBand></SimpleSource>'
        for band in source.indexes
    ]
    descriptions = [f"<Description>{xml(name)}</Description>" for name in band_names] or [""] * source.count
    bands = "".join(
        f'<VRTRasterBand dataType="Byte" band="{band}" blockXSize="{width}" blockYSize="{height}">'
        f"{descriptions[band - 1]}<NoDataValue>{NODATA}</NoDataValue>{_color_table(legend)}"
        f"{sources[band - 1]}</VRTRasterBand>"
        for band in source.indexes
    )
    return (
        f'<VRTDataset rasterXSize="{source.width}" rasterYSize="{source.height}">{placed}'
        f"<Metadata>{items}</Metadata>{bands}</VRTDataset>"
    )


def _color_table(legend: Legend | None) -> str:
    """Write the color table of labels: classes opaque, unused values black, nodata transparent."""
    if legend is None:
        return "<ColorInterp>Gray</ColorInterp>"
    spare = [(0, 0, 0, 255)] * (NODATA - legend.num_classes)
    entries = [*((*color, 255) for color in legend.colors), *spare, (0, 0, 0, 0)]
    rows = "".join('<Entry c1="{}" c2="{}" c3="{}" c4="{}"/>'.format(*entry) for entry in entries)
    return f"<ColorInterp>Palette</ColorInterp><ColorTable>{rows}</ColorTable>"
