"""Tables and figures of figures that are known, without any training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from geoglnet.errors import ConfigError
from geoglnet.legend import Legend
from geoglnet.paper.drawing import Panel, draw_balance, draw_panels, draw_scatter
from geoglnet.paper.panels import zooms
from geoglnet.paper.published import FIGURE1A, TABLE3, Row, best_published
from geoglnet.paper.sheet import Line, columns, iter_markdown, spread, write_csv
from geoglnet.paper.systems import find_system, weights_for
from geoglnet.paper.tables import best_lines
from geoglnet.paper.targets import find_target

MEMORY = {"device": "cpu", "region_size": 2448, "idle_mb": 900.0, "memory_mb": 400.0, "mpx_per_s": 0.5,
          "cpu_s_per_mpx": 2.0, "mpx_per_s_with_files": 0.4}  # fmt: skip


def line(name: str, *scores: float, row: Row | None = None, memory: float | None = 400.0) -> Line:
    known = {
        seed: {"conventions": {"mean_iou": score}, "total": {"water": score}, "steps": 10, "parameters": 2_000_000}
        for seed, score in enumerate(scores)
    }
    system = find_system(name)
    published = row or next((r for r in FIGURE1A if r.system == name), Row(name, system.title))
    return Line(system, published, known, {} if memory is None else MEMORY | {"memory_mb": memory}, 10)


def test_seeds_become_a_mean_and_the_spread_of_a_sample() -> None:
    assert spread([]) == "–"
    assert spread([50.04]) == "50.0"
    assert spread([50.0, 52.0, 54.0]) == "52.0 ± 2.0"
    assert columns(line("one-way", 0.5, 0.54), "mean_iou")["mIoU %, here"] == "52.0 ± 2.8"


def test_a_table_says_why_a_line_is_empty_and_what_memory_is() -> None:
    failed = Line(find_system("segnet-global"), TABLE3[7], {}, {}, 10, "segnet needs 5.1 GB")
    text = "\n".join(iter_markdown([line("one-way", 0.5), failed], "mean_iou"))
    assert "* SegNet, global: segnet needs 5.1 GB." in text
    assert "the process's peak over its 900 MB when idle" in text
    assert "| SegNet, global | 61.2 | – | – |" in text


def test_on_cuda_the_allocators_figures_and_the_bare_context_stand_there_too() -> None:
    cuda = MEMORY | {"device": "NVIDIA T4", "allocated_mb": 300.0, "reserved_mb": 350.0, "idle_mb": 180.0}
    text = "\n".join(iter_markdown([Line(find_system("one-way"), TABLE3[-2], {}, cuda, 10)], "mean_iou"))
    assert "| allocated MB | reserved MB |" in text
    assert "| 400 | 300 | 350 |" in text
    assert "on NVIDIA T4: the process's memory over the bare context's 180 MB" in text


def test_a_csv_has_a_row_per_seed_and_one_for_what_failed(tmp_path: Path) -> None:
    failed = Line(find_system("segnet-global"), TABLE3[7], {}, {}, 10, "too large")
    write_csv(tmp_path / "t.csv", [line("one-way", 0.5, 0.6), failed], "mean_iou")
    head, *rows = (tmp_path / "t.csv").read_text().splitlines()
    assert head.startswith("system,paper_miou,paper_memory_mb,miou,seed")
    assert len(rows) == 3
    assert rows[2].startswith("segnet-global,61.2,10339")


def test_figure_1a_takes_the_better_inference_of_each() -> None:
    lines = [line("unet-patches", 0.6), line("unet-global", 0.5), line("one-way", 0.7)]
    best = best_lines(lines, "mean_iou")
    assert [one.system.name for one in best] == ["unet-patches", "one-way"]
    assert best[0].row.miou == 38.4  # the paper's better one, which was the other
    assert {title: row.miou for title, row in best_published().items()}["FCN-8s"] == 70.1


def texts(figure: Figure) -> set[str]:
    return {text.get_text() for axis in figure.axes for text in axis.texts}


def test_a_swept_size_is_annotated_with_its_scale_and_joined_by_a_line() -> None:
    lines = [line(f"icnet-global@{size}", 0.3 + size / 9000, memory=size / 2) for size in (500, 1000, 2448)]
    sizes = {one.system.name: one.system.size / 2448 for one in lines}
    figure = draw_scatter("1b", [*lines, line("one-way", 0.7)], "mean_iou", sizes)
    assert texts(figure) >= {"×0.2", "×0.41", "×1", "GLNet: G → L"}
    assert [len(curve.get_xdata()) for curve in figure.axes[0].lines] == [3]
    assert len(figure.axes) == 2  # GLNet's published point beside ours


def test_lines_without_memory_or_score_are_left_out_of_the_picture() -> None:
    figure = draw_scatter("1a", [line("one-way", 0.7), line("unet-patches"), line("global", 0.6, memory=None)], "mean_iou", {})
    assert len(figure.axes[0].collections) == 1


def test_the_histogram_says_both_medians() -> None:
    figure = draw_balance("8", [0.1, 0.2, 0.3], [0.8, 1.0, 5.0])
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels == ["whole regions, median 0.20", "inside the box, median 1.00"]


def test_zooms_lie_where_the_first_errs_and_the_last_does_not_and_do_not_touch() -> None:
    truth = np.zeros((300, 300), np.uint8)
    worse, better = truth.copy(), truth.copy()
    worse[20:60, 200:240] = 1
    worse[200:230, 30:60] = 1
    better[100:150, 100:150] = 1
    first, second = zooms(truth, worse, better)
    for place, rows, cols in ((first, (20, 60), (200, 240)), (second, (200, 230), (30, 60))):
        assert place[0].start <= rows[0] < rows[1] <= place[0].stop
        assert place[1].start <= cols[0] < cols[1] <= place[1].stop


def test_weights_of_a_backbone_of_its_own_lie_beside_the_configurations() -> None:
    assert weights_for("vgg16", "weights/mobilenet_v2.safetensors") == "weights/vgg16.safetensors"
    assert weights_for("vgg16", "imagenet") == "imagenet"
    assert weights_for("vgg16", "") == ""
    assert weights_for("resnet50_half", "imagenet") == ""


LANDCOVER = Legend(("urban", "agriculture", "rangeland", "forest", "water", "barren"), tuple((i, i, i) for i in range(6)))
LESIONS = Legend(("background", "lesion"), ((0, 0, 0), (1, 1, 1)), background=0)
BUILDINGS = Legend(("background", "building"), ((0, 0, 0), (1, 1, 1)), background=0)


@pytest.mark.parametrize(
    ("name", "fits"),
    [("table2", LANDCOVER), ("table3", LANDCOVER), ("table4", LESIONS), ("table5", LESIONS), ("table7", BUILDINGS),
     ("figure1a", LANDCOVER), ("figure1b", LANDCOVER), ("figure1c", LANDCOVER), ("figure7", LANDCOVER), ("figure8", LESIONS)],
)  # fmt: skip
def test_tables_take_the_data_that_the_paper_made_them_of(name: str, fits: Legend) -> None:
    target = find_target(name)
    target.check(fits)
    for other in (LANDCOVER, LESIONS, BUILDINGS):
        if other is not fits:
            with pytest.raises(ConfigError, match=f"{name} needs .* Give a configuration of that data set"):
                target.check(other)
    target.check(BUILDINGS, is_own_data=True)


def test_a_box_needs_a_foreground_whatever_the_data() -> None:
    for name in ("table4", "figure8"):
        with pytest.raises(ConfigError, match="a background and one other class"):
            find_target(name).check(LANDCOVER, is_own_data=True)


def test_an_unknown_system_gets_the_nearest() -> None:
    with pytest.raises(ConfigError, match="unknown system 'unet-patch'; did you mean 'unet-patches'"):
        find_system("unet-patch")


def test_a_frame_at_the_edge_does_not_widen_the_picture() -> None:
    panels = [Panel(title, np.zeros((90, 120, 3), np.uint8)) for title in ("scene", "truth")]
    figure = draw_panels("7", panels, [(slice(60, 90), slice(90, 120))])
    assert [axes.get_xlim() for axes in figure.axes[:2]] == [(-0.5, 119.5)] * 2
    assert figure.axes[0].get_ylim() == (89.5, -0.5)
