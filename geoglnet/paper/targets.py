"""The paper's tables and figures as things that can be asked for by name, and which data they can be made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from geoglnet.config import suggestion
from geoglnet.errors import ConfigError
from geoglnet.legend import Legend
from geoglnet.message import Keyword
from geoglnet.paper import published
from geoglnet.paper.published import Row
from geoglnet.paper.systems import System, find_system


class Data(Enum):
    """The paper's data sets."""

    DEEPGLOBE = "deepglobe"
    ISIC = "isic"
    INRIA = "inria"

    @property
    def convention(self) -> str:
        """Name the score that the paper prints of it, as :func:`~geoglnet.metrics.conventions` calls it."""
        # Footnote 6: an image whose IoU is below 0.65 scores 0.
        return "image_iou_65" if self is Data.ISIC else "mean_iou"


_CLASSES = {"urban", "agriculture", "rangeland", "forest", "water", "barren"}
_WANTED = {
    Data.DEEPGLOBE: "DeepGlobe's classes (urban, agriculture, rangeland, forest, water, barren)",
    Data.ISIC: "a background and one other class, such as ISIC's lesion",
    Data.INRIA: "a background and buildings, as Inria's",
}


class Kind(Enum):
    """What is drawn or written."""

    TABLE = "table"
    SCATTER = "scatter"
    PANELS = "panels"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Target:
    """A table or figure of the paper.

    Args:
        name: as it is asked for.
        title: as it is headed.
        kind: what it is.
        data: the data set that the paper made it of.
        rows: systems in the paper's order, with what it printed.
        sweeps: ``"overview"`` or ``"patch"`` where sizes are swept.
    """

    name: str
    title: str
    kind: Kind
    data: Data
    rows: tuple[Row, ...]
    sweeps: str = ""

    def systems(self, sizes: Sequence[int] = ()) -> list[System]:
        """List the systems it compares; where sizes are swept, every swept baseline at every size."""
        if not self.sweeps:
            return [find_system(row.system) for row in self.rows]
        ending = "global" if self.sweeps == "overview" else "patches"
        swept = [find_system(f"{name}-{ending}@{size}") for name in published.SWEPT for size in sizes]
        return [*swept, *(find_system(row.system) for row in self.rows)]

    def check(self, legend: Legend, *, is_own_data: bool = False) -> None:
        """Refuse a configuration with other data than the paper's, whose numbers would stand beside other tasks'.

        Args:
            legend: of the configuration.
            is_own_data: the user knows, and the paper's numbers are left out; only what cannot work is refused.

        Raises:
            ConfigError: the classes are not those of the data set.
        """
        is_binary = legend.num_classes == 2 and legend.background is not None
        fits = {
            # A superset: a configuration may keep "unknown" as a class, as the authors do.
            Data.DEEPGLOBE: set(legend.names) >= _CLASSES,
            Data.ISIC: is_binary and "building" not in legend.names,
            Data.INRIA: is_binary and "building" in legend.names,
        }
        # A box needs a foreground, on people's own data too.
        needs_foreground = self.kind is Kind.HISTOGRAM or any("coarse" in row.system for row in self.rows)
        if (needs_foreground and not is_binary) or not (fits[self.data] or is_own_data):
            message = (
                f"{self.name} needs {_WANTED[self.data]}; the configuration's classes are {', '.join(legend.names)}. "
                "Give a configuration of that data set"
            )
            if not needs_foreground or is_binary:
                message += ", or pass " + Keyword("own_data", True) + " to leave out the paper's numbers"
            raise ConfigError(message)


_GLNET = (published.TABLE3[-2], published.TABLE3[-1])
TARGETS = {
    target.name: target
    for target in (
        Target("table2", "Table 2: sharing strategies", Kind.TABLE, Data.DEEPGLOBE, published.TABLE2),
        Target("table3", "Table 3: accuracy and memory", Kind.TABLE, Data.DEEPGLOBE, published.TABLE3),
        Target("table4", "Table 4: coarse-to-fine", Kind.TABLE, Data.ISIC, published.TABLE4),
        Target("table5", "Table 5: ISIC", Kind.TABLE, Data.ISIC, published.TABLE5),
        Target("table7", "Table 7: Inria Aerial", Kind.TABLE, Data.INRIA, published.TABLE7),
        Target("figure1a", "Figure 1(a): best of each", Kind.SCATTER, Data.DEEPGLOBE, published.FIGURE1A),
        Target("figure1b", "Figure 1(b): sizes of the global image", Kind.SCATTER, Data.DEEPGLOBE, _GLNET, "overview"),
        Target("figure1c", "Figure 1(c): sizes of patches", Kind.SCATTER, Data.DEEPGLOBE, _GLNET, "patch"),
        Target(
            "figure7",
            "Figure 7: from branches to GLNet",
            Kind.PANELS,
            Data.DEEPGLOBE,
            tuple(row for name in published.FIGURE7 for row in published.TABLE2 if row.system == name),
        ),
        Target("figure8", "Figure 8: foreground to background", Kind.HISTOGRAM, Data.ISIC, published.TABLE4[:1]),
    )
}


def find_target(name: str) -> Target:
    """Find a table or figure by name.

    Raises:
        ConfigError: there is none; the nearest is suggested.
    """
    if name not in TARGETS:
        raise ConfigError(f"unknown table or figure {name!r}{suggestion(name, tuple(TARGETS))}")
    return TARGETS[name]
