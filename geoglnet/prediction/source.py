"""The scene that a run is of: opened for a model, and proved unchanged.

A digest of the content decides wherever that is cheap, so that a copy of the scene is the scene whatever its times. Larger
files are known by size, times, inode, and samples of their content: those of a copy differ, and so may what lies between the
samples. A file on a web server is known by length, ETag and Last-Modified.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import time
import urllib.request
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from geoglnet.errors import BandsError, ConfigError, ResolutionError, SceneError
from geoglnet.message import Keyword
from geoglnet.models.manifest import Manifest, read_manifest
from geoglnet.models.shipped import model_path, shipped_models
from geoglnet.prediction.predict_config import PredictConfig
from geoglnet.progress import Progress, RecordedProgress
from geoglnet.raster.files import is_remote, short_name
from geoglnet.raster.gdal import local_files
from geoglnet.raster.grid import NATIVE_TOLERANCE
from geoglnet.raster.mosaic import mosaic_of
from geoglnet.raster.products import find_product
from geoglnet.raster.scaling import Scaling
from geoglnet.raster.scene import RasterScene, open_scene
from geoglnet.types import StrPath

DIGESTED_BYTES = 256 * 2**20  # of a scene's files together: a quarter of a second
_SAMPLE_SIZE, _NUM_SAMPLES = 64 * 2**10, 64
_URL = re.compile(r"https?://.+")
_ARCHIVE = re.compile(r"/vsi(?:zip|tar|gzip)/(.*?\.(?:zip|kmz|tar|tgz|tar\.gz|gz))(?:/|$)|(?:zip|tar|gzip)://(.*?)(?:!|$)")
_PATIENCE_S, _TRIES, _AT_ONCE = 15, 3, 8
_PROBE = 32  # bytes asked for in the middle of a served file
_UNKNOWN = "not told"
Stamp = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Source:
    """What is to be segmented: one raster, or several that make one mosaic.

    Args:
        paths: at least one; of pixels that several cover the last valid one counts.
        beside: other rasters of the same place, by the name of the model's band that is read from each.

    Raises:
        ConfigError: no path.
    """

    paths: tuple[StrPath, ...]
    beside: Mapping[str, StrPath] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.paths:
            raise ConfigError("no scene given; name at least one raster")

    @classmethod
    def of(cls, given: StrPath | Sequence[StrPath], beside: Mapping[str, StrPath] | None = None) -> Source:
        """Make a source of one path or a sequence of them, and of other rasters."""
        return cls((given,) if isinstance(given, (str, os.PathLike)) else tuple(given), dict(beside or {}))

    @property
    def name(self) -> str:
        """Name of the scene in messages and tags."""
        given = os.fspath(self.paths[0])
        # What follows the ? of an address may be a key, which is nobody else's.
        address = given.partition("?")[0] if _URL.match(given.removeprefix("/vsicurl/")) else given
        first = short_name(given) if given.lstrip().startswith("<") else Path(address).name
        return first if len(self.paths) == 1 else f"{first} and {len(self.paths) - 1} more"

    def iter_files(self) -> Iterator[Path]:
        """List every local file that is read."""
        for path in (*self.paths, *self.beside.values()):
            yield from local_files(path)
            with suppress(SceneError):  # opening it raises the error
                product = None if is_remote(path) else find_product(path)
                for source in product.sources if product else ():
                    yield from local_files(source.path)

    def open_for(self, manifest: Manifest, config: PredictConfig, progress: Progress) -> RasterScene:
        """Open it as a model wants it; every rule applied goes to ``progress``.

        Raises:
            SceneNotFoundError: there is no such file.
            SceneError: a raster cannot be read, or several don't fit together.
            BandsError: the bands don't fit the model.
            ResolutionError: its pixels are much too large for the model.
        """
        resolution_m = config.resolution_m or manifest.resolution_m
        try:
            scene = open_scene(
                self.paths[0] if len(self.paths) == 1 else mosaic_of(self.paths),
                bands=config.bands,
                beside=self.beside,
                model_bands=manifest.bands,
                resolution_m=resolution_m,
                assumed_pixel_size_m=config.assumed_pixel_size_m or manifest.assumed_pixel_size_m,
                scaling=config.scaling,
                nodata=config.nodata,
                is_strict=True,
                progress=progress,
            )
        except ResolutionError as error:
            raise _too_coarse(error, manifest) from None
        if len(self.paths) > 1:
            scene.name = self.name
            progress.log(f"{len(self.paths)} scenes as one of {scene.shape.width} × {scene.shape.height} px")
        bands = ", ".join(str(band) for band in scene.bands)
        others = f" ({scene.other_rasters})" if scene.other_rasters else ""
        progress.log(f"model {manifest.name}: bands {bands} as {manifest.bands}{others}, {resolution_m:g} m pixels")
        _check_resolution(scene, manifest, resolution_m, progress)
        return scene


def _too_coarse(error: ResolutionError, manifest: Manifest) -> ResolutionError:
    """Add the shipped model that fits, if there is one, and the way out."""
    fitting = [name for name in shipped_models() if _fits(read_manifest(model_path(name)), error.pixel_size_m)]
    if fitting:
        way_out: str = "use " + Keyword("model", fitting[0]) + ", which is made for such pixels"
    else:
        way_out = "no shipped model is made for such pixels: train one (geoglnet train)"
    finest, coarsest = manifest.resolution_range_m
    return ResolutionError(
        f"{error}, and model {manifest.name} was trained on {finest:g} to {coarsest:g} m; "
        + (way_out + ", or pass " + Keyword("resolution_m", float(f"{error.pixel_size_m:.3g}")) + " and expect poor labels"),
        error.pixel_size_m,
    )


@dataclass(frozen=True, slots=True)
class Suitability:
    """How a shipped model suits a scene.

    Args:
        model: its name.
        suits: whether bands and size of the pixels are the model's.
        remark: what stands against it, or what is not known.
    """

    model: str
    suits: bool
    remark: str = ""


def suitabilities(scene_path: StrPath, **options: Any) -> list[Suitability]:
    """Say of every shipped model whether it suits a scene: by its bands, and by the size of its pixels.

    Args:
        scene_path: any raster that GDAL opens, a product or a STAC item.
        options: of :func:`~geoglnet.raster.scene.open_scene`: bands, beside, nodata, scaling.
    """
    found = []
    # Values are not in question here, and finding their range would read the scene once for every model.
    options["scaling"] = options.get("scaling") or Scaling(0, 255, "not looked at")
    for name in shipped_models():
        manifest = read_manifest(model_path(name))
        remarks = RecordedProgress()
        try:
            with open_scene(scene_path, model_bands=manifest.bands, is_strict=True, progress=remarks, **options) as scene:
                size_m = scene.native_pixel_size_m
        except (BandsError, ResolutionError) as error:
            found.append(Suitability(name, False, error.args[0]))  # a Message, which str() would not be
            continue
        finest, coarsest = manifest.resolution_range_m
        if size_m is None:
            found.append(Suitability(name, True, f"if its pixels are {finest:g} to {coarsest:g} m"))
        elif _fits(manifest, size_m):
            found.append(Suitability(name, True, next(iter(remarks.messages("warning")), "")))
        else:
            remark = f"its pixels are {size_m:.3g} m, the model is for {finest:g} to {coarsest:g} m"
            found.append(Suitability(name, False, remark))
    return found


def _fits(manifest: Manifest, size_m: float) -> bool:
    finest, coarsest = manifest.resolution_range_m
    return finest / (1 + NATIVE_TOLERANCE) <= size_m <= coarsest * (1 + NATIVE_TOLERANCE)


def _check_resolution(scene: RasterScene, manifest: Manifest, resolution_m: float, progress: Progress) -> None:
    found, (finest, coarsest) = scene.native_pixel_size_m, manifest.resolution_range_m
    known = f"model {manifest.name} was trained on {finest:g} to {coarsest:g} m"
    if not finest <= resolution_m <= coarsest:
        progress.warn(f"segmented at {resolution_m:g} m, {known}: expect poor labels")
    if found is None or finest <= found <= coarsest:
        return
    if found > coarsest:
        progress.warn(f"the scene has {found:.3g} m pixels, {known}: detail will be missing, expect poor labels")
    else:
        progress.log(f"the scene has {found:.3g} m pixels, {known}: averaged down")


@dataclass(frozen=True, slots=True)
class SceneFiles:
    """The files of a scene as they were at one moment.

    Args:
        names: of all of them; what lies in an archive is the archive.
        facts: what each is, as text by name.
        stamps: of the local ones, by which a file that was not touched is known without reading it again.
        portable: whether facts are only what copies of a file share.
    """

    names: tuple[str, ...]
    facts: Mapping[str, str]
    stamps: Mapping[str, Stamp | None]
    portable: bool = False

    @classmethod
    def of(cls, scene: RasterScene, *, portable: bool = False) -> SceneFiles:
        """Look at all files of an open scene; their content is read as far as :data:`DIGESTED_BYTES` goes.

        Args:
            scene: any.
            portable: leave out times and inodes of files that are not read whole: copies on other machines have others.

        Raises:
            SceneError: a web server sends other bytes of a file than those that were asked for.
        """
        names = tuple(dict.fromkeys(_container(name) for name in scene.file_paths))
        for url in (name for name in names[:1] if _URL.match(name)):
            _check_ranges(url)
        stamps = {name: _stamp(name) for name in names if not _URL.match(name)}
        return cls(names, _facts(names, portable), stamps, portable)

    def check_unchanged(self, name: str) -> None:
        """Refuse to go on with a scene whose files have changed since.

        Raises:
            SceneError: one has.
        """
        # Stamps first: they cost nothing, and only where one has moved the content has to be read again.
        is_untouched = all(_stamp(path) == stamp for path, stamp in self.stamps.items())
        if is_untouched and len(self.stamps) == len(self.names):
            return
        changed = [
            f"{fact}: {was}, now {now.get(fact, 'gone')}"
            for now in [_facts(self.names, self.portable)]
            for fact, was in self.facts.items()
            if now.get(fact) != was and _UNKNOWN not in f"{was} {now.get(fact)}"
        ]
        if changed:
            more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
            raise SceneError(
                f"{name} changed while it was read ({'; '.join(changed[:3])}{more}), so the labels would mix two scenes; "
                "when it no longer changes, start over with " + Keyword("overwrite", True)
            )


def _facts(names: Iterable[str], portable: bool) -> dict[str, str]:
    names = tuple(names)
    # Each served file is a round trip or more, and a mosaic may have hundreds.
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="facts") as pool:
        served = dict(zip(urls := [name for name in names if _URL.match(name)], pool.map(_served_fact, urls), strict=True))
    left, facts = DIGESTED_BYTES, {}  # in the files' order, so that the same ones are digested every time
    for number, name in enumerate(names, start=1):
        fact = served.get(name)
        if fact is None:
            fact, digested = _local_fact(Path(name), left, portable)
            left -= digested
        facts[f"scene file {number}, {name.rstrip('/').rpartition('/')[2]}"] = fact
    return facts


def _container(name: str) -> str:
    """Find the file that a virtual path leads to: an archive, or a served file."""
    for _ in range(4):  # archives in archives, behind a URL: deeper nesting is left as it is
        name = name.removeprefix("/vsicurl/").removeprefix("/vsicached/")
        found = _ARCHIVE.match(name)
        if found is None:
            break
        name = (found[1] or found[2]).strip("{}")
    return name


def _stamp(name: str) -> Stamp | None:
    try:
        state = Path(name).stat()
    except (OSError, ValueError):
        return None
    return state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_dev, state.st_ino


def _local_fact(path: Path, budget: int, portable: bool) -> tuple[str, int]:
    """Describe a local file, and count the bytes that were digested for that."""
    try:
        state = path.stat()
        if not path.is_file():
            return "no file", 0
        with path.open("rb") as file:
            if state.st_size <= budget:
                return f"{state.st_size} bytes, sha256 {hashlib.file_digest(file, 'sha256').hexdigest()[:32]}", state.st_size
            samples = _samples(file, state.st_size)
    except (OSError, ValueError):
        return "missing", 0
    if portable:
        return f"{state.st_size} bytes, samples {samples}", 0
    modified = datetime.fromtimestamp(state.st_mtime, UTC).isoformat()
    # The time of the last change of the inode too: programs can set a file's mtime back, not that.
    times = f"of {modified}, last touched {state.st_ctime_ns}, inode {state.st_dev}:{state.st_ino}"
    return f"{state.st_size} bytes {times}, samples {samples}", 0


def _samples(file: BinaryIO, size: int) -> str:
    digest = hashlib.sha256()
    for number in range(_NUM_SAMPLES):
        file.seek(max(0, size - _SAMPLE_SIZE) * number // (_NUM_SAMPLES - 1))
        digest.update(file.read(_SAMPLE_SIZE))
    return digest.hexdigest()[:32]


def _served_fact(url: str) -> str:
    """Length, ETag and Last-Modified of what a server has; a single byte is asked for, as signed addresses refuse HEAD."""
    error: Exception | None = None
    for attempt in range(_TRIES):
        try:
            _, headers = _part(url, 0, 1)
        except (OSError, http.client.HTTPException, ValueError) as failure:
            error = failure
            time.sleep(attempt)
            continue
        length = (headers.get("Content-Range") or "").rpartition("/")[2] or headers.get("Content-Length") or "unknown"
        known = [f"{key} {value}" for key in ("ETag", "Last-Modified") if (value := headers.get(key))]
        return ", ".join([f"{length} bytes", *known])
    return f"{_UNKNOWN} ({' '.join(str(error).split())})"


def _check_ranges(url: str) -> None:
    """Ask for two parts that overlap in the middle of a served file: both must be what they are said to be.

    Raises:
        SceneError: they are not.
    """
    try:
        _, headers = _part(url, 0, 1)
        total = (headers.get("Content-Range") or "").rpartition("/")[2]
        if not total.isdecimal() or int(total) < 4 * _PROBE:
            return
        middle = int(total) // 2
        (first, headers), (second, _) = _part(url, middle, _PROBE), _part(url, middle + _PROBE // 2, _PROBE)
    except (OSError, http.client.HTTPException, ValueError):  # GDAL's own words about it come with the first read
        return
    start = (headers.get("Content-Range") or "").replace("bytes ", "").partition("-")[0]
    if len(first) != _PROBE or start != str(middle) or first[_PROBE // 2 :] != second[: _PROBE // 2]:
        raise SceneError(f"the server of {url} sends other bytes than were asked for; download the scene and give the file")


def _part(url: str, start: int, count: int) -> tuple[bytes, http.client.HTTPMessage]:
    # identity: ranges of a compressed answer would be other bytes.
    headers = {"Range": f"bytes={start}-{start + count - 1}", "User-Agent": "geoglnet", "Accept-Encoding": "identity"}
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=_PATIENCE_S) as answer:
        # One byte more than asked for tells a server that ignores ranges, without reading the whole file.
        return answer.read(count + 1), answer.headers
