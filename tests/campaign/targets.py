"""Hostile input of every kind that the program reads: each target makes some and runs the program on it.

Case 0 of every target is the good input, which has to pass: a target that only ever sees refusals finds nothing.
"""

from __future__ import annotations

import json
import struct
import warnings
from pathlib import Path
from typing import Any

import click
import numpy as np
import rasterio
import rasterio.shutil
from rasterio import Affine
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from geoglnet.raster.files import silenced
from tests.campaign.harness import Bench, Unmade
from tests.campaign.mutations import TEXTS, chance, nasty, pick, spoil_bytes, spoil_text, spoil_tree, to_json, to_toml
from tests.campaign.stock import ALL_OUTPUTS, CONFIG, CRS, MADE, PREDICT, TRANSFORM
from tests.rasters import write_raster

Rng = np.random.Generator
TRAIN_S = 6.0  # a training that a mutation made longer is asked to stop then
STOP_S = 20.0


def patience(is_good: bool, seconds: float) -> float | None:
    """When to stop a run that may rightly go on for days; the good input comes to its end, however slow the machine is."""
    return None if is_good else seconds


def model(rng: Rng, bench: Bench, is_good: bool) -> None:
    """Model files: every field of the manifest, tensors of other types, shapes and values, damaged bytes."""
    bench.take("scene.tif", "tiny.safetensors")
    path = bench.folder / "tiny.safetensors"
    if not is_good:
        _spoil_model(rng, path)
    outputs = ("labels.tif", "vector.gpkg")
    if not is_good and chance(rng, 0.3):
        bench.run(["info", path.name, *pick(rng, ([], ["--json"]))])
    words = ["predict", "scene.tif", "-o", "labels.tif", "--vector", "vector.gpkg", "--model", path.name, "--device", "cpu"]
    precision = pick(rng, ([], [], ["--precision", "float16"], ["--precision", "bfloat16"])) if not is_good else []
    ended = bench.run([*words, *precision], outputs, stop_after_s=patience(is_good, STOP_S))
    if ended.code == 0 and not (bench.folder / "labels.tif").exists():
        bench.problem("done without labels")


def _spoil_model(rng: Rng, path: Path) -> None:
    content = path.read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    header, tensors = json.loads(content[8 : 8 + size]), bytearray(content[8 + size :])
    way = rng.integers(10)
    if way < 6:
        manifest = json.loads(header["__metadata__"]["geoglnet"])
        text = to_json(spoil_tree(rng, manifest))
        header["__metadata__"]["geoglnet"] = spoil_text(rng, text) if chance(rng, 0.1) else text
    elif way == 6:
        name = pick(rng, [name for name in header if name != "__metadata__"])
        begin, end = header[name]["data_offsets"]
        width = {"F16": "<f2", "F32": "<f4"}.get(header[name]["dtype"])
        if width and end > begin:
            values = np.frombuffer(tensors[begin:end], width).copy()
            values[rng.integers(values.size)] = pick(rng, (np.nan, np.inf, -np.inf, 6e4))
            tensors[begin:end] = values.tobytes()
    elif way == 7:
        name = pick(rng, [name for name in header if name != "__metadata__"])
        entry = header[name]
        entry[pick(rng, list(entry))] = pick(
            rng, ("I64", "BF16", "F64", "BOOL", "F8_E4M3", [1], [2**40, 2**40], [], [0, 2**62], 7)
        )
    elif way == 8:
        header = spoil_tree(rng, header)
    start = to_json(header).encode()
    content = struct.pack("<Q", len(start)) + start + bytes(tensors)
    if way == 9:
        content = spoil_bytes(rng, content, head=size + 8)
    path.write_bytes(content)


def scene(rng: Rng, bench: Bench, is_good: bool) -> None:
    """Scenes of every dtype, size, CRS, transform, container and way of saying nodata; damaged bytes; VRTs."""
    bench.take("tiny.safetensors")
    name = "scene.tif"
    if is_good:
        bench.take(name)
    else:
        name = _odd_scene(rng, bench)
        if chance(rng, 0.3):
            bench.run(["info", name, *pick(rng, ([], ["--json"]))])
    words = [name if word == "scene.tif" else word for word in PREDICT]
    more = [] if is_good else pick(rng, _SCENE_OPTIONS)
    bench.run([*words, *more], ALL_OUTPUTS, stop_after_s=patience(is_good, STOP_S))


