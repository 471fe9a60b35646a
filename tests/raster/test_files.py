"""Which files a raster may have read, and which drivers may read it."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
from rasterio.errors import RasterioIOError

from geoglnet.bands import Bands
from geoglnet.errors import SceneError
from geoglnet.raster.gdal import open_raster
from geoglnet.raster.mosaic import mosaic_of
from geoglnet.raster.scene import open_scene
from tests.rasters import noise, write_raster

SECRET = b"root:x:0:0:root:/root:/bin/bash\n" * 20
OF_GDAL = "RAWRASTERBAND_ALLOWED_SOURCE|Path traversal|Read failed"  # 3.12 has learned to refuse them itself
SIZE = 'rasterXSize="20" rasterYSize="20"'

GRAY = Bands(("gray",), (0.5,), (0.2,))


def vrt(inside: str, subclass: str = "") -> str:
    return f'<VRTDataset {SIZE}><VRTRasterBand dataType="Byte" band="1"{subclass}>{inside}</VRTRasterBand></VRTDataset>'


def raw(name: str, relative: int = 0) -> str:
    offsets = "<ImageOffset>0</ImageOffset><PixelOffset>1</PixelOffset><LineOffset>20</LineOffset>"
    return vrt(
        f'<SourceFilename relativeToVRT="{relative}">{name}</SourceFilename>{offsets}', ' subClass="VRTRaw&#82;asterBand"'
    )


def of(name: str) -> str:
    text = name.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return vrt(
        f'<SimpleSource><SourceFilename relativeToVRT="0">{text}</SourceFilename><SourceBand>1</SourceBand></SimpleSource>'
    )


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file that is no image, and a folder beside it for the scene."""
    (tmp_path / "scenes").mkdir()
    (tmp_path / "secret").write_bytes(SECRET)
    return tmp_path / "secret"


def scenes_of(secret: Path) -> dict[str, str]:
    """Ways to have a file read as pixels."""
    folder = secret.parent / "scenes"
    (folder / "raw.vrt").write_text(raw(str(secret)))
    (folder / "nested.vrt").write_text(of(str(folder / "raw.vrt")))
    (folder / "disguised.tif").write_text(raw(str(secret)))
    (folder / "of_disguised.vrt").write_text(of(str(folder / "disguised.tif")))
    (folder / "string.vrt").write_text(of(raw(str(secret))))
    (folder / "relative.vrt").write_text(raw("../secret", relative=1))
    (folder / "link").symlink_to(secret)
    (folder / "linked.vrt").write_text(raw("link", relative=1))
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        archive.write(folder / "raw.vrt", "raw.vrt")
    (folder / "label.lbl").write_text(
        'PDS_VERSION_ID = PDS3\nRECORD_BYTES = 20\n^IMAGE = "../secret"\nOBJECT = IMAGE\nLINES = 20\nLINE_SAMPLES = 20\n'
        "SAMPLE_TYPE = UNSIGNED_INTEGER\nSAMPLE_BITS = 8\nEND_OBJECT = IMAGE\nEND\n"
    )
    names = (
        "raw.vrt",
        "nested.vrt",
        "disguised.tif",
        "of_disguised.vrt",
        "string.vrt",
        "relative.vrt",
        "linked.vrt",
        "label.lbl",
    )
    return {name: str(folder / name) for name in names} | {
        "zip": f"/vsizip/{folder}/a.zip/raw.vrt",
        "in a string": raw(str(secret)),
        "vrt://": f"vrt://{folder}/raw.vrt",
    }


def test_no_raster_makes_an_image_of_a_file_that_lies_elsewhere(secret: Path) -> None:
    for kind, name in scenes_of(secret).items():
        with pytest.raises((SceneError, RasterioIOError)) as caught, open_raster(name) as src:
            src.read()
        assert re.search(f"as raw pixels|{OF_GDAL}", str(caught.value)), kind
        assert "\n" not in str(caught.value), kind


def test_raw_pixels_beside_a_vrt_are_read(tmp_path: Path) -> None:
    (tmp_path / "pixels.bin").write_bytes(bytes(range(200)) * 2)
    (tmp_path / "a.vrt").write_text(raw("pixels.bin", relative=1))
    with open_raster(tmp_path / "a.vrt") as src:
        assert src.read(1).ravel()[:5].tolist() == [0, 1, 2, 3, 4]


