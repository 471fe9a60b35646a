"""Command lines that the plugin writes are ones that the program reads."""

from __future__ import annotations

import tomllib
from pathlib import Path

import click
import pytest
from geoglnet_qgis.command import (
    JOURNAL,
    KINDS,
    LAYERS,
    UNFINISHED,
    Adaptation,
    Segmentation,
    Shaping,
    Values,
    remove_unfinished,
    report_of,
    savepoint_of,
    train_words,
    unfinished,
    vectorize_words,
)
from geoglnet_qgis.configuration import CONFIGURATION, SIZES, Pair, Training, colors_for, is_own_folder
from geoglnet_qgis.program import missing_options
from hypothesis import given
from hypothesis import strategies as st

from geoglnet.cli.main import geoglnet
from geoglnet.datasets.sources import ImagesSource, RastersSource
from geoglnet.prediction import layers
from geoglnet.prediction.journal import JOURNAL as PROGRAMS_JOURNAL
from geoglnet.prediction.workspace import SUFFIX
from geoglnet.training.savepoint import savepoint_path
from geoglnet.training.train_config import read_config
from tests.nasty import NASTY

pytestmark = pytest.mark.smoke

ODD = "/tmp/Straße мир/a b -o.tif"


def parsed(words: list[str]) -> dict[str, object]:
    """What the program's own parser makes of a command line."""
    verb, *arguments = words
    command = geoglnet.get_command(click.Context(geoglnet), verb)
    assert command is not None
    group = click.Context(geoglnet, **geoglnet.context_settings)  # click keeps the first help option that a command makes
    return command.make_context(verb, [word for word in arguments if word != "--stop-on-stdin-eof"], parent=group).params


def known_options(verb: str) -> set[str]:
    command = geoglnet.get_command(click.Context(geoglnet), verb)
    assert command is not None
    return {option for param in command.params for option in param.opts}


def test_a_plain_segmentation_is_read_by_the_program() -> None:
    found = parsed(Segmentation(ODD, "buildings", {"labels": "/x/l.tif"}, "/x/p.gpkg").words())
    assert found["scenes"] == (ODD,)
    assert (found["labels"], found["vector"]) == (Path("/x/l.tif"), Path("/x/p.gpkg"))
    assert found["overwrite"] is False
    assert found["device"] == "auto"


@pytest.mark.parametrize("kind", KINDS)
def test_what_values_mean_is_read_by_the_program(kind: str) -> None:
    values = Values(kind, 2, "-5,0.5", ODD, "-9999", "/c.tif")
    words = vectorize_words(ODD, "/x/p.gpkg", Shaping(), values=values)
    assert not missing_options(words, known_options("vectorize"))
    found = parsed(words)
    is_object = kind in ("objects", "parts")
    assert (found["instances"], found["parts"], found["argmax"]) == (is_object, kind == "parts", kind == "probabilities")
    assert found["breaks"] == ((-5.0, 0.5) if kind == "quantities" else ())
    assert found["band"] == (None if kind == "probabilities" else 2)
    assert (found["background"], found["legend"]) == (-9999, Path(ODD))
    assert found["class_of"] == (Path("/c.tif") if is_object else None)


def test_what_was_not_asked_for_is_left_to_the_program() -> None:
    words = Segmentation("/a.tif", "buildings", {"labels": "/l.tif", "entropy": ""}).words()
    assert not {
        "--vector",
        "--entropy",
        "--bounds",
        "--mask",
        "--batch",
        "--effort",
        "--min-area",
        "--bands",
        "--with",
        "--pixel-size",
        "--resume",
        "--overwrite",
    } & set(words)


def test_everything_can_be_asked_for() -> None:
    words = Segmentation(
        scene="/a.tif",
        model="/m.safetensors",
        layers={name: f"/{name}.tif" for name in LAYERS},
        polygons="/p.gpkg",
        bounds=(-12.5, 1e-7, 3.0, 4e7),
        area="/area.gpkg",
        shaping=Shaping(0.5, 20, True, "px"),
        device="cuda:1",
        batch=8,
        effort=0.25,
        pixel_size_m=0.1,
        bands="nir,red,green",
        beside=("height=/d s/dsm.tif", "slope=/s=1.tif"),
        is_resumed=True,
        replaces=True,
    ).words()
    assert not missing_options(words, known_options("predict"))
    found = parsed(words)
    assert found["bounds"] == (-12.5, 1e-7, 3.0, 4e7)
    assert found["beside"] == {"height": "/d s/dsm.tif", "slope": "/s=1.tif"}
    assert (found["resume"], found["overwrite"], found["mask_path"]) == (True, True, Path("/area.gpkg"))
    start = words.index("--bounds")
    assert words[start + 1 : start + 5] == ["-12.5", "1e-07", "3", "40000000"]
    for option, value in {"--simplify": "0.5px", "--effort": "0.25", "--batch": "8", "--min-area": "20"}.items():
        assert words[words.index(option) + 1] == value
    assert "--regularize" in words


