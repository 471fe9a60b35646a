"""What happens to results once QGIS has loaded them: one group above their scene, class names only, background unseen."""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass, field

from osgeo import gdal
from qgis.core import (
    QgsLayerTreeGroup,
    QgsLayerTreeNode,
    QgsMapLayer,
    QgsPalettedRasterRenderer,
    QgsProcessingContext,
    QgsProcessingLayerPostProcessorInterface,
    QgsProject,
    QgsRasterLayer,
    QgsVectorLayer,
)
from qgis.PyQt.QtGui import QColor

LEGEND_TAG = "GEOGLNET_LEGEND"  # the program's, in label rasters: names, colors, which class is background
_alive: deque[QgsProcessingLayerPostProcessorInterface] = deque(maxlen=200)  # QGIS keeps no Python object alive


@dataclass
class Arrangement:
    """The results of one run, as they come in.

    Args:
        order: paths of all results that are loaded, the topmost first.
        scene: identifier of the layer that they are of, or empty.
        title: of their group; empty when they need none.
        loaded: identifiers of layers by path.
        group: which they are gathered in, once there is one.
    """

    order: list[str]
    scene: str = ""
    title: str = ""
    loaded: dict[str, str] = field(default_factory=dict)
    group: QgsLayerTreeGroup | None = None


class Arranger(QgsProcessingLayerPostProcessorInterface):
    """Styles a result and puts it at its place among the others.

    Args:
        arrangement: shared among the arrangers of a run.
        path: the result that this one arranges.
    """

    def __init__(self, arrangement: Arrangement, path: str) -> None:
        super().__init__()
        self._arrangement = arrangement
        self._path = path

    def postProcessLayer(self, layer: QgsMapLayer, context: QgsProcessingContext, feedback: object) -> None:
        if isinstance(layer, QgsRasterLayer):
            show_classes(layer)
        elif isinstance(layer, QgsVectorLayer):
            layer.loadDefaultStyle()  # the GeoPackage's own; Processing loads layers without it
            layer.triggerRepaint()
        self._arrangement.loaded[self._path] = layer.id()
        place(self._arrangement, context.project() or QgsProject.instance())


def arrange(context: QgsProcessingContext, titles: dict[str, str], *, scene: str = "", title: str = "") -> None:
    """Name the results that QGIS will load, and have them styled and arranged.

    Args:
        context: of the algorithm.
        titles: layer names by path, the topmost first.
        scene: identifier of the layer that they are of.
        title: of the group that they are gathered in; left out, there is none.
    """
    arrangement = Arrangement([path for path in titles if context.willLoadLayerOnCompletion(path)], scene, title)
    for rank, path in enumerate(arrangement.order):
        details = context.layerToLoadOnCompletionDetails(path)
        details.name = titles[path]
        if hasattr(details, "layerSortKey"):  # newer QGIS sorts by itself, the greater the higher
            details.layerSortKey = len(arrangement.order) - rank
        arranger = Arranger(arrangement, path)
        _alive.append(arranger)
        details.setPostProcessor(arranger)


def show_classes(layer: QgsRasterLayer) -> None:
    """Take the entries without a name out of a paletted legend (a TIFF's color table always has 256), and hide background."""
    renderer = layer.renderer()
    if not isinstance(renderer, QgsPalettedRasterRenderer):
        return
    background = _background(layer.source())
    named = [entry for entry in renderer.classes() if entry.label != f"{entry.value:g}"]
    if not named or (len(named) == len(renderer.classes()) and background is None):
        return
    for entry in named:
        if entry.value == background:
            entry.color = QColor(entry.color.red(), entry.color.green(), entry.color.blue(), 0)
    layer.setRenderer(QgsPalettedRasterRenderer(layer.dataProvider(), renderer.usesBands()[0], named))
    layer.triggerRepaint()
    layer.emitStyleChanged()


def _background(path: str) -> int | None:
    """Return the class that a label raster calls background, if it says so."""
    try:
        source = gdal.Open(path)
        legend = json.loads((source and source.GetMetadataItem(LEGEND_TAG)) or "{}")
        background = legend.get("background") if isinstance(legend, dict) else None
    except (RuntimeError, ValueError):  # the first where another plugin has called gdal.UseExceptions
        return None
    return background if isinstance(background, int) else None


def place(arrangement: Arrangement, project: QgsProject) -> None:
    """Bring results into their order, in a group above their scene; rasters are unticked under polygons of the same run."""
    root = project.layerTreeRoot()
    shown = [arrangement.loaded[path] for path in arrangement.order if path in arrangement.loaded]
    nodes = [node for node in map(root.findLayer, shown) if node is not None]
    if not nodes:
        return
    if arrangement.title:
        if arrangement.group is None:
            arrangement.group = _group_above(
                root, root.findLayer(arrangement.scene) if arrangement.scene else None, arrangement
            )
        nodes = [_moved(node, arrangement.group, rank) for rank, node in enumerate(nodes)]
    else:
        _sort(nodes)
    if len(nodes) > 1 and isinstance(nodes[0].layer(), QgsVectorLayer):
        for node in nodes[1:]:
            node.setItemVisibilityChecked(False)


def _group_above(root: QgsLayerTreeGroup, scene: QgsLayerTreeNode | None, arrangement: Arrangement) -> QgsLayerTreeGroup:
    parent = root if scene is None else scene.parent()
    return parent.insertGroup(0 if scene is None else parent.children().index(scene), arrangement.title)


def _moved(node: QgsLayerTreeNode, group: QgsLayerTreeGroup, rank: int) -> QgsLayerTreeNode:
    """Move a layer to its rank in a group."""
    if node.parent() == group and group.children().index(node) == rank:
        return node
    copy = node.clone()
    group.insertChildNode(rank, copy)
    node.parent().removeChildNode(node)
    return copy


def _sort(nodes: list[QgsLayerTreeNode]) -> None:
    """Bring layers into their order where they have one parent."""
    for rank in range(1, len(nodes)):
        upper, lower = nodes[rank - 1], nodes[rank]
        parent = upper.parent()
        if parent == lower.parent() and parent.children().index(upper) > parent.children().index(lower):
            nodes[rank - 1] = _moved(upper, parent, parent.children().index(lower))
