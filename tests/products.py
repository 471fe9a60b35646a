"""Miniature Sentinel-2 products."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt
import rasterio
import rasterio.shutil
from affine import Affine

from tests.rasters import UTM, noise, write_raster

NAME = "S2A_MSIL2A_20240101T080000_N0510_R001_T36MUE_20240101T100000.SAFE"
GRANULE = "GRANULE/L2A_T36MUE_A000001_20240101T080000/IMG_DATA"
PIXELS = {"B02": 10, "B03": 10, "B04": 10, "B08": 10, "B05": 20, "B8A": 20, "B11": 20, "B01": 60}
SIDE_M = 1200
METADATA = """<n1:Level-2A_User_Product xmlns:n1="urn:x"><Product_Image_Characteristics><QUANTIFICATION_VALUES_LIST>
<BOA_QUANTIFICATION_VALUE unit="none">10000</BOA_QUANTIFICATION_VALUE></QUANTIFICATION_VALUES_LIST><BOA_ADD_OFFSET_VALUES_LIST>
<BOA_ADD_OFFSET band_id="3">-1000</BOA_ADD_OFFSET><BOA_ADD_OFFSET band_id="8">-900</BOA_ADD_OFFSET></BOA_ADD_OFFSET_VALUES_LIST>
</Product_Image_Characteristics></n1:Level-2A_User_Product>"""


def place_of(pixel_m: int) -> Affine:
    """Transform of a product's band at a resolution."""
    return Affine(pixel_m, 0, 600_000, 0, -pixel_m, 9_000_000)


def values_of(code: str, pixel_m: int) -> npt.NDArray[Any]:
    """Noise that is another one in every band and resolution."""
    size = SIDE_M // pixel_m
    return noise(1, size, size, seed=int(code[1:].replace("A", "0")) + pixel_m)[0]


def write_jp2(path: Path, image: npt.NDArray[Any], pixel_m: int) -> None:
    """Write a lossless JPEG 2000 file; GDAL's driver can only copy."""
    source = write_raster(path.with_suffix(".tif"), image.astype("uint16")[None], crs=UTM, transform=place_of(pixel_m))
    options = {"QUALITY": 100, "REVERSIBLE": "YES", "YCBCR420": "NO"}
    with rasterio.open(source) as src:
        rasterio.shutil.copy(src, path, driver="JP2OpenJPEG", **options)
    source.unlink()


def write_safe(
    root: Path,
    pixels: Mapping[str, int] = PIXELS,
    values: Callable[[str, int], npt.NDArray[Any]] = values_of,
    name: str = NAME,
) -> Path:
    """Write an L2A product of 1.2 km a side, 10 m bands at 20 m too.

    Args:
        root: folder to write it into.
        pixels: finest resolution of each band.
        values: of a band at a resolution.
        name: of the product.
    """
    folder = root / name
    for code, finest in pixels.items():
        for pixel_m in {finest, max(finest, 20)}:
            place = folder / GRANULE / f"R{pixel_m}m"
            place.mkdir(parents=True, exist_ok=True)
            write_jp2(place / f"T36MUE_20240101T080000_{code}_{pixel_m}m.jp2", values(code, pixel_m), pixel_m)
    (folder / "MTD_MSIL2A.xml").write_text(METADATA, encoding="utf-8")
    return folder
