"""Miniature copies of published data sets' layouts, and of what analysts have; drawn by seed, small enough for two steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import shapely
from affine import Affine
from geopandas import GeoSeries
from pyogrio.raw import write as write_layer
from rasterio.warp import transform_bounds

from geoglnet.datasets.deepglobe import DEEPGLOBE_LEGEND
from geoglnet.datasets.layouts import split_keys
from tests.rasters import write_raster

SIZE = 96
Array = npt.NDArray[np.uint8]


def blocks(num_classes: int, seed: int, height: int = SIZE, width: int = SIZE) -> Array:
    """Labels in squares of 16 px."""
    cells = np.random.default_rng(seed).integers(0, num_classes, (-(-height // 16), -(-width // 16)))
    return np.kron(cells, np.ones((16, 16), int)).astype(np.uint8)[:height, :width]


def picture(labels: Array, seed: int) -> Array:
    """An image in which each class has a gray of its own, with noise."""
    rng = np.random.default_rng(seed)
    gray = 40 + 25 * labels.astype(int)
    return (gray + rng.integers(-10, 10, (3, *labels.shape))).clip(1, 254).astype(np.uint8)


def colors(labels: Array) -> Array:
    """DeepGlobe's colors of labels 0 (urban) to 6 (unknown)."""
    return np.moveaxis(np.array(DEEPGLOBE_LEGEND.colors, np.uint8)[labels], -1, 0)


def write_image(path: Path, image: Array) -> Path:
    """A JPEG or PNG without georeference."""
    path.parent.mkdir(parents=True, exist_ok=True)
    drivers = {".jpg": {"driver": "JPEG", "quality": 95}, ".png": {"driver": "PNG"}, ".tif": {}}
    return write_raster(path, image, crs=None, **drivers[path.suffix])


DEEPGLOBE_FOLDERS = {  # layout: folders of image and mask by split
    "flat": dict.fromkeys(("train", "validation", "test"), ("", "")),
    "torchgeo": {
        "train": ("data/training_data/images", "data/training_data/masks"),
        "test": ("data/test_data/images", "data/test_data/masks"),
    },
    "glnet": {"train": ("train/Sat", "train/Label"), "validation": ("crossvali/Sat", "crossvali/Label")},
}


def write_deepglobe(root: Path, layout: str = "flat", per_split: int = 2) -> Path:
    """Tiles with the authors' ids, in a published layout, and one without a mask."""
    lists = {"train": "deepglobe_train", "validation": "deepglobe_crossvali", "test": "deepglobe_test"}
    for split, folders in DEEPGLOBE_FOLDERS[layout].items():
        for number, key in enumerate(split_keys(lists[split])[:per_split]):
            labels = blocks(7, seed=number)
            write_image(root / folders[0] / f"{key}_sat.jpg", picture(labels, number))
            write_image(root / folders[1] / f"{key}_mask.png", colors(labels))
    write_image(root / "valid" / "1_sat.jpg", picture(blocks(7, 99), 99))
    return root


INRIA_CRS = {"austin": "EPSG:26914", "vienna": "EPSG:31256"}


def write_inria(root: Path, numbers: tuple[int, ...] = (1, 2, 6, 8), folder: str = "AerialImageDataset7") -> Path:
    """Two cities in a CRS each; their tiles touch. The folder's own number is no tile's."""
    base = root / folder / "train"
    for city, crs in INRIA_CRS.items():
        for place, number in enumerate(numbers):
            labels = blocks(2, seed=number)
            transform = Affine(0.3, 0, 600_000 + place * SIZE * 0.3, 0, -0.3, 3_000_000)
            for part, array in (("images", picture(labels, number)), ("gt", labels[None] * 255)):
                (base / part).mkdir(parents=True, exist_ok=True)
                write_raster(base / part / f"{city}{number}.tif", array, crs=crs, transform=transform)
    return root


