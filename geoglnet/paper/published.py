"""What the paper printed (Chen et al., CVPR 2019, Tables 2 to 5 and 7): percent, and MB of GPU memory by gpustat."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """A row of one of the paper's tables.

    Args:
        system: name of our system that it is of.
        title: as the paper calls it.
        miou: the paper's score in percent; ``None`` for what it does not have.
        memory_mb: the paper's memory.
    """

    system: str
    title: str
    miou: float | None = None
    memory_mb: float | None = None


TABLE2 = (
    # The text of §4.2.1 has these two the other way round; others measured 63 to 64 for the authors' global branch.
    Row("local", "Local only", 57.3, 1189),
    Row("global", "Global only", 66.4, 1189),
    Row("agg", "GLNet: Agg", 69.3, 1189),
    Row("agg-fmreg", "GLNet: Agg, Fmreg", 70.3, 1209),
    Row("shallow", "GLNet: Agg, Fmreg, G → L shallow", 70.5, 1251),
    Row("one-way", "GLNet: Agg, Fmreg, G → L deep", 70.9, 1395),
    Row("bidirectional", "GLNet: Agg, Fmreg, G ⇌ L deep", 71.6, 1865),
)
TABLE3 = (
    Row("unet-patches", "UNet, patches", 37.3, 949),
    Row("unet-global", "UNet, global", 38.4, 5507),
    Row("icnet-patches", "ICNet, patches", 35.5, 1195),
    Row("icnet-global", "ICNet, global", 40.2, 2557),
    Row("pspnet-patches", "PSPNet, patches", 53.3, 1513),
    Row("pspnet-global", "PSPNet, global", 56.6, 6289),
    Row("segnet-patches", "SegNet, patches", 60.8, 1139),
    Row("segnet-global", "SegNet, global", 61.2, 10339),
    Row("deeplabv3plus-patches", "DeepLabv3+, patches", 63.1, 1279),
    Row("deeplabv3plus-global", "DeepLabv3+, global", 63.5, 3199),
    Row("fcn8s-patches", "FCN-8s, patches", 64.3, 1963),
    Row("fcn8s-global", "FCN-8s, global", 70.1, 5227),
    Row("one-way", "GLNet: G → L", 70.9, 1395),
    Row("bidirectional", "GLNet: G ⇌ L", 71.6, 1865),
)
TABLE4 = (
    # 72.7 in the text of §4.3.1, which the table gives to G → L.
    Row("global", "Global only", 70.1),
    Row("local", "Local only", 48.5),
    Row("one-way", "GLNet: G → L", 72.7),
    Row("coarse-one-way", "GLNet: G → L, Bbox", 73.9),
    Row("coarse-to-fine", "GLNet: G ⇌ L, Bbox", 75.2),
)
TABLE5 = (
    Row("icnet-global", "ICNet", 33.8, 1593),
    Row("segnet-global", "SegNet", 37.1, 4213),
    Row("deeplabv3plus-global", "DeepLabv3+", 70.5, 2033),
    Row("fcn8s-global", "FCN-8s", 42.8, 5238),
    Row("coarse-to-fine", "GLNet", 75.2, 1921),
)
TABLE7 = (
    Row("icnet-global", "ICNet", 31.1, 2379),
    Row("deeplabv3plus-global", "DeepLabv3+", 55.9, 4323),
    Row("fcn8s-global", "FCN-8s", 61.6, 8253),
    # The authors' code leaves class 0 out of the mean, so this is the IoU of buildings alone.
    Row("bidirectional", "GLNet", 71.2, 2663),
)
# Panels (3) to (7): Fig. 7 shows the global branch first, Table 2 the local one.
FIGURE7 = ("global", "local", "agg-fmreg", "shallow", "bidirectional")
SWEPT = ("fcn8s", "icnet")
"""What Figs. 1(b) and 1(c) sweep sizes of, beside GLNet."""


# A branch alone is a plain FPN (§3.1), which Table 3 does not repeat.
FIGURE1A = (*TABLE3, Row("local", "FPN, patches", 57.3, 1189), Row("global", "FPN, global", 66.4, 1189))


def family(title: str) -> str:
    """Return the method of a row, whatever its inference."""
    return title.partition(",")[0]


def best_published() -> dict[str, Row]:
    """Choose the points of Fig. 1(a): of each method the better of its two inferences."""
    best: dict[str, Row] = {}
    # The best of a method comes last and stays.
    for row in sorted(FIGURE1A, key=lambda row: row.miou or 0):
        best[family(row.title)] = row
    return best
