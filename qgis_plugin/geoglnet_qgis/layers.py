"""Layers of QGIS as files that another program can read."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from osgeo import gdal
from qgis.core import (
    NULL,
    QgsCategorizedSymbolRenderer,
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransformContext,
    QgsFeature,
    QgsField,
    QgsFields,
    QgsMapLayer,
    QgsProcessingException,
    QgsProcessingFeatureSource,
    QgsProviderRegistry,
    QgsRasterLayer,
    QgsVectorFileWriter,
    QgsVectorLayer,
    QgsWkbTypes,
)
from qgis.PyQt.QtCore import QMetaType, QVariant

from .configuration import CLASS_COLUMN
from .translation import tr

ONE_CLASS = "object"

_SUBDATASET = re.compile(r"[A-Za-z0-9_]{2,}:.+")  # NETCDF:"file.nc":name, GPKG:file.gpkg:table
_IN_MEMORY = ("/vsimem/", "MEM:")  # of QGIS's own process, which no other can see


@dataclass(frozen=True)
class RasterFile:
    """A raster layer as the program can open it.

    Args:
        path: absolute path, or a name that only GDAL understands.
        name: the layer's.
        crs: the layer's, which may differ from the file's.
        is_overridden: whether it does.
        identifier: of the layer in its project.
    """

    path: str
    name: str
    crs: QgsCoordinateReferenceSystem
    is_overridden: bool
    identifier: str = ""

    def placed_in(self, folder: str, name: str = "scene") -> str:
        """Return a file in the layer's CRS: the raster itself, or a small VRT around it.

        Raises:
            QgsProcessingException: GDAL cannot make the VRT.
        """
        return self.as_vrt(folder, name) if self.is_overridden else self.path

    def as_vrt(self, folder: str, name: str = "scene") -> str:
        """Write a VRT around the raster, in the layer's CRS.

        Raises:
            QgsProcessingException: GDAL cannot make it.
        """
        path = os.path.join(folder, f"{name}.vrt")
        try:
            source = gdal.Open(self.path)
            made = source and gdal.Translate(path, source, format="VRT", **self._placing(source))
        except RuntimeError:  # where another plugin has called gdal.UseExceptions
            made = None
        if made is None:
            raise QgsProcessingException(tr("GDAL cannot open {path}").format(path=self.path))
        del made  # written when it goes
        return path

    def _placing(self, source: gdal.Dataset) -> dict[str, Any]:
        if not self.is_overridden:
            return {}
        wkt = self.crs.toWkt(QgsCoordinateReferenceSystem.WktVariant.WKT2_2019)
        is_bare = source.GetGeoTransform(can_return_null=True) is None
        # A bare picture lies where QGIS draws it: columns and negative rows.
        bounds = {"outputBounds": [0, 0, source.RasterXSize, -source.RasterYSize]} if is_bare else {}
        return {"outputSRS": wkt, **bounds}


def raster_file(layer: QgsRasterLayer) -> RasterFile:
    """Find the file behind a raster layer.

    Raises:
        QgsProcessingException: there is none: the layer is drawn by a server or lives in memory.
    """
    provider = layer.dataProvider()
    kind = layer.providerType()
    if not layer.isValid() or provider is None:
        raise QgsProcessingException(tr("layer “{name}” is not valid; repair its source first").format(name=layer.name()))
    if kind != "gdal":
        raise QgsProcessingException(
            tr("layer “{name}” comes from {kind}, not from a file; export it first: Export → Save As…").format(
                name=layer.name(), kind=kind
            )
        )
    path = _readable(layer)
    is_overridden = layer.crs() != provider.crs() and layer.crs().isValid()
    return RasterFile(path, layer.name(), layer.crs(), is_overridden, layer.id())


def _readable(layer: QgsRasterLayer) -> str:
    source = layer.source()
    if os.path.isfile(source) or os.path.isdir(source):  # a folder is an Esri grid, say
        return os.path.abspath(source)
    if QgsProviderRegistry.instance().decodeUri("gdal", source).get("openOptions"):
        raise QgsProcessingException(
            tr("layer “{name}” has GDAL open options; export it first: Export → Save As…").format(name=layer.name())
        )
    is_remote_or_part = source.startswith("/vsi") or _SUBDATASET.fullmatch(source)
    if is_remote_or_part and not source.startswith(_IN_MEMORY) and not source.startswith(("http:", "https:")):
        return source
    raise QgsProcessingException(
        tr("layer “{name}” has no file behind it ({source}); export it first: Export → Save As…").format(
            name=layer.name(), source=source[:100]
        )
    )


def write_polygons(
    source: QgsProcessingFeatureSource, path: str, context: QgsCoordinateTransformContext, *, kept: Collection[str] = ()
) -> int:
    """Write polygons to a GeoPackage, the selected ones where only those were asked for, without attributes but those kept.

    Any layer will do: of memory, of a database, filtered, being edited, in a CRS that only QGIS knows of.

    Returns:
        How many were written.

    Raises:
        QgsProcessingException: the file cannot be written.
    """
    fields = QgsFields()
    for field in source.fields():
        if field.name() in kept:
            fields.append(QgsField(field))
    names = fields.names()
    return _write(source, path, context, fields, ((f, [f[name] for name in names]) for f in source.getFeatures()))


def write_classes(
    source: QgsProcessingFeatureSource, column: str, path: str, context: QgsCoordinateTransformContext
) -> list[str]:
    """Write polygons with the class of each, as text in the column that a training configuration names.

    Args:
        source: polygons.
        column: field with the classes; empty makes all of them ``object``.
        path: GeoPackage to write.
        context: the project's.

    Returns:
        Names of the classes found, sorted.

    Raises:
        QgsProcessingException: a polygon has no class, there are none, or the file cannot be written.
    """
    fields = QgsFields()
    fields.append(QgsField(CLASS_COLUMN, QVariant.String if hasattr(QVariant, "String") else QMetaType.Type.QString))
    found: set[str] = set()

    def rows() -> Iterator[tuple[QgsFeature, list[str]]]:
        for feature in source.getFeatures():
            value = feature[column] if column else ONE_CLASS
            if value is None or value == NULL or not str(value).strip():
                raise QgsProcessingException(
                    tr("polygon {id} of “{name}” has no {column}; fill it in, or select the polygons that have one").format(
                        id=feature.id(), name=source.sourceName(), column=column
                    )
                )
            found.add(_class_name(value))
            yield feature, [_class_name(value)]

    if not _write(source, path, context, fields, rows()):
        raise QgsProcessingException(tr("layer “{name}” holds no polygons").format(name=source.sourceName()))
    return sorted(found)


FLAGS = ("approved", "edited", "checked")  # fields by which the program knows what somebody has looked at
CLASS_FIELDS = ("class_name", CLASS_COLUMN)


def write_drawn(source: QgsProcessingFeatureSource, column: str, path: str, context: QgsCoordinateTransformContext) -> str:
    """Write what was drawn, polygons, lines or points, with the class of each and the flags of what was looked at.

    Args:
        source: features.
        column: field with the classes; empty takes the field of our own layers, if there is one.
        path: GeoPackage to write.
        context: the project's.

    Returns:
        Name of the field with the classes in the file; empty where there is none.

    Raises:
        QgsProcessingException: a feature has no class, there are none, or the file cannot be written.
    """
    names = source.fields().names()
    column = column or next((name for name in CLASS_FIELDS if name in names), "")
    flags = [name for name in FLAGS if name in names and name != column]
    text = QVariant.String if hasattr(QVariant, "String") else QMetaType.Type.QString
    fields = QgsFields()
    for name in ([CLASS_COLUMN] if column else []) + flags:
        fields.append(QgsField(name, text))

    def rows() -> Iterator[tuple[QgsFeature, list[str]]]:
        for feature in source.getFeatures():
            value = feature[column] if column else ONE_CLASS
            if value is None or value == NULL or not str(value).strip():
                raise QgsProcessingException(
                    tr("polygon {id} of “{name}” has no {column}; fill it in, or select the polygons that have one").format(
                        id=feature.id(), name=source.sourceName(), column=column
                    )
                )
            marks = [feature[name] for name in flags]
            shown = ["" if mark is None or mark == NULL else str(mark) for mark in marks]
            yield feature, [*([_class_name(value)] if column else []), *shown]

    kind = QgsWkbTypes.multiType(QgsWkbTypes.flatType(source.wkbType()))
    if not _write(source, path, context, fields, rows(), kind):
        raise QgsProcessingException(tr("layer “{name}” holds nothing").format(name=source.sourceName()))
    return CLASS_COLUMN if column else ""


def _class_name(value: object) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value).strip()


def class_colors(layer: QgsMapLayer | None, column: str) -> dict[str, tuple[int, int, int]]:
    """Read the colors that a layer's own style gives to the values of a column."""
    renderer = layer.renderer() if isinstance(layer, QgsVectorLayer) else None
    if not isinstance(renderer, QgsCategorizedSymbolRenderer) or renderer.classAttribute().strip('"') != column:
        return {}
    colors = ((category.value(), category.symbol().color()) for category in renderer.categories() if category.symbol())
    return {_class_name(value): (color.red(), color.green(), color.blue()) for value, color in colors}


def _write(
    source: QgsProcessingFeatureSource,
    path: str,
    context: QgsCoordinateTransformContext,
    fields: QgsFields,
    rows: Iterable[tuple[QgsFeature, list[Any]]],
    kind: Any = QgsWkbTypes.Type.MultiPolygon,
) -> int:
    options = QgsVectorFileWriter.SaveVectorOptions()
    options.driverName = "GPKG"
    options.fileEncoding = "UTF-8"
    options.layerName = "polygons"
    writer = QgsVectorFileWriter.create(path, fields, kind, source.sourceCrs(), context, options)
    if writer.hasError() != QgsVectorFileWriter.WriterError.NoError:
        raise QgsProcessingException(writer.errorMessage())
    count = 0
    for feature, attributes in rows:
        if not feature.hasGeometry():
            continue
        geometry = feature.geometry()
        geometry.convertToMultiType()
        copy = QgsFeature(fields)
        copy.setGeometry(geometry)
        copy.setAttributes(attributes)
        if not writer.addFeature(copy):
            raise QgsProcessingException(writer.errorMessage())
        count += 1
    del writer  # written when it goes
    return count