def test_the_plugin_offers_every_layer_of_the_programs_table() -> None:
    assert list(LAYERS) == list(layers.LAYERS)
    for name, layer in layers.LAYERS.items():
        words = Segmentation("/a.tif", "b", {name: "/x.tif"}).words()
        assert parsed(words)[name] == Path("/x.tif")
        assert layer.option in words


def test_a_program_without_an_option_is_found_out() -> None:
    words = Segmentation("/a.tif", "b", {"labels": "/l.tif"}, effort=0.5).words()
    assert missing_options(words, known_options("predict") - {"--effort"}) == ["--effort"]
    assert missing_options(words, known_options("predict") | {"--effort"}) == []


def test_vectorize_is_read_by_the_program() -> None:
    found = parsed(vectorize_words("/l.tif", "/p.gpkg", Shaping(min_area_m2=12.5), "/c.tif"))
    assert (found["raster"], found["vector"], found["min_area_m2"]) == ("/l.tif", Path("/p.gpkg"), 12.5)
    assert found["confidence"] == Path("/c.tif")
    assert not found["overwrite"]
    assert parsed(vectorize_words("/l.tif", "/p.gpkg", Shaping(), replaces=True))["overwrite"]


def test_train_is_read_by_the_program() -> None:
    found = parsed(train_words("/t.toml", "/folder", "/m.safetensors", ["optim.batch_size = 2", "name = x"]))
    assert found["overrides"] == {"optim.batch_size": 2, "name": "x"}
    assert found["data"] == Path("/folder")
    assert not found["resume"]
    assert not found["overwrite"]
    assert parsed(train_words("/t.toml", "/folder", "/m.safetensors", is_resumed=True))["resume"]
    assert parsed(train_words("/t.toml", "/folder", "/m.safetensors", replaces=True))["overwrite"]


def test_a_savepoint_is_found_where_the_program_keeps_it() -> None:
    for name in ("/a b/mein Modell.safetensors", "/a.b/v1.2.safetensors"):
        assert Path(savepoint_of(name)) == savepoint_path(Path(name))


@pytest.mark.parametrize("size", list(SIZES))
def test_a_configuration_of_every_size_is_read_by_the_program(size: str, tmp_path: Path) -> None:
    training = Training(
        "mine",
        0.25,
        {"roof": (1, 2, 3)},
        [Pair("a.vrt", "a.gpkg", "area.gpkg")],
        [Pair("b.vrt", "b.gpkg")],
        size=size,
        steps=(7, 9),
    )
    (tmp_path / "t.toml").write_text(training.to_toml(), encoding="utf-8")
    config = read_config(tmp_path / "t.toml")
    assert config.legend.names == ("background", "roof")
    assert config.legend.colors[1] == (1, 2, 3)
    assert (config.optim.global_steps, config.optim.local_steps, config.resolution_m) == (7, 9, 0.25)
    assert [source.images for source in (*config.train, *config.validation)] == ["a.vrt", "b.vrt"]
    source = config.train[0]
    assert isinstance(source, RastersSource)
    assert (source.class_column, source.area, source.unlabeled) == ("class", "area.gpkg", "background")


def test_a_scene_without_crs_is_trained_on_as_an_image(tmp_path: Path) -> None:
    training = Training("mine", 0.25, {"roof": (1, 2, 3)}, [Pair("a.vrt", "a.gpkg")], assumed_pixel_size_m=0.5)
    (tmp_path / "t.toml").write_text(training.to_toml(), encoding="utf-8")
    source = read_config(tmp_path / "t.toml").train[0]
    assert isinstance(source, ImagesSource)
    assert source.pixel_size_m == 0.5


def test_a_training_that_starts_from_a_model_takes_its_sizes_and_recipe(tmp_path: Path) -> None:
    training = Training("mine", 0.25, {"roof": (1, 2, 3)}, [Pair("a.vrt", "a.gpkg")], start="buildings", steps=(5, 7))
    (tmp_path / "t.toml").write_text(training.to_toml(), encoding="utf-8")
    read = read_config(tmp_path / "t.toml")
    assert (read.optim.start_from, read.optim.recipe, read.optim.local_steps) == ("buildings", "adapt", 7)
    assert (read.model.pyramid_channels, read.legend.names) == (64, ("background", "roof"))


def test_an_adaptation_becomes_words() -> None:
    asked = Adaptation("buildings", "/s.tif", "/d.gpkg", "/m.safetensors", area="/a.gpkg", class_field="class", minutes=5)
    words = asked.words()
    assert words[:4] == ["adapt", "buildings", "/s.tif", "/d.gpkg"]
    assert words[words.index("--area") + 1] == "/a.gpkg"
    assert words[words.index("--minutes") + 1] == "5"
    assert "--overwrite" not in words
    assert report_of("/x/m.safetensors") == "/x/m.run/report.html"


