"""Names that Windows has no files for."""

from __future__ import annotations

import os
from pathlib import Path, PureWindowsPath

import pytest

from geoglnet.errors import OutputError, SceneError
from geoglnet.filenames import LONGEST_BESIDE, check_filename, windows_fault
from geoglnet.raster.files import gdal_name, is_remote
from geoglnet.raster.gdal import open_raster

DEVICE, LAST, SIGN, LONG = "is a device of Windows", "drops a dot or space at the end", "and Windows allows no", "too long"


@pytest.mark.parametrize(
    "path",
    [
        r"C:\maps\labels.tif",
        "C:/maps/labels.tif",
        r"C:labels.tif",
        r"\\server\share\maps\labels.tif",
        "//server/share/labels.tif",
        r"\\?\C:\maps\labels.tif",
        r"\maps\labels.tif",
        r"..\.\labels.tif",
        "contours.gpkg",
        "com10.tif",
        "COM.tif",
        "comfort.tif",
        "lpt.gpkg",
        "a con.gpkg",
        ".hidden.tif",
        " labels.tif",
        "[site 4] (1) #12 & 50% Wow!; größe 建物.gpkg",
        "C:\\" + "d" * 200 + "\\" + "n" * (255 - 200 - LONGEST_BESIDE),
        "\\\\?\\C:\\" + "d" * 250 + "\\" + "n" * 250,
    ],
)
def test_names_that_windows_has(path: str) -> None:
    assert windows_fault(path) is None


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        ("nul", DEVICE),
        ("con.gpkg", DEVICE),
        ("Aux.TIF", DEVICE),
        ("COM1.tif", DEVICE),
        ("lpt9.tif.gz", DEVICE),
        ("COM¹.tif", DEVICE),
        ("conout$", DEVICE),
        ("nul .tif", DEVICE),
        (r"C:\aux\labels.tif", DEVICE),
        (r"\\.\COM1", DEVICE),
        ("//./pipe/labels", DEVICE),
        ("labels.tif.", LAST),
        ("labels.tif ", LAST),
        (r"C:\maps.\labels.tif", LAST),
        (r"...\labels.tif", LAST),
        ("labels.tif:2", SIGN),
        (r"C:\maps\a:b.parquet", SIGN),
        ("what?.tif", SIGN),
        ("*.tif", SIGN),
        ('"labels".tif', SIGN),
        ("a|b.tif", SIGN),
        ("<a>.tif", SIGN),
        ("two\nlines.tif", SIGN),
        ("n" * 256, "longer than 255 characters"),
        ("𐐷" * 128, "longer than 255 characters"),  # two units of UTF-16 each
        ("C:\\" + "d" * 200 + "\\" + "n" * (256 - 200 - LONGEST_BESIDE), "is 1 characters too long"),
        (r"\\server\share" + "\\folder" * 40 + "\\labels.tif", LONG),
    ],
)
def test_names_that_windows_does_not_have(path: str, fault: str) -> None:
    assert fault in (windows_fault(path) or "")


def test_a_system_that_was_told_to_takes_long_paths() -> None:
    assert windows_fault("C:\\" + "folder\\" * 100 + "labels.tif", longest=None) is None


def test_an_output_is_refused_where_there_is_no_file_of_its_name() -> None:
    with pytest.raises(
        OutputError, match=r"^con\.gpkg has 'con\.gpkg' in it, which is a device of Windows; choose another output"
    ):
        check_filename(Path("con.gpkg"), "win32")
    check_filename(Path("con.gpkg"), "linux")


@pytest.mark.parametrize(
    ("path", "is_elsewhere"),
    [
        ("https://host/scene.tif", True),
        ("s3://bucket/scene.tif", True),
        ("/vsizip/scene.zip/scene.tif", True),
        ("\\vsizip\\scene.zip\\scene.tif", True),  # what Windows makes of Path("/vsizip/scene.zip/scene.tif")
        ("C:/maps/scene.tif", False),
        ("C://maps/scene.tif", False),
        (r"C:\maps\scene.tif", False),
        (r"\\server\share\scene.tif", False),
        ("//server/share/scene.tif", False),
    ],
)
def test_a_drive_is_no_scheme_of_a_url(path: str, is_elsewhere: bool) -> None:
    assert is_remote(path) is is_elsewhere


def test_a_virtual_path_reaches_gdal_with_slashes() -> None:
    assert gdal_name(PureWindowsPath("/vsizip/a.zip/b.tif")) == "/vsizip/a.zip/b.tif"
    assert gdal_name(PureWindowsPath("//server/share/a.tif")) == r"\\server\share\a.tif"


def test_a_scene_whose_name_is_not_in_utf_8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"gr\xf6\xdfe.tif")
    try:
        path.touch()
    except OSError:
        pytest.skip("this file system has no such names")
    with pytest.raises(SceneError, match="is not a UTF-8 name"):
        open_raster(path)
