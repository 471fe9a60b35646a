"""Names that somebody else chose stay text in everything that is written: HTML, XML, SQL, figures, tables, a terminal."""

from __future__ import annotations

import csv
import io
import json
import re
import sqlite3
import unicodedata
import warnings
from contextlib import closing
from dataclasses import replace
from html.parser import HTMLParser
from itertools import count
from pathlib import Path
from xml.etree import ElementTree

import jinja2
import numpy as np
import pytest
import rasterio
from affine import Affine

import geoglnet
from geoglnet import escaping
from geoglnet.api.polygons import PolygonLayer
from geoglnet.api.prediction import Prediction
from geoglnet.api.report import Report
from geoglnet.api.training import Scores
from geoglnet.cli.terminal import JsonReporter, QuietReporter, TerminalReporter
from geoglnet.legend import Legend
from geoglnet.metrics import ConfusionMatrix
from geoglnet.prediction.seam_report import SeamReport
from geoglnet.raster.class_table import ClassTable
from geoglnet.raster.classnames import read_class_names
from geoglnet.raster.cog import read_legend, write_cog
from geoglnet.training.score_sheet import write_table
from geoglnet.training.scoring import Evaluation
from geoglnet.types import Shape
from geoglnet.vector.style import qml, sld
from tests.browser import CHROMIUM, opened
from tests.nasty import NASTY
from tests.rasters import write_raster

STORED = tuple(name for name in NASTY if "\ud800" not in name and "\x00" not in name)  # what another program may write
every_name = pytest.mark.parametrize("name", NASTY, ids=lambda name: ascii(name)[:24])
LEGAL = tuple(name for name in NASTY if len(name) < 256 and not re.search("[\x00-\x1f\x80-\x9f\ud800-\udfff]", name))
LEGEND = Legend(("ground", *LEGAL), tuple((n, 255 - n, 90) for n in range(len(LEGAL) + 1)), background=0)