def write_isic(root: Path, count: int = 10) -> Path:
    """Photographs of mixed sizes."""
    for number in range(count):
        height, width = 60 + 8 * number, 90 + 5 * number
        rows, cols = np.mgrid[:height, :width]
        lesion = ((rows - height / 2) ** 2 + (cols - width / 2) ** 2 < (height / 4) ** 2).astype(np.uint8)
        write_image(root / "ISIC2018_Task1-2_Training_Input" / f"ISIC_{number:07}.jpg", picture(lesion * 4, number))
        write_image(root / "ISIC2018_Task1_Training_GroundTruth" / f"ISIC_{number:07}_segmentation.png", lesion[None] * 255)
    return root


def polygons_of(labels: Array, transform: Affine, value: int) -> npt.NDArray[np.object_]:
    """The squares of 16 px of a class."""
    rows, cols = np.nonzero(labels[::16, ::16] == value)
    corners = [(transform @ (16 * c, 16 * r), transform @ (16 * c + 16, 16 * r + 16)) for r, c in zip(rows, cols, strict=True)]
    return np.array([shapely.box(*np.sort([a, b], axis=0).ravel()) for a, b in corners], dtype=object)


def write_layer_of(path: Path, classes: dict[str, npt.NDArray[np.object_]], crs: str, layer: str | None = None) -> Path:
    """A vector layer with a column "kind"; GeoPackage by its suffix."""
    names = [name for name, shapes in classes.items() for _ in shapes]
    shapes = np.concatenate(list(classes.values())) if classes else np.array([], object)
    options = {"layer": layer, "append": True} if layer and path.exists() else {"layer": layer} if layer else {}
    write_layer(
        path, shapely.to_wkb(shapes), [np.array(names, object)], ["kind"],
        geometry_type="Polygon", crs=crs, driver="GPKG", **options,
    )  # fmt: skip
    return path


OWN_TRANSFORM = Affine(1, 0, 500_000, 0, -1, 9_000_000)


def write_own(root: Path) -> Path:
    """Three rasters in UTM 36S (the last far away), one layer of buildings in lon/lat over the first two, and its truth."""
    root.mkdir(parents=True, exist_ok=True)
    shapes = []
    for number in range(3):
        labels = blocks(2, seed=number)
        transform = OWN_TRANSFORM @ Affine.translation(number * SIZE + (number == 2) * 50_000, 0)
        write_raster(root / f"scene_{number}.tif", picture(labels * 5, number), transform=transform)
        write_raster(root / f"truth_{number}.tif", labels[None], transform=transform)
        if number < 2:
            shapes.append(polygons_of(labels, transform, 1))
    write_layer_of(root / "buildings.gpkg", {"building": np.concatenate(shapes)}, "EPSG:32736")
    return root