def test_code_inside_a_vrt_is_not_run_and_said_to_be(tmp_path: Path) -> None:
    write_raster(tmp_path / "a.tif", noise(1, 20, 20))
    code = (
        "<PixelFunctionType>f</PixelFunctionType><PixelFunctionLanguage>Python</PixelFunctionLanguage>"
        "<PixelFunctionCode>def f(a, out, *x, **k): out[:] = 1</PixelFunctionCode>"
        '<SimpleSource><SourceFilename relativeToVRT="1">a.tif</SourceFilename><SourceBand>1</SourceBand></SimpleSource>'
    )
    (tmp_path / "a.vrt").write_text(vrt(code, ' subClass="VRTDerivedRasterBand"'))
    with pytest.raises(SceneError, match=r"a\.vrt holds Python code, and code inside a VRT is not run"):
        open_raster(tmp_path / "a.vrt").close()


def test_a_vrt_of_itself_ends(tmp_path: Path) -> None:
    (tmp_path / "a.vrt").write_text(of(str(tmp_path / "b.vrt")))
    (tmp_path / "b.vrt").write_text(of(str(tmp_path / "a.vrt")))
    with open_raster(tmp_path / "a.vrt") as src:
        assert src.count == 1


def test_drivers_can_be_narrowed_for_files_of_strangers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = noise(3, 64, 64)
    tiles = [write_raster(tmp_path / f"{number}.tif", image, pixel_size=1.0) for number in (0, 1)]
    png = write_raster(tmp_path / "a.png", image, driver="PNG", crs=None)
    (tmp_path / "a.vrt").write_text(of(str(tiles[0])))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(tiles[0], "a.tif")
    monkeypatch.setenv("GEOGLNET_DRIVERS", "GTiff, JPEG")
    with open_scene(tiles[0]) as scene, scene.reopened() as again:
        assert scene.shape == again.shape == (64, 64)
    with open_scene(mosaic_of(tiles), resolution_m=2) as scene, scene.reopened() as again:  # our own VRT
        assert again.shape == (32, 32)
    with open_scene(f"/vsizip/{tmp_path}/a.zip/a.tif") as scene:
        assert scene.num_bands == 3
    for name in (png, tmp_path / "a.vrt", of(str(tiles[0])), f"vrt://{tiles[0]}", "<GDAL_WMS></GDAL_WMS>"):
        with pytest.raises(SceneError, match="GEOGLNET_DRIVERS allows"):
            open_scene(name)
    for name in (
        "https://127.0.0.1:9/a.tif",
        "/vsicurl/http://127.0.0.1:9/a.tif",
        "/vsis3/bucket/a.tif",
        "/vsizip//vsicurl/http://a",
    ):
        with pytest.raises(SceneError, match=r"is not a local file \(.*GEOGLNET_DRIVERS allows nothing else"):
            open_scene(name)
    monkeypatch.setenv("GEOGLNET_DRIVERS", "GTiff, VRT")
    with open_scene(tmp_path / "a.vrt", model_bands=GRAY) as scene:
        assert scene.shape == (20, 20)
    (tmp_path / "b.vrt").write_text(of(str(png)))
    with pytest.raises(SceneError, match=r"a\.png is not of the drivers that GEOGLNET_DRIVERS allows"):
        open_scene(tmp_path / "b.vrt")


def test_an_own_mosaic_may_be_traced_where_drivers_are_narrowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEOGLNET_DRIVERS", "GTiff")
    folder = tmp_path / "labels.tif.unfinished"
    (folder / "labels").mkdir(parents=True)
    write_raster(folder / "labels" / "000000_000000.tif", np.ones((1, 20, 20), np.uint8))
    source = '<SourceFilename relativeToVRT="1">{}</SourceFilename><SourceBand>1</SourceBand>'
    (folder / "labels.vrt").write_text(vrt(f"<SimpleSource>{source.format('labels/000000_000000.tif')}</SimpleSource>"))
    with open_raster(folder / "labels.vrt") as src:
        assert src.read(1).all()
    (folder / "other.vrt").write_text(vrt(f"<SimpleSource>{source.format('../../etc/x.tif')}</SimpleSource>"))
    with pytest.raises(SceneError, match="GEOGLNET_DRIVERS"):
        open_raster(folder / "other.vrt").close()
