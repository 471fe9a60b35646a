"""Legend: names and colors of the values of a label raster.

The legend travels with every dataset, checkpoint, label raster and polygon layer; two legends are compared, never
assumed equal (TorchGeo and the authors number DeepGlobe's classes differently).
"""

from __future__ import annotations

import colorsys
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from geoglnet.config import respelled, suggestion
from geoglnet.errors import ConfigError, LegendError
from geoglnet.plain import checked, shortened

Color: TypeAlias = tuple[int, int, int]

NO_CLASS = 255
"""Label of a pixel without a class in all rasters and training labels of ours, whatever value a data set uses."""


@dataclass(frozen=True, slots=True)
class Legend:
    """Class names and colors; the position of a class is its label value and its logit channel.

    >>> legend = Legend(("ground", "building"), ((32, 32, 32), (230, 75, 50)), background=0)
    >>> legend.value_of("building"), legend.polygon_values
    (1, (1,))

    Args:
        names: class names, unique, in label order.
        colors: one ``(red, green, blue)`` 0–255 per class.
        ignore_value: value of pixels without a class in files of this data set; read as :data:`NO_CLASS`.
        background: label that is drawn in rasters but does not become polygons; ``None``: every class does.

    Raises:
        LegendError: names repeat, counts differ, a color is out of range, or a value clashes.
    """

    names: tuple[str, ...]
    colors: tuple[Color, ...]
    ignore_value: int = 255
    background: int | None = None

    def __post_init__(self) -> None:
        # Legends come from JSON, TOML and tags of files: lists become tuples, and every value is checked.
        object.__setattr__(self, "names", _names(self.names))
        object.__setattr__(self, "colors", tuple(_color(c) for c in self.colors))
        if not 1 <= len(self.names) <= 255:
            raise LegendError(f"a legend has 1 to 255 classes, found {len(self.names)}")
        if len(set(self.names)) != len(self.names):
            raise LegendError(f"class names repeat: {', '.join(self.names)}; rename one")
        if len(self.colors) != len(self.names):
            raise LegendError(f"{len(self.names)} class names but {len(self.colors)} colors; give one color per class")
        if self.ignore_value not in range(-(2**31), 2**32):
            raise LegendError(f"ignore_value {shortened(self.ignore_value)} does not fit into a label raster; use 255")
        if 0 <= self.ignore_value < len(self.names):
            raise LegendError(f"ignore_value {self.ignore_value} is the label of {self.names[self.ignore_value]!r}; use 255")
        if self.background is not None and not 0 <= self.background < len(self.names):
            raise LegendError(f"background {self.background} is not a label; use 0 to {len(self.names) - 1}")

    @property
    def num_classes(self) -> int:
        """Number of classes, the background included."""
        return len(self.names)

    @property
    def polygon_values(self) -> tuple[int, ...]:
        """Labels that become polygons."""
        return tuple(value for value in range(self.num_classes) if value != self.background)

    def value_of(self, name: str) -> int:
        """Return the label of a class.

        Raises:
            LegendError: no class has that name.
        """
        if name not in self.names:
            raise LegendError(f"no class {name!r} in the legend; it has {', '.join(self.names)}")
        return self.names.index(name)

    def to_dict(self) -> dict[str, Any]:
        """Convert the legend to plain values for JSON and TOML."""
        classes = [{"name": n, "color": list(c)} for n, c in zip(self.names, self.colors, strict=True)]
        return {"classes": classes, "ignore_value": self.ignore_value, "background": self.background}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Legend:
        """Make a legend from plain values, the inverse of :meth:`to_dict`; older spellings of keys are accepted.

        Raises:
            LegendError: a key is missing or of the wrong kind.
        """
        try:
            whole = _table("legend", plain, ("classes",), ("ignore_value", "background"))
            classes = [
                _table("class", respelled(c), ("name", "color")) for c in checked("classes", whole["classes"], tuple[Any, ...])
            ]
            names, colors = tuple(c["name"] for c in classes), tuple(c["color"] for c in classes)
            ignore_value = checked("ignore_value", whole.get("ignore_value", 255), int)
            return cls(names, colors, ignore_value, checked("background", whole.get("background"), int | None))
        except LegendError:  # is a ConfigError too, and has said what is wrong
            raise
        except ConfigError as error:
            raise LegendError(f"not a legend ({error}); expected classes = [{{name, color}}, …]") from error


def distinct_colors(count: int) -> tuple[Color, ...]:
    """Choose colors of classes that nobody has chosen any for: hues a golden angle apart, so that neighbors differ."""
    hues = ((number * 0.618034) % 1 for number in range(count))
    found = (tuple(round(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.75, 0.85)) for hue in hues)
    return tuple((red, green, blue) for red, green, blue in found)


def _table(what: str, plain: Any, needed: tuple[str, ...], others: tuple[str, ...] = ()) -> Mapping[str, Any]:
    """Check that a value is a table with certain keys."""
    if not isinstance(plain, Mapping):
        raise ConfigError(f"{shortened(plain)} is not a table of a {what}")
    for key in plain:
        if key not in needed + others:
            raise ConfigError(f"unknown key {shortened(key)} of a {what}{suggestion(str(key), needed + others)}")
    for key in needed:
        if key not in plain:
            raise ConfigError(f"a {what} lacks {key}")
    return plain


def _names(values: Sequence[str]) -> tuple[str, ...]:
    """Check class names."""
    try:
        names: tuple[str, ...] = checked("class names", values, tuple[str, ...])
    except ConfigError as error:
        raise LegendError(f"{error}; rename the class") from error
    for name in names:
        if len(name) > 255:
            raise LegendError(f"class name {shortened(name)} has {len(name)} characters; use at most 255")
    return names


def _color(value: Sequence[int]) -> Color:
    """Check a color."""
    try:
        red, green, blue = map(operator.index, value)  # integers of numpy too, but no floats
    except (TypeError, ValueError):
        red = green = blue = -1
    if not all(0 <= channel <= 255 for channel in (red, green, blue)):
        raise LegendError(f"color {shortened(value)} is not three numbers from 0 to 255")
    return red, green, blue