_SCENE_OPTIONS: tuple[list[str], ...] = (
    [], [], [], [], ["--pixel-size", "1"], ["--resolution", "1.3"], ["--scale", "0", "1"], ["--bands", "1,1,1"],
    ["--bands", "3,2,1"],
    ["--bounds", "500000", "4999960", "500030", "5000000"], ["--effort", "0.3"], ["--tta"], ["--coarse-to-fine"],
    ["--min-area", "8"], ["--simplify", "2px"], ["--regularize"], ["--mask", "scene.tif"], ["--progress", "json"],
)  # fmt: skip
CRSS: tuple[Any, ...] = (
    CRS, CRS, "EPSG:4326", "EPSG:3857", "EPSG:32736", "EPSG:2056", "EPSG:3413", "EPSG:2193", "EPSG:4979", "EPSG:5703",
    "EPSG:4978",
    "EPSG:2263", "EPSG:6344+5703", None, 'LOCAL_CS["site",UNIT["metre",1]]', 'LOCAL_CS["plant",UNIT["unknown",1]]',
    "ESRI:104903",
    "+proj=ortho +lat_0=40 +lon_0=10",
    "+proj=ob_tran +o_proj=longlat +o_lon_p=0 +o_lat_p=39 +lon_0=18 +to_meter=0.0174532925199433",
)  # fmt: skip


def _transforms(rng: Rng, crs: Any) -> Affine:
    is_degrees = crs in ("EPSG:4326", "EPSG:4979", "ESRI:104903")
    usual = Affine(1e-5, 0, 15, 0, -1e-5, 45) if is_degrees else TRANSFORM
    odd = (
        usual @ Affine.scale(1, -1), usual @ Affine.rotation(20), usual @ Affine.rotation(1e-13), usual @ Affine.scale(-1, 1),
        usual @ Affine.scale(1e-9), usual @ Affine.scale(1e9), usual @ Affine.shear(30, 0), usual @ Affine.scale(50, 1),
        Affine(0, 0, 0, 0, 0, 0), Affine(1, 0, np.nan, 0, -1, 0), Affine(1, 0, 1e300, 0, -1, 1e300), Affine.identity(),
        usual @ Affine.translation(1e8, 1e8), Affine(0.3, 0, 179.99, 0, -0.3, 89), Affine(1, 1, 5e5, 1, 1, 5e6),
        usual @ Affine.scale(0.2), usual @ Affine.scale(20), Affine(1, 0, 5e5, 0, 0, 5e6), Affine(np.inf, 0, 0, 0, -1, 0),
    )  # fmt: skip
    return usual if chance(rng, 0.4) else pick(rng, odd)


def _odd_scene(rng: Rng, bench: Bench) -> str:
    way = rng.integers(10)
    if way < 5:
        return _odd_raster(rng, bench.folder / "scene.tif", pick(rng, (3, 3, 3, 4, 1, 2, 5))).name
    bench.take("scene.tif")
    path = bench.folder / "scene.tif"
    if way < 7:
        path.write_bytes(spoil_bytes(rng, path.read_bytes(), head=pick(rng, (16, 600, 3000))))
        return path.name
    if way == 7:
        name = pick(
            rng, ("other.png", "other.jpg", "other.img", "other.bmp", "other.pix", "other.nc", "other.jp2", "other.webp")
        )
        return _translated(rng, path, bench.folder / name)
    return _vrt(rng, path)