def test_formats_without_a_place_for_a_style_get_a_file_beside_them() -> None:
    assert vectorize_words("/l.tif", "/p.FGB", Shaping())[3:5] == ["--style", "qml"]
    assert "--style" not in vectorize_words("/l.tif", "/p.gpkg", Shaping())


def test_what_a_stopped_run_keeps_is_removed_by_its_outputs_and_nothing_else(tmp_path: Path) -> None:
    folders = {name: tmp_path / f"{name}.tif.unfinished" for name in ("kept", "other", "noted", "foreign", "behind")}
    for name, folder in folders.items():
        (folder / "labels").mkdir(parents=True)
        if name != "foreign":
            (folder / "labels" / "000000_000001.tif").write_bytes(b"")
            for of_others in ("journal-1.jsonl", "writer-1.lock", "geoglnet-block1", "labels.vrt", "lock"):
                (folder / of_others).write_bytes(b"")
            (folder / "journal.jsonl").write_text('{"format": 2, "facts": {}}\n', encoding="utf-8")
    for name in ("noted", "foreign"):
        (folders[name] / "labels" / "notes.txt").write_text("precious", encoding="utf-8")
    (tmp_path / "link.tif.unfinished").symlink_to(folders["behind"])
    remove_unfinished(
        *(str(tmp_path / f"{name}.tif") for name in ("kept", "noted", "foreign", "link")), "", str(tmp_path / "p")
    )
    assert not folders["kept"].exists()
    assert (folders["other"] / "labels" / "000000_000001.tif").exists()
    assert (folders["behind"] / "labels" / "000000_000001.tif").exists()
    for name in ("noted", "foreign"):
        assert [path.name for path in folders[name].rglob("*")] == ["labels", "notes.txt"]
    assert UNFINISHED == SUFFIX


def test_what_an_earlier_run_keeps_stays(tmp_path: Path) -> None:
    of_the_run, of_another, earlier, foreign = (tmp_path / f"{name}.tif.unfinished" for name in "lome")
    for folder in (of_the_run, of_another, earlier, foreign):
        (folder / "labels").mkdir(parents=True)
        (folder / JOURNAL).write_text('{"format": 2}\n', encoding="utf-8")
    (foreign / JOURNAL).unlink()
    (tmp_path / "link.tif.unfinished").symlink_to(of_another)
    outputs = [str(tmp_path / "l.tif"), "", *(str(tmp_path / f"{name}.tif") for name in ("m", "e", "link"))]
    remove_unfinished(*outputs, kept=unfinished(str(tmp_path / "m.tif")))
    assert not of_the_run.exists()
    assert all(folder.exists() for folder in (of_another, earlier, foreign))
    assert (UNFINISHED, JOURNAL) == (SUFFIX, PROGRAMS_JOURNAL)


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_class_name_survives_the_configuration(name: str) -> None:
    training = Training("m", 1.0, {name: (1, 2, 3)}, [Pair("a", "b")])
    assert tomllib.loads(training.to_toml())["legend"]["classes"][-1] == {"name": name, "color": [1, 2, 3]}


@pytest.mark.parametrize("name", NASTY, ids=lambda name: ascii(name)[:24])
def test_a_nasty_class_name_stays_one_class_of_a_file_that_can_be_written(name: str, tmp_path: Path) -> None:
    text = Training(name, 1.0, {name: (1, 2, 3)}, [Pair(name, name)], backbone_weights=name).to_toml()
    (tmp_path / CONFIGURATION).write_text(text, encoding="utf-8", newline="\n")
    plain = tomllib.loads((tmp_path / CONFIGURATION).read_text(encoding="utf-8"))
    assert [entry["name"] for entry in plain["legend"]["classes"]] == ["background", name.replace("\ud800", "?")]
    assert set(plain) == {"name", "resolution_m", "legend", "model", "region", "sample", "optim", "train"}


def test_a_folder_is_the_plugins_own_when_its_configuration_says_so(tmp_path: Path) -> None:
    assert not is_own_folder(str(tmp_path))
    (tmp_path / CONFIGURATION).write_bytes(b"\xff")
    assert not is_own_folder(str(tmp_path))
    (tmp_path / CONFIGURATION).write_text(Training("m", 1.0, {}, []).to_toml(), encoding="utf-8")
    assert is_own_folder(str(tmp_path))


def test_colors_are_the_layers_own_and_else_differ() -> None:
    colors = colors_for(["a", "b", "c"], {"b": (9, 9, 9)})
    assert colors["b"] == (9, 9, 9)
    assert len(set(colors.values())) == 3
