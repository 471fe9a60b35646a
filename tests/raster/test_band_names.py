"""Names of bands, from whatever a file says of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp
from rasterio.windows import Window

from geoglnet.bands import Bands
from geoglnet.errors import BandsError, ConfigError
from geoglnet.progress import RecordedProgress
from geoglnet.raster.band_choice import choose_bands, parse_bands
from geoglnet.raster.band_names import common_name, name_bands
from geoglnet.raster.scene import open_scene
from tests.rasters import noise, write_raster

RGB, RGBN = ("red", "green", "blue"), ("red", "green", "blue", "nir")
WORLDVIEW = ["coastal", "blue", "green", "yellow", "red", "rededge", "nir08", "nir09"]
NIR = Bands(("nir",), (0.5,), (0.2,))
Describe = Callable[..., Path]


@pytest.fixture
def described(tmp_path: Path) -> Describe:
    """Writes a raster whose bands are described: ``described("blue", "green", dtype="uint16", tags={…})``."""

    def make(
        *descriptions: str,
        name: str = "scene.tif",
        dtype: str = "uint16",
        tags: Sequence[Mapping[str, str]] = (),
        colors: Sequence[ColorInterp] = (),
        **facts: str,
    ) -> Path:
        image = noise(len(descriptions), 64, 64).astype(dtype)
        path = write_raster(tmp_path / name, image, photometric="minisblack")
        with rasterio.open(path, "r+") as dst:
            dst.descriptions = descriptions
            for number, known in enumerate(tags, start=1):
                dst.update_tags(number, **known)
            dst.update_tags(**facts)
            if colors:
                dst.colorinterp = colors
        return path

    return make


def names(path: Path) -> list[str]:
    with rasterio.open(path) as src:
        return [band.name for band in name_bands(src)]


def chosen(path: Path, wanted: Sequence[str], selection: object = None) -> tuple[tuple[int, ...], RecordedProgress]:
    progress = RecordedProgress()
    with rasterio.open(path) as src:
        return choose_bands(src, wanted, selection, progress), progress  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("red", "red"),
        ("Band 4 - Red", "red"),
        ("NIR", "nir"),
        ("Near-Infrared", "nir"),
        ("nir08", "nir08"),
        ("NIR_1", "nir08"),
        ("proche infrarouge", "nir"),
        ("Grün", "green"),
        ("Azul", "blue"),
        ("rosso", "red"),
        ("Red Edge 2", "rededge075"),
        ("coastal_blue", "coastal"),
        ("SWIR 1", "swir16"),
        ("Band 1", ""),
        ("red, green", ""),
        ("predicted", ""),
        ("", ""),
    ],
)
def test_descriptions_in_many_spellings_have_a_common_name(text: str, name: str) -> None:
    assert common_name(text) == name


@pytest.mark.parametrize(
    ("descriptions", "name", "facts", "expected"),
    [
        (("B02", "B03", "B04", "B08", "B8A"), "scene.tif", {}, ["blue", "green", "red", "nir", "nir08"]),
        (("B4", "B5", "B6"), "LC08_L2SP_193023.tif", {}, ["red", "nir08", "swir16"]),
        (("SR_B1", "SR_B2", "SR_B3", "SR_B4"), "LT05_L2SP.tif", {}, ["blue", "green", "red", "nir08"]),
        (("B4", "B8", "B11"), "scene.tif", {"SPACECRAFT_NAME": "Sentinel-2A"}, ["red", "nir", "swir16"]),
        (("B4", "B3", "B2"), "scene.tif", {}, ["red", "green", "blue"]),
        (("B5", "B6", "B7"), "scene.tif", {}, ["", "", ""]),  # which sensor's?
        (("B1", "B2", "B3"), "scene.tif", {}, ["", "", ""]),
        (("Band 1", "Band 2", "Band 3"), "scene.tif", {}, ["", "", ""]),
        (("",) * 4, "20240101_101010_3B_AnalyticMS_SR.tif", {}, ["blue", "green", "red", "nir"]),
        (("",) * 4, "m_3807708_ne_18_060_20210617.tif", {}, ["red", "green", "blue", "nir"]),
        (
            ("",) * 8,
            "scene.tif",
            {"SATELLITEID": "WV02"},
            WORLDVIEW,
        ),
    ],
)
def test_codes_and_orders_are_those_of_the_sensor(
    described: Describe, descriptions: Sequence[str], name: str, facts: dict[str, str], expected: list[str]
) -> None:
    assert names(described(*descriptions, name=name, **facts)) == expected


def test_metadata_and_wavelengths_name_bands(described: Describe) -> None:
    tags = [{"BANDNAME": "Blue"}, {"common_name": "nir"}, {"wavelength": "0.66"}, {"wavelength": "2200.0"}]
    assert names(described("", "", "", "", tags=tags)) == ["blue", "nir", "red", "swir22"]


def test_of_many_narrow_bands_the_one_in_the_middle_of_a_color_has_its_name(described: Describe) -> None:
    path = described("640 nm", "664 nm", "680 nm", "560 nm", "490 nm")
    assert names(path) == ["", "red", "", "green", "blue"]
    assert "664 nm" in chosen(path, RGB)[1].messages("warning")[0]


def test_a_16_bit_file_of_blue_green_red_nir_is_read_in_the_models_order(described: Describe) -> None:
    path = described("blue", "green", "red", "nir")
    numbers, progress = chosen(path, RGB)
    assert numbers == (3, 2, 1)
    assert progress.messages("log") == [f"{path}: bands 3 red, 2 green, 1 blue (by description)"]
    assert not progress.messages("warning")
    with rasterio.open(path) as src, open_scene(path, model_bands=Bands(), progress=progress) as scene:
        window = Window(0, 0, 64, 64)
        assert scene.band_names == RGB
        assert np.array_equal(scene.read_window(window).image, scene.scaling.apply(src.read([3, 2, 1])))


def test_a_description_counts_more_than_the_color(described: Describe) -> None:
    path = described("blue", "green", "red", dtype="uint8", colors=[ColorInterp[name] for name in RGB])
    assert chosen(path, RGB)[0] == (3, 2, 1)


def test_colors_in_the_files_order_need_no_words(described: Describe) -> None:
    alpha = [*(ColorInterp[name] for name in RGB), ColorInterp.alpha]
    numbers, progress = chosen(described("", "", "", "", dtype="uint8", colors=alpha), RGB)
    assert (numbers, progress.events) == ((1, 2, 3), [])


def test_alpha_is_no_near_infrared(described: Describe) -> None:
    path = described("", "", "", "", dtype="uint8", colors=[*(ColorInterp[name] for name in RGB), ColorInterp.alpha])
    with pytest.raises(BandsError, match=r"no band nir \(needed are red, green, blue, nir; it has 1 red, 2 green, 3 blue\)"):
        chosen(path, RGBN)
    assert chosen(path, RGBN, "RGBN")[0] == (1, 2, 3, 4)  # the user knows better


def test_a_fourth_band_beside_colors_is_guessed_with_a_warning(described: Describe) -> None:
    colors = [*(ColorInterp[name] for name in RGB), ColorInterp.undefined]
    numbers, progress = chosen(described("", "", "", "", dtype="uint8", colors=colors), RGBN)
    assert numbers == (1, 2, 3, 4)
    assert "4 (unnamed) as nir" in progress.messages("warning")[0]


def test_bands_without_names_are_read_in_order_and_more_of_them_are_warned_about(described: Describe) -> None:
    numbers, progress = chosen(described("Band 1", "Band 2", "Band 3"), RGB)
    assert (numbers, progress.events) == ((1, 2, 3), [])
    numbers, progress = chosen(described("", "", "", ""), RGB)
    assert numbers == (1, 2, 3)
    assert "does not say which of its bands" in progress.messages("warning")[0]


@pytest.mark.parametrize(
    ("selection", "numbers"),
    [
        ("BGR", (3, 2, 1)),
        ("bgrn", (3, 2, 1)),
        ("RGB", (1, 2, 3)),
        ("gray", (1, 1, 1)),
        ("4,1,2", (4, 1, 2)),
        ((4, 1, 2), (4, 1, 2)),
    ],
)
def test_presets_say_what_the_bands_of_a_file_are_and_numbers_which_to_take(
    described: Describe, selection: object, numbers: tuple[int, ...]
) -> None:
    assert chosen(described("", "", "", ""), RGB[: len(numbers)], selection)[0] == numbers


def test_names_choose_what_the_models_bands_are_in_its_order(described: Describe) -> None:
    path = described("blue", "green", "red", "nir")
    numbers, progress = chosen(path, RGB, "nir,red,green")
    assert numbers == (4, 3, 2)
    assert progress.messages("log") == [f"{path}: bands 4 nir as red, 3 red as green, 2 green as blue (by description)"]
    assert chosen(path, RGB, ("nir", 3, "green"))[0] == (4, 3, 2)


def test_landsats_near_infrared_is_near_infrared_with_a_warning(described: Describe) -> None:
    numbers, progress = chosen(described("SR_B4", "SR_B5", name="LC09_L2SP.tif"), NIR.names)
    assert numbers == (2,)
    assert "2 nir08 (SR_B5) as nir" in progress.messages("warning")[0]


def test_free_words_are_found_as_they_are_written(described: Describe) -> None:
    assert chosen(described("red", "green", "blue", "Height_m"), (*RGB, "height m"))[0] == (1, 2, 3, 4)


@pytest.mark.parametrize(
    ("descriptions", "selection", "message"),
    [
        (("red", "green", "blue", "height"), None, r"has no band nir .*it has 1 red, 2 green, 3 blue, 4 \(height\)"),
        (("red", "red", "green", "blue"), None, r"has 2 bands called red \(1 red and 2 red\); choose with bands=…"),
        (("red", "green", "blue", "nir"), "nri,red,green,blue", r"has no band nri .*did you mean 'nir'"),
        (("red", "green", "blue", "nir"), "red,green", r"2 bands are selected \(red, green\), the model takes 4"),
        (("red", "green", "blue", "nir"), "RGB", r"as RGB has no band nir"),
        (("red", "green", "blue"), "RGBN", r"has 3 bands, RGBN are 4"),
        (("red", "green", "blue", "nir"), "1,2,3,5", r"no band 5: .*scene.tif has bands 1 to 4"),
    ],
)
def test_a_missing_band_is_named_beside_what_there_is(
    described: Describe, descriptions: Sequence[str], selection: str | None, message: str
) -> None:
    with pytest.raises(BandsError, match=message):
        chosen(described(*descriptions), RGBN, selection)


@pytest.mark.parametrize("text", ["1;2", "-1", "0,1,2", "1,,2", "", "red,red,blue"])
def test_selections_that_mean_nothing_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="bands = "):
        parse_bands(text)
