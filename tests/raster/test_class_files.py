"""Names and colors of codes, from files and from what rasters carry."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio

from geoglnet.errors import LegendError, SceneNotFoundError
from geoglnet.legend import Legend
from geoglnet.progress import RecordedProgress
from geoglnet.raster.class_files import read_class_file
from geoglnet.raster.class_table import ClassTable, read_class_table
from geoglnet.vector.class_choice import choose_classes
from geoglnet.vector.style import qml, sld
from geoglnet.vector.tiles import DatasetTiles
from tests.rasters import write_raster

NAMES = {111: "spruce", -5: "bog & moor", 9022: "oak"}
COLORS = {111: (0, 90, 40), -5: (120, 80, 20), 9022: (10, 200, 30)}

FILES = {
    "a.csv": "code,name,color\n111,spruce,#005a28\n-5,bog & moor,#785014\n9022,oak,#0ac81e\n",
    "b.csv": "Value;Red;Green;Blue;Label\n111;0;90;40;spruce\n-5;120;80;20;bog & moor\n9022;10;200;30;oak\n",
    "c.txt": "# no header\n111\tspruce\t0 90 40\n-5\tbog & moor\t120 80 20\n9022\toak\t10 200 30\n",
    "d.toml": "classes = [{value=111, name='spruce', color=[0,90,40]}, {value=-5, name='bog & moor', color=[120,80,20]}, "
    "{value=9022, name='oak', color=[10,200,30]}]",
    "e.qml": '<qgis><pipe><rasterrenderer type="paletted"><colorPalette>'
    '<paletteEntry value="111" color="#005a28" label="spruce"/>'
    '<paletteEntry value="-5" color="#785014" label="bog &amp; moor" alpha="255"/>'
    '<paletteEntry value="9022" color="#0ac81e" label="oak"/></colorPalette></rasterrenderer></pipe></qgis>',
    "f.qml": '<qgis><renderer-v2><categories><category symbol="0" value="111" label="spruce"/>'
    '<category symbol="1" value="-5" label="bog &amp; moor"/><category symbol="2" value="9022" label="oak"/>'
    '<category symbol="0" value="" label=""/></categories><symbols>'
    + "".join(
        f'<symbol name="{number}"><layer><Option type="Map"><Option name="color" value="{r},{g},{b},255,rgb:0,0,0,1"/></Option>'
        "</layer></symbol>"
        for number, (r, g, b) in enumerate(COLORS.values())
    )
    + "</symbols></renderer-v2></qgis>",
    "g.sld": '<StyledLayerDescriptor xmlns="http://www.opengis.net/sld"><ColorMap type="values">'
    '<ColorMapEntry quantity="111" color="#005a28" label="spruce"/><ColorMapEntry quantity="-5.0" color="#785014" '
    'label="bog &amp; moor"/><ColorMapEntry quantity="9022" color="#0ac81e" label="oak"/></ColorMap></StyledLayerDescriptor>',
}


@pytest.mark.parametrize("name", FILES)
def test_every_format_gives_the_same_table(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(FILES[name], encoding="utf-8")
    table = read_class_file(tmp_path / name)
    assert (dict(table.names), dict(table.colors)) == (NAMES, COLORS)


def test_our_own_legend_and_configuration_are_read(tmp_path: Path) -> None:
    text = "classes = [{name='ground', color=[1,2,3]}, {name='roof', color=[4,5,6]}]\nbackground = 0\n"
    (tmp_path / "legend.toml").write_text(text)
    (tmp_path / "config.toml").write_text(f"name = 'x'\n[legend]\n{text}")
    for name in ("legend.toml", "config.toml"):
        table = read_class_file(tmp_path / name)
        assert (dict(table.names), table.background) == ({0: "ground", 1: "roof"}, 0)


@pytest.mark.parametrize(
    "text", ["", "spam\n", "code,name\nx,water\n", "code,name\n1,water\n1,forest\n", "code,name\n1.5,water\n"]
)
def test_files_that_name_no_codes_are_refused_in_one_line(tmp_path: Path, text: str) -> None:
    for name in ("a.csv", "a.toml", "a.qml", "a.sld"):
        (tmp_path / name).write_text(text)
        with pytest.raises(LegendError) as caught:
            read_class_file(tmp_path / name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(SceneNotFoundError):
        read_class_file(tmp_path / "none.csv")


def test_a_style_of_ours_by_name_names_no_codes(tmp_path: Path) -> None:
    entries = ClassTable(NAMES, COLORS).entries()
    for name, text in (("a.qml", qml(entries)), ("a.sld", sld(entries, "layer"))):
        (tmp_path / name).write_text(text)
        with pytest.raises(LegendError, match="names no codes"):
            read_class_file(tmp_path / name)


TABLE = """<PAMDataset><PAMRasterBand band="1"><GDALRasterAttributeTable tableType="thematic">
<FieldDefn index="0"><Name>VALUE</Name><Type>0</Type><Usage>{usage}</Usage></FieldDefn>
<FieldDefn index="1"><Name>Count</Name><Type>0</Type><Usage>1</Usage></FieldDefn>
<FieldDefn index="2"><Name>Class_Name</Name><Type>2</Type><Usage>{name}</Usage></FieldDefn>
<FieldDefn index="3"><Name>Red</Name><Type>1</Type><Usage>6</Usage></FieldDefn>
<FieldDefn index="4"><Name>Green</Name><Type>1</Type><Usage>7</Usage></FieldDefn>
<FieldDefn index="5"><Name>Blue</Name><Type>1</Type><Usage>8</Usage></FieldDefn>
<Row index="0"><F>111</F><F>3</F><F>spruce</F><F>0</F><F>128</F><F>255</F></Row>
<Row index="1"><F>523</F><F>3</F><F>oak</F><F>255</F><F>0</F><F>0</F></Row>
<Row index="2"><F>524</F><F>3</F><F>oak</F><F>255</F><F>0</F><F>0</F></Row>
</GDALRasterAttributeTable></PAMRasterBand></PAMDataset>"""


@pytest.mark.parametrize(("usage", "name"), [(5, 2), (0, 0)])
def test_an_attribute_table_names_codes_by_usage_or_by_its_columns_names(tmp_path: Path, usage: int, name: int) -> None:
    path = write_raster(tmp_path / "codes.tif", np.array([[[111, 523, 7]]], np.uint16))
    Path(f"{path}.aux.xml").write_text(TABLE.format(usage=usage, name=name))
    with rasterio.open(path) as src:
        table, is_named = read_class_table(src)
    assert is_named
    assert dict(table.names) == {111: "spruce", 523: "oak (523)", 524: "oak (524)"}
    assert table.colors[111] == (0, 128, 255)
    assert table.background is None
    assert read_class_file(path) == table


def test_a_raster_without_names_has_0_as_background_and_keeps_its_colors(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "codes.tif", np.array([[[1, 2]]], np.uint8))
    with rasterio.open(path, "r+") as dst:
        dst.write_colormap(1, {2: (1, 2, 3, 255)})
    with rasterio.open(path) as src:
        table, is_named = read_class_table(src)
    assert (is_named, table.background, table.color_of(2)) == (False, 0, (1, 2, 3))
    with pytest.raises(LegendError, match="names no classes"):
        read_class_file(path)


def test_two_legends_that_disagree_are_told_and_the_given_one_wins(tmp_path: Path) -> None:
    path = write_raster(tmp_path / "codes.tif", np.array([[[111, 523]]], np.uint16))
    Path(f"{path}.aux.xml").write_text(TABLE.format(usage=5, name=2))
    progress = RecordedProgress()
    with rasterio.open(path) as src:
        table, _ = choose_classes(DatasetTiles(src), ClassTable({111: "fir", 523: "oak (523)"}), progress)
    assert table.name_of(111) == "fir"
    (warning,) = progress.messages("warning")
    assert "the legend calls 111 'fir'" in warning
    assert "calls it 'spruce'" in warning


def test_a_legend_becomes_a_table() -> None:
    legend = Legend(("ground", "roof"), ((1, 2, 3), (4, 5, 6)), background=0)
    assert ClassTable.of(legend).entries([7]) == [("roof", (4, 5, 6)), ("class 7", ClassTable().color_of(7))]