def _odd_raster(rng: Rng, path: Path, count: int) -> Path:
    """A GeoTIFF that could be anybody's."""
    height, width = pick(rng, ((64, 80), (64, 80), (1, 1), (1, 200), (200, 1), (3, 3), (33, 31), (300, 200), (17, 130)))
    dtype = pick(
        rng, ("uint8", "uint8", "uint16", "int16", "float32", "float64", "int8", "uint32", "int32", "complex64", "uint64")
    )
    image = rng.integers(0, 127, (count, height, width)).astype(dtype)
    if dtype.startswith(("float", "complex")):
        image = (image / pick(rng, (1, 127, 1e-30, 1e30))).astype(dtype)
        image[rng.random(image.shape) < pick(rng, (0, 0, 0.05, 0.5, 1))] = pick(rng, (np.nan, np.inf, -9999, 1.7e38))
    elif chance(rng, 0.2):
        image[:] = pick(rng, (0, 1, 127))
    options: dict[str, Any] = {}
    if chance(rng, 0.4):
        options["nodata"] = pick(rng, (0, 1, 100, -1, 255, np.nan, 65535, -9999, 1e40))
    if chance(rng, 0.2):
        options["valid"] = rng.random((height, width)) < pick(rng, (0, 0.5, 1))
    if chance(rng, 0.15) and count < 4:
        options["alpha"] = (rng.integers(0, 2, (height, width)) * 255).astype("uint8")
    if chance(rng, 0.2):
        options |= pick(
            rng, ({"photometric": "palette"}, {"interleave": "pixel"}, {"nbits": 4}, {"compress": "LZW"}, {"tiled": False})
        )
    crs = pick(rng, CRSS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            write_raster(path, image, crs=crs, transform=_transforms(rng, crs), **options)
            if chance(rng, 0.3):
                _decorate(rng, path)
    except (RasterioError, ValueError, TypeError, OverflowError) as error:
        raise Unmade from error
    return path


def _decorate(rng: Rng, path: Path) -> None:
    with rasterio.open(path, "r+") as dst:
        way = rng.integers(7)
        if way == 0:
            dst.scales, dst.offsets = ((pick(rng, (0, 1e-4, -1, np.nan, 1e300)),) * dst.count, (0.5,) * dst.count)
        elif way == 1 and dst.dtypes[0] == "uint8":
            dst.write_colormap(1, {n: tuple(rng.integers(0, 256, 4)) for n in range(int(pick(rng, (1, 2, 256))))})
        elif way == 2:
            dst.update_tags(**{"GEOGLNET_LEGEND": pick(rng, TEXTS[:-4]), "AREA_OR_POINT": "Point"})
        elif way == 3:
            dst.descriptions = tuple(pick(rng, ("red", "nir", "a\nb", "", "é")) for _ in range(dst.count))
        elif way == 4:
            dst.colorinterp = [pick(rng, list(rasterio.enums.ColorInterp)[:14]) for _ in range(dst.count)]
        elif way == 5:
            dst.gcps = (
                [rasterio.control.GroundControlPoint(r, c, c * 1.0, -r * 1.0, 0) for r, c in ((0, 0), (0, 9), (9, 0))],
                CRS,
            )
        else:
            Path(f"{path}.aux.xml").write_text(spoil_text(rng, _AUX), encoding="utf-8")


_AUX = """<PAMDataset> <SRS dataAxisToSRSAxisMapping="1,2">EPSG:32633</SRS> <GeoTransform> 5, 1, 0, 5, 0, -1 </GeoTransform>
<Metadata> <MDI key="AREA_OR_POINT">Area</MDI> </Metadata> <PAMRasterBand band="1"> <Description>a</Description> <NoDataValue>3
</NoDataValue> <Scale>2</Scale> <CategoryNames> <Category>a</Category> <Category/> <Category>a</Category> </CategoryNames>
<ColorInterp>Alpha</ColorInterp> </PAMRasterBand> </PAMDataset>"""


def _translated(rng: Rng, path: Path, other: Path) -> str:
    try:
        rasterio.shutil.copy(path, other, driver={"jpg": "JPEG", "jp2": "JP2OpenJPEG"}.get(other.suffix[1:]))
    except (RasterioError, ValueError) as error:
        raise Unmade from error
    if chance(rng, 0.6):
        other.write_bytes(spoil_bytes(rng, other.read_bytes(), head=300))
    path.unlink()
    return other.name


_VRT = """<VRTDataset rasterXSize="80" rasterYSize="64"> <SRS>EPSG:32633</SRS>
<GeoTransform>500000,1,0,5000000,0,-1</GeoTransform>
{bands}</VRTDataset>"""
_SIMPLE = """<VRTRasterBand dataType="Byte" band="{band}"> <NoDataValue>0</NoDataValue> <SimpleSource> <SourceFilename
relativeToVRT="1">{file}</SourceFilename> <SourceBand>{band}</SourceBand> <SrcRect xOff="0" yOff="0" xSize="80" ySize="64"/>
<DstRect xOff="0" yOff="0" xSize="80" ySize="64"/> </SimpleSource> </VRTRasterBand>"""
_RAW = """<VRTRasterBand dataType="Byte" band="{band}" subClass="VRTRawRasterBand">
<SourceFilename relativetoVRT="0">/etc/passwd</SourceFilename> <ImageOffset>0</ImageOffset> <PixelOffset>1</PixelOffset>
<LineOffset>8</LineOffset> </VRTRasterBand>"""
_DERIVED = """<VRTRasterBand dataType="Float32" band="{band}" subClass="VRTDerivedRasterBand">
<PixelFunctionType>f</PixelFunctionType>
<PixelFunctionLanguage>Python</PixelFunctionLanguage> <PixelFunctionCode>import os; os.system("touch owned")</PixelFunctionCode>
<SimpleSource> <SourceFilename relativeToVRT="1">{file}</SourceFilename> </SimpleSource> </VRTRasterBand>"""


def _vrt(rng: Rng, path: Path) -> str:
    band = pick(rng, (_SIMPLE, _SIMPLE, _SIMPLE, _RAW, _DERIVED))
    source = pick(rng, (path.name, path.name, path.name, "scene.vrt", "nowhere.tif", "/vsicurl/http://127.0.0.1:9/x.tif", "."))
    text = _VRT.format(bands="\n".join(band.format(band=number, file=source) for number in (1, 2, 3)))
    if band is _SIMPLE and chance(rng, 0.7):
        text = spoil_text(rng, text)
    (path.parent / "scene.vrt").write_text(text, encoding="utf-8", errors="replace")
    return "scene.vrt"


def labels(rng: Rng, bench: Bench, is_good: bool) -> None:
    """Label rasters of every dtype, with category tables and legends, and every option of polygons."""
    bench.take("gray.tif")
    path = bench.folder / "labels.tif"
    if is_good:
        bench.take("truth.tif")
        (bench.folder / "truth.tif").rename(path)
    else:
        _odd_raster(rng, path, 1)
        if chance(rng, 0.4):
            _few_values(rng, path)
        if chance(rng, 0.1):
            path.write_bytes(spoil_bytes(rng, path.read_bytes(), head=600))
    out = "o" + (".gpkg" if is_good else pick(rng, (".gpkg", ".gpkg", ".fgb", ".geojson", ".geojsonl", ".parquet")))
    bench.run(
        ["vectorize", path.name, out, *([] if is_good else polygon_options(rng))],
        [out],
        stop_after_s=patience(is_good, STOP_S),
    )


def _few_values(rng: Rng, path: Path) -> None:
    with silenced(NotGeoreferencedWarning), rasterio.open(path, "r+") as dst:
        values = np.array(pick(rng, ([0, 1], [0, 255], [1, 2, 3], [0, 127], [0, 1, 2, 100], [5])))
        coarse = rng.integers(0, len(values), (-(-dst.height // 5), -(-dst.width // 5)))
        grown = np.kron(coarse, np.ones((5, 5), int))[: dst.height, : dst.width]
        with np.errstate(invalid="ignore"):
            dst.write(values[grown].astype(dst.dtypes[0]), 1)


def polygon_options(rng: Rng) -> list[str]:
    """Some options of polygons, with values in and out of range."""
    sizes = ("0px", "0.4px", "1px", "3px", "100px", "1m", "1e9m")
    areas = ("0px", "1px", "5px", "1e6px", "3m2", "1e-9m2")
    choices: dict[str, tuple[str, ...]] = {
        "--simplify": sizes, "--sieve": areas, "--min-area": ("0", "3", "1e12", "1e-300"), "--min-hole": ("0", "3", "1e12"),
        "--connectivity": ("4", "8"), "--opening": ("0", "1", "64"), "--max-vertices": ("4", "5", "50", "1000"),
        "--style": ("qml", "sld"), "--statistics": ("gray.tif", "labels.tif"), "--confidence": ("gray.tif", "labels.tif"),
        "--progress": ("json", "none"),
    }  # fmt: skip
    words = [word for name in choices if chance(rng, 0.25) for word in (name, pick(rng, choices[name]))]
    flags = ("--smooth", "--regularize", "--fill-holes", "--overwrite")
    return words + [flag for flag in flags if chance(rng, 0.2)]


def config(rng: Rng, bench: Bench, is_good: bool) -> None:
    """Training configurations: wrong kinds, nesting, huge numbers, text that is no TOML; and overrides."""
    bench.take("scene.tif", "truth.tif", "train.toml", "tiny.safetensors")
    path, words = bench.folder / "train.toml", []
    if not is_good:
        tree = CONFIG | ({"validation": CONFIG["train"]} if chance(rng, 0.3) else {})
        text = to_toml(spoil_tree(rng, tree) if chance(rng, 0.8) else tree)
        if chance(rng, 0.15):
            text = spoil_text(rng, text)
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        if chance(rng, 0.3):
            key = f"{pick(rng, ('optim', 'model', 'sample', 'region', 'augment', 'legend', 'train', 'name'))}"
            key += pick(rng, ("", ".batch_size", ".backbone", ".region_size", ".classes", ".x.y", "."))
            words = ["--set", f"{key}={to_json(nasty(rng))[:3000]}"]
    if not is_good and chance(rng, 0.15):
        bench.run(["evaluate", "tiny.safetensors", path.name, "--device", "cpu"], stop_after_s=patience(is_good, TRAIN_S))
    else:
        bench.run(["train", path.name, "-o", "made.safetensors", *words], MADE, stop_after_s=patience(is_good, TRAIN_S))


_INPUT_NAMES = ("scene.tif", "truth.tif", "gray.tif", "polygons.gpkg", "tiny.safetensors", "train.toml", "nowhere.tif", ".")
_NAMES = (
    "a b.gpkg", "a;b.gpkg", "Wow!/roofs.gpkg", "a:b.parquet", "-x.gpkg", "#12.gpkg", "[site 4] r.geojson",
    "(1) roofs.gpkg", "a\nb.gpkg",
    "é.tif", "sub/../scene.tif", "./scene.tif", "SCENE.TIF", "x.tif", "x.tif", "x.gpkg", "x.gpkg", "x.fgb", "x.parquet",
    "x.geojson",
    "x", ".tif", "x.tif.tif", "gpkg_a.gpkg", "CON.gpkg", "%s.gpkg", "x.part.tif", "x.tif.unfinished", "a" * 250 + ".tif",
    "{x}.gpkg",
    "http://127.0.0.1:9/x.gpkg", "/vsimem/x.tif", "GPKG:x.gpkg", "a,b.tif", "a'b\".gpkg", "*.tif", "~.tif",
    "\udcff.gpkg", "x.gpkg ", "x..tif",
)  # fmt: skip
_NUMBERS = ("0", "1", "-1", "0.5", "2", "1e-9", "1e9", "nan", "inf", "-inf", "1e400", "64", "1000", "x", "", "١")
_FEW = ("--workers", "--readers", "--batch")  # more of these is slow or heavy, rightly


def options(rng: Rng, bench: Bench, is_good: bool) -> None:
    """Options of every verb, as click declares them, with values of every kind and names that are hard to write."""
    from geoglnet.cli.main import geoglnet

    bench.take("scene.tif", "truth.tif", "gray.tif", "polygons.gpkg", "tiny.safetensors", "train.toml")
    verb = (
        "vectorize" if is_good else pick(rng, ("predict",) * 4 + ("vectorize",) * 4 + ("info", "train", "evaluate", "models"))
    )
    command = geoglnet.get_command(click.Context(geoglnet), verb)
    positional = {
        "predict": ["scene.tif"], "vectorize": ["truth.tif", "good.gpkg" if is_good else pick(rng, _NAMES)],
        "info": ["scene.tif"],
        "train": ["train.toml"], "evaluate": ["tiny.safetensors", "train.toml"], "models": [],
    }[verb]  # fmt: skip
    words, written = [verb, *positional], positional[1:] if verb == "vectorize" else []
    if verb == "predict":
        words += ["--model", "tiny.safetensors", "--device", "cpu"]
        positional_output = pick(rng, _NAMES)
        words, written = [*words, "-o", positional_output], [positional_output]
    parameters = list(command.params) if command and not is_good else []
    rng.shuffle(parameters)
    for parameter in parameters[: int(rng.integers(1, 9))]:
        if not isinstance(parameter, click.Option) or {"--help", "--debug", "--stop-on-stdin-eof"} & {*parameter.opts}:
            continue
        values = [] if parameter.is_flag else [_option_value(rng, parameter) for _ in range(parameter.nargs)]
        if (verb, parameter.name) == ("train", "checkpoint"):  # outputs are judged by their names' ends
            values = [f"{value}.safetensors" for value in values]
        if "--model" in parameter.opts and chance(rng, 0.8):
            continue
        if (verb, parameter.name) == ("predict", "labels"):  # named already, and the last one counts
            continue
        words += [parameter.opts[-1], *values]
        if parameter.name in ("labels", "vector", "confidence", "entropy", "probabilities", "checkpoint", "output"):
            written += values if (verb, parameter.name) != ("vectorize", "confidence") else []
    bench.run(words, _names_below(written), stop_after_s=patience(is_good, STOP_S))


def _option_value(rng: Rng, option: click.Option) -> str:
    kind = option.type
    if chance(rng, 0.05):
        return str(pick(rng, TEXTS[:-1])).replace("\0", "").replace("\ud800", "\udcff")  # what a shell can pass
    if isinstance(kind, click.Choice):
        return str(pick(rng, kind.choices))
    if set(option.opts) & set(_FEW):
        return str(pick(rng, ("1", "2", "0", "x", "auto")))
    if isinstance(kind, click.Path):
        return str(pick(rng, _NAMES + _INPUT_NAMES * 2))
    if "--device" in option.opts:
        return str(pick(rng, ("cpu", "cpu", "cuda", "mps", "cuda:99999999999999999999", "x")))
    if isinstance(kind, (click.types.IntParamType, click.types.FloatParamType)):
        return str(pick(rng, _NUMBERS))
    return str(
        pick(rng, (*_NUMBERS, "1,2,3", "2px", "1.5m", "9m2", "1e9px", "optim.global_steps=1", "train=[5]", "a=b", "7,7,7"))
    )


def _names_below(names: list[str]) -> list[str]:
    """Names as the folder's listing gives them."""
    return [str(Path(name)) for name in names if name and ".." not in Path(name).parts and not name.startswith("/")]


def journal(rng: Rng, bench: Bench, is_good: bool) -> None:
    """Unfinished predictions with a spoiled journal or spoiled blocks, resumed: the same bytes, or one line."""
    bench.take("scene.tif", "tiny.safetensors")
    _take_begun(bench, "predict")
    folder = next(bench.folder.glob("*.unfinished"))
    if not is_good:
        path = pick(rng, sorted(path for path in folder.rglob("*") if path.is_file()))
        path = folder / "journal.jsonl" if chance(rng, 0.7) else path
        content = path.read_bytes()
        lines = content.split(b"\n")
        if path.name == "journal.jsonl" and chance(rng, 0.6):
            number = int(rng.integers(len(lines)))
            with_tree = spoil_tree(rng, json.loads(lines[number])) if lines[number] else nasty(rng)
            lines[number] = to_json(with_tree).encode()
            content = b"\n".join(lines)
        else:
            content = spoil_bytes(rng, content)
        path.write_bytes(content)
    ended = bench.run([*PREDICT, "--resume"], ALL_OUTPUTS, stop_after_s=patience(is_good, STOP_S))
    if is_good and ended.code:
        bench.problem(f"a good unfinished run is refused: {ended.err.strip()[:200]}")


def savepoint(rng: Rng, bench: Bench, is_good: bool) -> None:
    """Savepoints of trainings with spoiled bytes, resumed."""
    bench.take("scene.tif", "truth.tif", "train.toml")
    _take_begun(bench, "train")
    if not is_good:
        path = bench.folder / "made.resume.pt"
        path.write_bytes(spoil_bytes(rng, path.read_bytes(), head=pick(rng, (100, 4000))))
    ended = bench.run(["train", "train.toml", "-o", "made.safetensors", "--resume"], MADE, stop_after_s=patience(is_good, 30))
    if is_good and ended.code:
        bench.problem(f"a good savepoint is refused: {ended.err.strip()[:200]}")


def _take_begun(bench: Bench, verb: str) -> None:
    bench.take(f"{verb}.begun")
    for path in (bench.folder / f"{verb}.begun").iterdir():
        path.rename(bench.folder / path.name)
    (bench.folder / f"{verb}.begun").rmdir()
