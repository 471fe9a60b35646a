"""Chooses names and colors of the classes of a raster, and says what was chosen."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from geoglnet.legend import Color, Legend
from geoglnet.progress import Progress
from geoglnet.raster.class_table import STYLED_CODES, ClassTable, distinct, read_class_table
from geoglnet.raster.cog import CLASSES_TAG, parsed_legend
from geoglnet.vector.tiles import DatasetTiles
from geoglnet.vector.values import RasterValues

_LOW, _HIGH = (255, 245, 200), (150, 20, 60)  # colors of the lowest and the highest class between breaks
_SHOWN = 8


def choose_classes(tiles: DatasetTiles, legend: Legend | ClassTable | None, progress: Progress) -> tuple[ClassTable, bool]:
    """Choose the class table: the one that is given, else that of the raster, breaks or bands.

    Args:
        tiles: the raster, and what its values mean.
        legend: names and colors that the caller gives.
        progress: receives a warning where a table of a file and that of the raster disagree.

    Returns:
        The table, and whether it names the classes of this raster; else they are called after their numbers.

    Raises:
        LegendError: our tag in the raster is not a legend.
    """
    values = tiles.values
    if values.breaks:
        table, is_named = _of_breaks(values), True
    elif values.argmax:
        table, is_named = _of_bands(tiles), True
    elif legend is None:
        table, is_named = read_class_table(tiles.labels, tiles.bands[0])
    else:
        table, is_named = ClassTable(), True
        if isinstance(legend, ClassTable):
            _compare(tiles, legend, progress)
    if legend is not None:
        given = ClassTable.of(legend) if isinstance(legend, Legend) else legend
        # A file of names says nothing of what lies below the first break.
        table = replace(given, background=table.background) if values.breaks and given.background is None else given
    if values.background is not None:
        table = replace(table, background=None if isinstance(values.background, str) else values.background)
    return table, is_named


def _compare(tiles: DatasetTiles, given: ClassTable, progress: Progress) -> None:
    """Warn where the raster names a code otherwise than the table that is given, which wins."""
    own, _ = read_class_table(tiles.labels, tiles.bands[0])
    different = sorted(code for code in own.names.keys() & given.names.keys() if own.names[code] != given.names[code])
    if different:
        code = different[0]
        progress.warn(
            f"the legend calls {code} {given.names[code]!r}, {tiles.labels.name} calls it {own.names[code]!r}"
            f"{f' ({len(different)} codes differ)' if len(different) > 1 else ''}: the legend's names are taken"
        )


def _of_breaks(values: RasterValues) -> ClassTable:
    """Name the classes between breaks, in colors from light to dark; what is below the first break is background."""
    names, last = values.class_names, len(values.breaks)
    colors = {number: _blended(max(number - 1, 0) / max(last - 1, 1)) for number in range(len(names))}
    return ClassTable(dict(enumerate(names)), colors, background=0)


def _blended(fraction: float) -> Color:
    red, green, blue = (round(low + (high - low) * fraction) for low, high in zip(_LOW, _HIGH, strict=True))
    return red, green, blue


def _of_bands(tiles: DatasetTiles) -> ClassTable:
    """Name the classes of a stack of probabilities: by our own tag, else by the bands' descriptions."""
    tag = tiles.labels.tags().get(CLASSES_TAG)
    if tag is not None:
        legend = parsed_legend(tag, tiles.labels.name)
        if legend.num_classes == len(tiles.bands):
            return ClassTable.of(legend)
    return ClassTable(distinct({number: tiles.labels.descriptions[band - 1] or "" for number, band in enumerate(tiles.bands)}))


def objects_omitted(values: RasterValues) -> frozenset[int]:
    """Return the values that are no objects: 0, unless another one is chosen, or none."""
    if values.background is None:
        return frozenset({0})
    return frozenset() if isinstance(values.background, str) else frozenset({values.background})


def describe(name: str, found: Collection[int], classes: ClassTable, progress: Progress) -> None:
    """Log what became of the values of a raster that has no legend."""
    codes = sorted(found)
    shown = ", ".join(map(str, codes[:_SHOWN])) + (", …" if len(codes) > _SHOWN else "")
    rest = "every value is one" if classes.background is None else f"{classes.background} is background"
    progress.log(f"{name} has no legend: values {shown or '(none)'} become classes, {rest}")


def warn_of_unnamed(name: str, found: Collection[int], classes: ClassTable, progress: Progress) -> None:
    """Warn about codes that the legend lacks; they are polygons all the same."""
    unnamed = sorted(code for code in found if code not in classes.names)
    if unnamed:
        more = f" and {len(unnamed) - 1} more" if len(unnamed) > 1 else ""
        more = " and many more" if len(found) > STYLED_CODES else more
        progress.warn(
            f"{name} holds the value {unnamed[0]}{more}, which the legend ({len(classes.names)} classes) lacks; "
            f"its polygons are called {classes.name_of(unnamed[0])!r}"
        )
