"""Coding: labels of the model's legend for the numbers, colors and names in label files; compared, never assumed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from geoglnet.config import suggestion
from geoglnet.errors import DatasetError, LegendError
from geoglnet.legend import NO_CLASS, Color, Legend
from geoglnet.types import Labels

BLACK = (0, 0, 0)
_PLACES = np.array([65536, 256, 1], np.uint32)


@dataclass(frozen=True, slots=True)
class Coding:
    """Table from values of label files to labels.

    Args:
        by_value: label by number in a file of one band.
        by_color: label by color in a file of three bands.
        by_name: label by text in a column of a vector layer.
        tolerance: distance from 0 or 255 up to which a channel counts as that (0: colors must match exactly).
        nodata_label: label of NaN, and of the file's nodata value unless that is among ``mapped``.
        mapped: numbers that the user has mapped to a class.
        hint: end of the message when one band of numbers cannot be decoded.
    """

    by_value: Mapping[int, int] = field(default_factory=dict)
    by_color: Mapping[Color, int] = field(default_factory=dict)
    by_name: Mapping[str, int] = field(default_factory=dict)
    tolerance: int = 0
    nodata_label: int = NO_CLASS
    mapped: frozenset[int] = frozenset()
    hint: str = "map it with values = {…}, or ignore it with ignore = […]"

    def decode(self, bands: npt.NDArray[Any], nodata: float | None = None) -> tuple[Labels, npt.NDArray[np.bool_]]:
        """Decode ``(bands, h, w)`` numbers or colors.

        Args:
            bands: values of a label file; with three bands or more, the first three are a color.
            nodata: the file's nodata value.

        Returns:
            ``(h, w)`` uint8 labels, and ``(h, w)`` bool where they cannot be decoded.
        """
        return self._from_values(bands[0], nodata) if len(bands) < 3 else self._from_colors(bands[:3])

    def label_of(self, name: str) -> int:
        """Return the label of a class named in a vector layer.

        Raises:
            LegendError: the legend has no such class.
        """
        if name not in self.by_name:
            raise LegendError(f"class {name!r} is not in the legend{suggestion(name, tuple(self.by_name))}")
        return self.by_name[name]

    def _from_values(self, values: npt.NDArray[Any], nodata: float | None) -> tuple[Labels, npt.NDArray[np.bool_]]:
        """Decode one band of numbers."""
        labels, known = np.full(values.shape, NO_CLASS, np.uint8), np.zeros(values.shape, bool)
        for value, label in self.by_value.items():
            here = values == value
            labels[here], known = label, known | here
        empty = np.isnan(values) if values.dtype.kind == "f" else np.zeros(values.shape, bool)
        # A nodata value that the user has mapped is a class: masks are often written with 0 as nodata.
        if nodata is not None and nodata not in self.mapped:
            empty |= values == nodata
        labels[empty], known = self.nodata_label, known | empty
        return labels, ~known

    def _from_colors(self, colors: npt.NDArray[Any]) -> tuple[Labels, npt.NDArray[np.bool_]]:
        """Decode three bands of colors, as one number each, which compares faster."""
        if self.tolerance:
            # JPEG and resampling leave colors near the corners of the color cube.
            colors = np.where(colors <= self.tolerance, 0, np.where(colors >= 255 - self.tolerance, 255, colors))
        coded = (colors.astype(np.uint32) * _PLACES[:, None, None]).sum(0)
        labels, known = np.full(coded.shape, NO_CLASS, np.uint8), np.zeros(coded.shape, bool)
        for color, label in self.by_color.items():
            here = coded == (np.array(color, np.uint32) * _PLACES).sum()
            labels[here], known = label, known | here
        return labels, ~known


def legend_coding(
    legend: Legend, values: Mapping[str, str], ignore: Sequence[int | str], *, unlabeled: str = "ignore"
) -> Coding:
    """Make the coding of files that use the model's own legend, up to the differences that the user names.

    Args:
        legend: legend of the model; black is unlabeled unless a class has that color.
        values: class name by number or text in the files, where they differ from the legend.
        ignore: numbers and names of unknown pixels or polygons.
        unlabeled: meaning of unlabeled pixels, ``"ignore"`` or ``"background"``.

    Raises:
        LegendError: ``values`` names a class that the legend lacks, or there is no background class to fill with.
    """
    for name in values.values():
        legend.value_of(name)
    labels = {name: value for value, name in enumerate(legend.names)}
    by_name = labels | {text: labels[name] for text, name in values.items()} | {str(text): NO_CLASS for text in ignore}
    # With any number mapped, only mapped numbers have a class: a mask of 0 and 255 must not get class 1 from its 1s.
    numbered = {int(text): labels[name] for text, name in values.items() if _is_number(text)}
    by_value = {legend.ignore_value: NO_CLASS} | (numbered or {value: value for value in labels.values()})
    by_value |= {int(value): NO_CLASS for value in ignore if _is_number(value)}
    # A class that is black overrides the meaning "unlabeled".
    by_color = {BLACK: NO_CLASS} | dict(zip(legend.colors, labels.values(), strict=True))
    filled = fill_label(legend, unlabeled)
    return Coding(by_value, by_color, by_name, nodata_label=filled, mapped=frozenset(numbered))


def set_coding(theirs: Legend, ours: Legend, source: str, **settings: Any) -> Coding:
    """Make the coding of a published data set, whose classes are found by name in the model's legend, in any order.

    Args:
        theirs: legend of the data set, with the numbers and colors of its files.
        ours: legend of the model; a class "unknown" that it lacks is read as unlabeled.
        source: name of the data set, for messages.
        settings: other fields of the :class:`Coding`.

    Raises:
        LegendError: the model's legend lacks a class.
    """
    missing = [name for name in theirs.names if name not in ours.names and name != "unknown"]
    if missing:
        raise LegendError(
            f"{source} has class {missing[0]!r}, the legend has {', '.join(ours.names)}; "
            f"name the classes {', '.join(theirs.names)}"
        )
    labels = [ours.value_of(name) if name in ours.names else NO_CLASS for name in theirs.names]
    by_color = dict(zip(theirs.colors, labels, strict=True))
    return Coding(settings.pop("by_value", dict(enumerate(labels))), by_color, **settings)


def fill_label(legend: Legend, unlabeled: str) -> int:
    """Return the label of unlabeled pixels.

    Args:
        legend: legend of the model.
        unlabeled: ``"ignore"`` or ``"background"``.

    Raises:
        LegendError: they are to be background, and the legend has no background class.
    """
    if unlabeled == "ignore":
        return NO_CLASS
    if legend.background is None:
        raise LegendError("unlabeled = 'background' needs a background class; set background = N in [legend]")
    return legend.background


def check_palette(path: Any, palette: Mapping[int, Sequence[int]], coding: Coding, legend: Legend) -> None:
    """Compare a label file's own colors with the legend's.

    Raises:
        DatasetError: a value has the color of another class of the legend, so the file numbers classes in another order.
    """
    for value, label in coding.by_value.items():
        color = tuple(palette.get(value, ()))[:3]
        # A color that no class has says nothing; one that another class has betrays a different numbering.
        if color in legend.colors and label != NO_CLASS and legend.colors.index(color) != label:
            theirs, ours = legend.names[legend.colors.index(color)], legend.names[label]
            raise DatasetError(
                f"{path} colors value {value} as {theirs!r}, the legend says {ours!r}: the order of classes differs; "
                f"map the values with values = {{ {value} = {theirs!r}, … }}"
            )


def _is_number(text: int | str) -> bool:
    """Return whether a key of ``values`` or ``ignore`` means a label value."""
    return isinstance(text, int) or text.lstrip("-").isdecimal()


def names_in(names: Iterable[str], coding: Coding) -> list[str]:
    """List the names that the coding lacks, each once, sorted."""
    return sorted({name for name in names if name not in coding.by_name})