class _Text(HTMLParser):
    """The text of a page, and its tags."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


@every_name
def test_html_shows_a_name_also_after_a_template_engine(name: str) -> None:
    page = jinja2.Template(f'<p title="{escaping.html(name)}">{escaping.html(name)}</p>').render()
    parsed = _Text(page)
    assert parsed.tags == ["p"]
    assert parsed.text == escaping.storable(name)


@every_name
def test_xml_and_sql_hold_a_name_as_it_is(name: str) -> None:
    root = ElementTree.fromstring(f'<a b="{escaping.xml(name)}">{escaping.xml(name)}</a>')
    assert root.text == escaping.storable(name)
    with closing(sqlite3.connect(":memory:")) as database:
        database.execute(f"CREATE TABLE {escaping.sql_name(name)} (x)")
        assert database.execute("SELECT name FROM sqlite_master").fetchall() == [(escaping.storable(name),)]


@every_name
def test_a_terminal_is_told_nothing_that_it_would_obey(name: str) -> None:
    shown = escaping.visible(name)
    assert not {unicodedata.category(character) for character in shown} & {"Cc", "Cs", "Zl", "Zp"}
    assert not {unicodedata.bidirectional(character) for character in shown} & {"RLO", "LRO", "RLE", "LRE", "RLI", "LRI", "FSI"}
    assert shown.encode("utf-8")
    assert escaping.visible(shown) == shown


@every_name
def test_every_reporter_says_a_name_on_one_line(name: str) -> None:
    for make in (QuietReporter, TerminalReporter, JsonReporter):
        stream = io.StringIO()
        reporter = make(stream)
        reporter.log(name)
        reporter.warn(name)
        reporter.done(name, {"path": Path(name.replace("\x00", "")), "scenes": {name: 0.5, "b": [name, None, True]}})
        assert stream.getvalue().count("\n") <= 3
        said = re.sub(r"\r\x1b\[2K", "", stream.getvalue())
        assert escaping.visible(name)[:40] in (
            said if make is not JsonReporter else json.loads(said.splitlines()[0])["message"]
        )
        assert json.dumps(said, ensure_ascii=False).encode("utf-8")
        if make is JsonReporter:
            assert json.loads(said.splitlines()[-1])["outputs"]["scenes"][escaping.encodable(name)] == 0.5


def test_a_program_that_reads_events_gets_no_half_of_a_pair() -> None:
    stream = io.StringIO()
    JsonReporter(stream).done("", {"vector": Path("caf\udce9.gpkg")})
    assert "\\ud" not in stream.getvalue()


@every_name
def test_a_spreadsheet_computes_nothing(name: str, tmp_path: Path) -> None:
    scores = {"scenes": {name: {name: 0.5}, "plain.tif": {name: 0.25}}, "total": {name: 0.375}, "conventions": {}}
    write_table(tmp_path / "scores.csv", scores)
    with (tmp_path / "scores.csv").open(newline="", encoding="utf-8") as opened:
        rows = list(csv.reader(opened))
    assert [len(row) for row in rows] == [2, 2, 2, 2]
    assert rows[2] == ["plain.tif", "0.250000"]
    assert not any(cell.startswith(("=", "+", "-", "@", "\t")) for row in rows for cell in row)
    assert rows[1][0].removeprefix("'") == escaping.storable(name).removeprefix("'")


def test_a_figure_draws_every_name_as_text(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from matplotlib.figure import Figure

    from geoglnet.api.figures import draw_legend

    figure = Figure(layout="constrained")
    axes = figure.subplots()
    axes.set_yticks(range(len(NASTY)), [escaping.figure_text(name) for name in NASTY])
    draw_legend(axes, dict.fromkeys(NASTY, "#123456"))
    figure.suptitle(escaping.figure_text(NASTY[8]))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)
        warnings.filterwarnings("ignore", "constrained_layout not applied", UserWarning)
        figure.savefig(tmp_path / "figure.svg")
    legend = axes.get_legend()
    assert legend is not None
    assert len(legend.get_texts()) == len(NASTY)
    assert not any(text.get_parse_math() and text._preprocess_math(text.get_text())[1] for text in legend.get_texts())
    assert escaping.figure_text("long " * 400).endswith("…")
    assert escaping.figure_text("building") == "building"


def test_styles_find_every_class_by_the_name_that_the_table_has(tmp_path: Path) -> None:
    layer = squares(tmp_path, LEGEND)
    found = list(layer.polygons()["class_name"])
    assert found == [escaping.storable(name) for name in LEGAL]
    categories = ElementTree.fromstring(qml(ClassTable.of(LEGEND).entries()).split("\n", 1)[1]).findall(".//category")
    assert [category.get("value") for category in categories] == found
    assert not [category for category in categories if "[%" in str(category.get("label"))]
    style = ElementTree.fromstring(sld(ClassTable.of(LEGEND).entries(), "a\x00<b>"))
    assert [element.text for element in style.iter() if element.tag.endswith("Literal")] == found


def test_label_rasters_keep_every_name(tmp_path: Path) -> None:
    source = write_raster(tmp_path / "source.tif", np.zeros((1, 32, 32), np.uint8), nodata=255)
    write_cog(source, tmp_path / "labels.tif", legend=LEGEND, tags={"GEOGLNET_SCENE": "".join(NASTY)})
    assert read_legend(tmp_path / "labels.tif") == LEGEND
    assert read_class_names(tmp_path / "labels.tif")[1:] == tuple(map(escaping.storable, LEGAL))
    with rasterio.open(tmp_path / "labels.tif") as src:
        assert src.tags()["GEOGLNET_SCENE"] == escaping.storable("".join(NASTY))


def squares(folder: Path, legend: Legend) -> PolygonLayer:
    """A square of every class but the first."""
    labels = np.zeros((1, 16, 8 * legend.num_classes), np.uint8)
    for value in range(1, legend.num_classes):
        labels[0, 4:10, 8 * value - 6 : 8 * value] = value
    return geoglnet.vectorize(write_raster(folder / "labels.tif", labels), folder / "polygons.gpkg", legend=legend)


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> PolygonLayer:
    """Polygons whose classes somebody else has named."""
    legend = Legend(tuple(f"c{n}" for n in range(len(STORED) + 1)), ((9, 9, 9),) * (len(STORED) + 1), background=0)
    layer = squares(tmp_path_factory.mktemp("foreign"), legend)
    with closing(sqlite3.connect(layer.path)) as database, database:
        for function in ("ST_IsEmpty", "ST_MinX", "ST_MaxX", "ST_MinY", "ST_MaxY"):
            database.create_function(function, 1, lambda _: None)
        database.executemany("UPDATE polygons SET class_name = ? WHERE class_id = ?", zip(STORED, count(1), strict=False))
    return replace(layer, legend=None)


COLLECTS = """
<script>
window.addEventListener("load", () => setTimeout(() => {
  const shown = [...document.querySelectorAll(".leaflet-control-layers-overlays label, .legend div")];
  shown.push(...content.class_of.keys().map(attributes));
  shown.forEach((place) => document.body.append(place));
  const texts = document.createElement("pre");
  texts.id = "texts";
  texts.textContent = encodeURIComponent(JSON.stringify(shown.map((place) => place.textContent)));
  document.body.append(texts);
}, 200));
</script>
"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium to run a page's scripts (Debian: apt-get install chromium)")
@pytest.mark.parametrize("is_escaped", [True, False], ids=["escaped", "as_it_was"])
def test_a_browser_runs_no_script_in_a_map_or_a_report(is_escaped: bool, foreign: PolygonLayer, tmp_path: Path) -> None:
    page = foreign.explore().html
    if not is_escaped:  # the canary does sing
        assert "element.textContent = name" in page
        page = page.replace("element.textContent = name", "element.innerHTML = name")
    confusion = ConfusionMatrix(LEGEND)
    scores = Scores(NASTY[2], Evaluation(LEGEND, dict.fromkeys(STORED, confusion)))
    sizes = (Shape(8, 8), None, Affine.identity(), SeamReport(0.0, 0.0, 0.0), 1.0)
    paths = {"labels": Path(STORED[1])}
    predicted = Prediction(paths, 1, *sizes, STORED, LEGEND, NASTY[2], rules=STORED, warnings=STORED)
    reports = [
        Report(NASTY[1], dict(zip(NASTY, reversed(NASTY), strict=True)), NASTY),
        replace(foreign, labels_path=Path(STORED[2]), notes=STORED).report,
        scores.report,
        predicted.report,
    ]
    tables = [foreign.polygons(), scores.table()]
    shown = "".join(thing._repr_html_() for thing in (*reports, *tables))
    dom = opened(page.replace("</body>", f"{shown}{COLLECTS}</body>", 1), tmp_path)
    assert ("<title>pwned</title>" not in dom) is is_escaped
    if is_escaped:
        assert_names_are_shown(dom)


def assert_names_are_shown(dom: str) -> None:
    from urllib.parse import unquote

    found = re.search(r'<pre id="texts">([^<]*)</pre>', dom)
    assert found is not None
    texts: list[str] = json.loads(unquote(found[1]))
    names = {escaping.storable(name) for name in STORED}
    assert names <= {text.strip("\r") for text in texts}  # the list of layers
    tooltips = " ".join(" ".join(text.split()) for text in texts)
    assert all(" ".join(name.split()) in tooltips for name in names)
    assert "49" not in re.sub(r"area_m2.*?confidence", "", tooltips)