def write_sentinel2(root: Path, transform: Affine, day: str = "20200101") -> dict[str, npt.NDArray[np.uint16]]:
    """Bands of a Sentinel-2 scene in ESA's folders, 10 m and 20 m, with nodata 0 in a corner; the arrays by band."""
    labels = blocks(2, seed=5).astype(np.uint16)
    written = {}
    for number, (band, size) in enumerate((("B02", 10), ("B03", 10), ("B04", 10), ("B08", 10), ("B8A", 20))):
        array = (1000 + 500 * number + 3000 * labels).astype(np.uint16)
        array[:32, :48] = 0
        array = array[:: size // 10, :: size // 10]
        folder = root / "GRANULE" / "L2A_T36MYB" / "IMG_DATA" / f"R{size}m"
        folder.mkdir(parents=True, exist_ok=True)
        place = transform @ Affine.scale(size // 10)
        path = folder / f"T36MYB_{day}T074621_{band}_{size}m.jp2"
        write_raster(path, array[None], transform=place, nodata=0, driver="JP2OpenJPEG", QUALITY="100", REVERSIBLE="YES")
        written[band] = array
    return written


def write_two_crs(root: Path) -> Path:
    """Neighboring rasters in two CRSs, of 1 m and of 0.8 m, in ``scenes``, and their buildings in longitude and latitude."""
    (root / "scenes").mkdir(parents=True, exist_ok=True)
    corner = transform_bounds("EPSG:32736", "EPSG:3857", 500_000, 8_999_900, 500_001, 9_000_000)
    shapes = []
    for number, (name, crs, transform) in enumerate(
        (
            ("east", "EPSG:32736", OWN_TRANSFORM),
            ("west", "EPSG:3857", Affine(0.8, 0, corner[0] - 2 * SIZE, 0, -0.8, corner[3])),
        )
    ):
        labels = blocks(2, number, 2 * SIZE, 2 * SIZE)
        write_raster(root / "scenes" / f"{name}.tif", picture(labels * 5, number), crs=crs, transform=transform)
        found = GeoSeries(polygons_of(labels, transform, 1), crs=crs)
        shapes.append(found.to_crs("EPSG:4326").to_numpy())
    write_layer_of(root / "polygons.gpkg", {"building": np.concatenate(shapes)}, "EPSG:4326")
    return root


NAIP_TRANSFORM = Affine(1, 0, 450_000, 0, -1, 4_300_000)
CHESAPEAKE = {0: 11, 1: 41, 2: 22}  # water, forest and building, of its 54 classes


def write_naip(root: Path) -> Path:
    """Two quarter quads of NAIP (color and near infrared), and Delaware's land cover of the same year."""
    (root / "naip").mkdir(parents=True)
    (root / "chesapeake").mkdir()
    for number, quarter in enumerate(("ne", "nw")):
        labels = blocks(3, seed=number)
        image = np.concatenate([picture(labels * 2, number), picture(labels, number + 7)[:1]])
        transform = NAIP_TRANSFORM @ Affine.translation(number * SIZE, 0)
        path = root / "naip" / f"m_3807511_{quarter}_18_060_20181104.tif"
        write_raster(path, image, crs="EPSG:26918", transform=transform, photometric="RGB", ALPHA="NO")
    cover = np.concatenate([blocks(3, seed=number) for number in range(2)], axis=1)
    values = np.array([CHESAPEAKE[value] for value in range(3)], np.uint8)[cover]
    path = root / "chesapeake" / "de_lulc_2018_2022-Edition.tif"
    write_raster(path, values[None], crs="EPSG:26918", transform=NAIP_TRANSFORM, nodata=0)
    return root


def write_chesapeake_cvpr(root: Path) -> Path:
    """Tiles of ChesapeakeCVPR in its folders by split: layers of one place are files beside each other."""
    for number, split in enumerate(("train", "val")):
        folder = root / f"de_1m_2013_extended-debuffered-{split}_tiles"
        folder.mkdir(parents=True)
        labels = blocks(4, seed=number)
        transform = NAIP_TRANSFORM @ Affine.translation(number * SIZE, 0)
        image = np.concatenate([picture(labels * 2, number), picture(labels, number + 7)[:1]])
        cover = np.array([1, 2, 4, 15], np.uint8)[labels]  # water, forest, barren, no data
        for layer, array in {"naip-new": image, "lc": cover[None]}.items():
            options = {"photometric": "RGB", "ALPHA": "NO"} if len(array) == 4 else {}
            path = folder / f"m_3807511_ne_18_{number}_{layer}.tif"
            write_raster(path, array, crs="EPSG:26918", transform=transform, **options)
    return root


def write_fields(root: Path) -> Path:
    """Bands of a Sentinel-2 scene in a file each, and a layer of fields in longitude and latitude."""
    transform = Affine(10, 0, 500_000, 0, -10, 9_000_000)
    write_sentinel2(root / "sentinel2", transform)
    shapes = polygons_of(blocks(2, seed=5), transform, 1)
    table = GeoSeries(list(shapes), crs="EPSG:32736").to_crs("EPSG:4326")
    table.to_file(root / "fields.gpkg")
    return root
