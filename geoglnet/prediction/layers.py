"""The table of layers: every raster that a prediction can write.

One entry is all that a new output needs. From the table come what blocks compute and hold, the rasters that a run writes, the
options of ``geoglnet predict`` (``--entropy``) and the keywords of :func:`geoglnet.predict` (``entropy_path``). The QGIS
plugin, which imports nothing of ours, carries a copy that a test compares with the table.

Layers are computed with the tensors' own methods, so that the command line can read the table without loading torch.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from geoglnet.config import suggestion
from geoglnet.errors import ConfigError
from geoglnet.legend import Legend

if TYPE_CHECKING:
    from torch import Tensor

SCALE = 254
"""What 1 becomes in a layer of fractions; 255 is for pixels without a class."""
SUFFIXES = (".tif", ".tiff")
"""Of the files that layers are written to: cloud-optimized GeoTIFFs, uint8, nodata 255."""
VECTOR = "vector"
"""Name of the one output that is no layer: polygons, traced from the labels."""

_NAME = re.compile(r"[a-z][a-z_]{0,12}")  # a folder's name too, of the length that `filenames.LONGEST_BESIDE` allows for


def _one_band(legend: Legend) -> tuple[str, ...]:
    return ("",)


@dataclass(frozen=True, slots=True)
class Layer:
    """One raster that a prediction can write: uint8, 255 where there is no class.

    >>> margin = Layer(
    ...     "margin",
    ...     lambda probabilities: probabilities.topk(2, dim=0).values.diff(dim=0).neg(),
    ...     "Write by how much the chosen class is more probable than the next one.",
    ... )
    >>> margin.option, margin.keyword
    ('--margin', 'margin_path')

    Args:
        name: a word of lower-case letters, with underscores.
        compute: from ``(K, h, w)`` float32 probabilities, which it leaves as they are, to ``(bands, h, w)`` values: uint8
            class numbers, or fractions from 0 to 1, which are stored times 254.
        help: what the option does, in one sentence.
        bands: names of the bands by the model's legend, one empty name for a single band that needs none.
        is_categorical: whether values are class numbers: the raster gets the legend's colors and names, and pyramid levels
            by majority instead of averages.
        short_option: one letter with its dash, beside :attr:`option`.

    Raises:
        ConfigError: the name is of another kind.
    """

    name: str
    compute: Callable[[Tensor], Tensor]
    help: str
    bands: Callable[[Legend], tuple[str, ...]] = _one_band
    is_categorical: bool = False
    short_option: str = ""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or self.name in (VECTOR, "scene"):  # whose keywords are taken
            raise ConfigError(f"{self.name!r} is no name of a layer; use up to 13 lower-case letters and underscores")

    @property
    def option(self) -> str:
        """Name the command line's option for the file to write."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def keyword(self) -> str:
        """Name the keyword of :func:`geoglnet.predict` for the file to write."""
        return f"{self.name}_path"


def winners(probabilities: Tensor) -> Tensor:
    """Choose the class with the largest of ``(K, h, w)`` values, the first of equals: ``(h, w)`` uint8.

    Class by class: ``argmax`` over the first dimension took a tenth of a whole run of the smallest networks on a CPU.
    """
    best = probabilities[0].clone()
    labels = best.new_zeros(best.shape).byte()
    for label in range(1, len(probabilities)):
        labels.masked_fill_(probabilities[label] > best, label)
        best.clamp_(min=probabilities[label])
    return labels


def told_apart(probabilities: Tensor) -> Tensor:
    """Lower ``(K, h, w)`` probabilities by one step of storage where rounding would hide which class wins.

    Two classes may be stored as the same number; whoever takes the largest then takes the first. Only classes before the winner
    are lowered, so that the first of the largest is the label everywhere.
    """
    labels = winners(probabilities)
    best = (probabilities.amax(dim=0) * SCALE).round_()
    apart, lowered = probabilities.clone(), (best - 1) / SCALE
    for label in range(len(probabilities) - 1):
        is_equal = (labels > label) & ((probabilities[label] * SCALE).round_() == best)
        # Everywhere, then chosen: to pick out pixels by a mask, the host waits for a GPU to count them.
        apart[label].copy_(lowered.where(is_equal, apart[label]))
    return apart


def normalized_entropy(probabilities: Tensor) -> Tensor:
    """Compute the entropy of ``(K, h, w)`` probabilities as a fraction of that of K equal ones: ``(h, w)`` from 0 to 1."""
    num_classes = len(probabilities)
    entropy = probabilities.new_zeros(probabilities.shape[1:])
    if num_classes < 2:
        return entropy
    for probability in probabilities:  # one by one: all at once would take as much memory again
        entropy -= probability.xlogy(probability)
    return entropy.div_(math.log(num_classes)).clamp_(0, 1)


LABELS = Layer(
    "labels",
    lambda probabilities: winners(probabilities)[None],
    "Write labels, as a cloud-optimized GeoTIFF.",
    is_categorical=True,
    short_option="-o",
)
CONFIDENCE = Layer(
    "confidence",
    lambda probabilities: probabilities.amax(dim=0, keepdim=True),
    "Write the probability of the chosen class.",
)
ENTROPY = Layer(
    "entropy",
    lambda probabilities: normalized_entropy(probabilities)[None],
    "Write the entropy of the class probabilities: how uncertain the model is.",
)
PROBABILITIES = Layer(
    "probabilities",
    told_apart,
    "Write the probability of every class, one band each.",
    bands=lambda legend: legend.names,
)

LAYERS = {layer.name: layer for layer in (LABELS, CONFIDENCE, ENTROPY, PROBABILITIES)}
"""All layers by name. Labels come first: every run computes them."""


def output_names() -> tuple[str, ...]:
    """List what a prediction can write, in the order of writing: labels, polygons, and the other layers."""
    first, *others = LAYERS
    return first, VECTOR, *others


def layer_named(name: str) -> Layer:
    """Look a layer up.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in LAYERS:
        raise ConfigError(f"unknown layer {name!r}{suggestion(name, tuple(LAYERS))}")
    return LAYERS[name]
