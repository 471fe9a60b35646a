"""What happens to results once QGIS has loaded them: class names only in the legend, polygons above rasters."""

from __future__ import annotations

from collections import deque

from qgis.core import (
    QgsLayerTree,
    QgsMapLayer,
    QgsPalettedRasterRenderer,
    QgsProcessingContext,
    QgsProcessingLayerPostProcessorInterface,
    QgsProject,
    QgsRasterLayer,
    QgsVectorLayer,
)

_alive: deque[QgsProcessingLayerPostProcessorInterface] = deque(maxlen=200)  # QGIS keeps no Python object alive


class Arranger(QgsProcessingLayerPostProcessorInterface):
    """Tidies a result's legend and puts it at its place among the others.

    Args:
        order: paths of all results of one run, the topmost first.
        loaded: shared among the arrangers of that run; identifiers of layers by path.
        path: the result that this one arranges.
    """

    def __init__(self, order: list[str], loaded: dict[str, str], path: str) -> None:
        super().__init__()
        self._order = order
        self._loaded = loaded
        self._path = path

    def postProcessLayer(self, layer: QgsMapLayer, context: QgsProcessingContext, feedback: object) -> None:
        if isinstance(layer, QgsRasterLayer):
            keep_named_classes(layer)
        elif isinstance(layer, QgsVectorLayer):
            layer.loadDefaultStyle()  # the GeoPackage's own; Processing loads layers without it
            layer.triggerRepaint()
        self._loaded[self._path] = layer.id()
        root = (context.project() or QgsProject.instance()).layerTreeRoot()
        sort_layers(root, [self._loaded[path] for path in self._order if path in self._loaded])


def arrange(context: QgsProcessingContext, titles: dict[str, str]) -> None:
    """Name the results that QGIS will load, and have them arranged.

    Args:
        context: of the algorithm.
        titles: layer names by path, the topmost first.
    """
    order, loaded = list(titles), {}
    for rank, (path, title) in enumerate(titles.items()):
        if not context.willLoadLayerOnCompletion(path):
            continue
        details = context.layerToLoadOnCompletionDetails(path)
        details.name = title
        if hasattr(details, "layerSortKey"):  # newer QGIS sorts by itself, the greater the higher
            details.layerSortKey = len(order) - rank
        arranger = Arranger(order, loaded, path)
        _alive.append(arranger)
        details.setPostProcessor(arranger)


def keep_named_classes(layer: QgsRasterLayer) -> None:
    """Take the entries without a name out of a paletted legend: a TIFF's color table always has 256."""
    renderer = layer.renderer()
    if not isinstance(renderer, QgsPalettedRasterRenderer):
        return
    named = [entry for entry in renderer.classes() if entry.label != f"{entry.value:g}"]
    if named and len(named) < len(renderer.classes()):
        layer.setRenderer(QgsPalettedRasterRenderer(layer.dataProvider(), renderer.usesBands()[0], named))
        layer.triggerRepaint()
        layer.emitStyleChanged()


def sort_layers(root: QgsLayerTree, identifiers: list[str]) -> None:
    """Bring layers into an order, the first above the second and so on, where they have one parent."""
    for upper, lower in zip(identifiers, identifiers[1:]):
        upper_node, lower_node = root.findLayer(upper), root.findLayer(lower)
        if upper_node is None or lower_node is None or upper_node.parent() != lower_node.parent():
            continue
        parent = upper_node.parent()
        nodes = [node.layerId() if hasattr(node, "layerId") else None for node in parent.children()]
        if nodes.index(upper) > nodes.index(lower):
            parent.insertChildNode(nodes.index(lower), upper_node.clone())
            parent.removeChildNode(upper_node)
