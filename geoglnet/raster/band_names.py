"""Names of a raster's bands, from whatever the file says of them: descriptions, metadata, wavelengths, colors, the sensor.

Names are the common names of STAC's ``eo`` extension: ``red``, ``nir08``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath

from rasterio.enums import ColorInterp
from rasterio.io import DatasetReader

from geoglnet.raster.files import is_remote

SENTINEL_2 = {
    "1": "coastal",
    "2": "blue",
    "3": "green",
    "4": "red",
    "5": "rededge071",
    "6": "rededge075",
    "7": "rededge078",
} | {
    "8": "nir",
    "8A": "nir08",
    "9": "nir09",
    "10": "cirrus",
    "11": "swir16",
    "12": "swir22",
}
LANDSAT_8 = {"1": "coastal", "2": "blue", "3": "green", "4": "red", "5": "nir08", "6": "swir16", "7": "swir22", "8": "pan"} | {
    "9": "cirrus",
    "10": "lwir11",
    "11": "lwir12",
}
LANDSAT_5 = {"1": "blue", "2": "green", "3": "red", "4": "nir08", "5": "swir16", "6": "lwir", "7": "swir22", "8": "pan"}
_BGRN = ("blue", "green", "red", "nir")


@dataclass(frozen=True, slots=True)
class Sensor:
    """How the files of a sensor are recognized, and what their bands are.

    Args:
        name: for messages.
        pattern: found in the name of a file or its metadata.
        codes: common name by the number in a band's code, ``"8A"`` of ``B8A``.
        orders: common names in order, of files whose bands have no names; by number of bands.
    """

    name: str
    pattern: re.Pattern[str]
    codes: Mapping[str, str]
    orders: tuple[tuple[str, ...], ...] = ()


def _sensor(name: str, pattern: str, codes: Mapping[str, str] | None = None, *orders: tuple[str, ...]) -> Sensor:
    return Sensor(name, re.compile(pattern, re.IGNORECASE), codes or {}, orders)


SENSORS = (
    _sensor("Sentinel-2", r"(?<![a-z0-9])s2[abcd]?_|sentinel-?2|hls\.s30|t\d\d[a-z]{3}_\d{8}t", SENTINEL_2),
    _sensor("Landsat 8 or 9", r"(?<![a-z0-9])l[co]0?[89](?!\d)|landsat[-_ ]?[89]|hls\.l30", LANDSAT_8),
    _sensor("Landsat 4 to 7", r"(?<![a-z0-9])l[te]0?[457](?!\d)|landsat[-_ ]?[457]", LANDSAT_5),
    _sensor(
        "PlanetScope",
        r"_3b_analyticms|planetscope|psb\.sd",
        None,
        _BGRN,
        ("coastal", "blue", "green05", "green", "yellow", "red", "rededge", "nir"),
    ),
    _sensor(
        "WorldView",
        r"(?<![a-z0-9])(wv0[234]|ge01|qb02)(?![a-z0-9])|worldview|geoeye|quickbird",
        None,
        ("blue", "green", "red", "nir08"),
        ("coastal", "blue", "green", "yellow", "red", "rededge", "nir08", "nir09"),
    ),
    _sensor("NAIP", r"(?<![a-z0-9])m_\d{7}_[ns][ew]_\d|(?<![a-z])naip(?![a-z])", None, ("red", "green", "blue", "nir")),
)
# Words of band descriptions in the languages that files come in; of a description the longest of them counts.
_WORDS = {
    "coastal": "coastal|coastal blue|coastal aerosol|aerosol|ultra blue|violet",
    "blue": "blue|blau|bleu|azul|blu|blauw",
    "green05": "green i|green1|green 1|green05",
    "green": "green|grün|gruen|vert|verde|groen|green ii|green2|green 2",
    "yellow": "yellow|gelb|jaune|amarillo|giallo|amarelo|geel",
    "red": "red|rot|rouge|rojo|rosso|vermelho|rood",
    "rededge": "red edge|rededge|vegetation red edge",
    "rededge071": "red edge 1|rededge1|rededge071|re1|vegetation red edge 1",
    "rededge075": "red edge 2|rededge2|rededge075|re2|vegetation red edge 2",
    "rededge078": "red edge 3|rededge3|rededge078|re3|vegetation red edge 3",
    "nir": "nir|near infrared|nearinfrared|near ir|infrared|infrarot|nahes infrarot|proche infrarouge|infrarrojo cercano|"
    "infrarojo cercano|infrarrojo|vicino infrarosso|infravermelho próximo|infravermelho proximo|nabij infrarood|pir",
    "nir08": "nir08|nir1|nir 1|narrow nir|nir narrow|near infrared 1|nir 08|nnir",
    "nir09": "nir09|nir2|nir 2|near infrared 2|water vapour|water vapor|nir 09",
    "cirrus": "cirrus",
    "swir16": "swir16|swir1|swir 1|shortwave infrared 1|short wave infrared 1|swir 16",
    "swir22": "swir22|swir2|swir 2|shortwave infrared 2|short wave infrared 2|swir 22",
    "pan": "pan|panchromatic|panchromatisch|panchromatique",
    "lwir": "lwir|thermal|thermal infrared|tir",
    "lwir11": "lwir11|tirs1|tirs 1|thermal infrared 1",
    "lwir12": "lwir12|tirs2|tirs 2|thermal infrared 2",
    "gray": "gray|grey|grau|gris|grayscale|greyscale",
    "alpha": "alpha|transparency|mask",
}
_NAME_OF = {word: name for name, words in _WORDS.items() for word in words.split("|")}
_MOST_WORDS = 4
# Ranges of common names and where their bands are centered, in micrometers (STAC eo extension, sensors above).
_WAVELENGTHS = {"coastal": (0.4, 0.443, 0.45), "blue": (0.45, 0.49, 0.53), "green": (0.53, 0.56, 0.58)} | {
    "yellow": (0.58, 0.605, 0.62),
    "red": (0.62, 0.665, 0.69),
    "rededge": (0.69, 0.72, 0.76),
    "nir": (0.76, 0.835, 0.9),
    "nir09": (0.9, 0.945, 1.0),
    "cirrus": (1.35, 1.375, 1.4),
    "swir16": (1.55, 1.61, 1.75),
    "swir22": (2.08, 2.2, 2.35),
    "lwir": (10.0, 11.0, 12.5),
}
_NAME_TAGS = ("common_name", "eo:common_name", "BANDNAME", "band_name", "BAND_NAME", "name", "long_name", "DESCRIPTION")
_WAVELENGTH_TAGS = ("CENTRAL_WAVELENGTH_UM", "WAVELENGTH", "wavelength", "center_wavelength", "central_wavelength")
_SENSOR_TAGS = ("SPACECRAFT_NAME", "SPACECRAFT_ID", "SATELLITEID", "SATELLITE", "SENSOR", "SENSOR_ID", "PLATFORM", "platform")
CODE = re.compile(r"(?<![A-Za-z0-9])(?:SR_)?B0*(\d{1,2}A?)(?![A-Za-z0-9])", re.IGNORECASE)
_NANOMETERS = re.compile(r"(\d{3,5}(?:\.\d+)?)\s*(?:nm|nanometers?)\b|(\d\.\d+)\s*(?:um|µm|micrometers?)\b", re.IGNORECASE)
_COLORS = {kind: kind.name for kind in (ColorInterp.red, ColorInterp.green, ColorInterp.blue)} | {
    getattr(ColorInterp, name): name for name in ("pan", "coastal", "rededge", "nir") if hasattr(ColorInterp, name)
}


@dataclass(frozen=True, slots=True)
class NamedBand:
    """A band, and what it is.

    Args:
        number: from 1.
        name: common name; empty where nothing is known.
        text: what the file says of it.
        source: where the name comes from, for messages: ``"description"``, ``"color"`` …
        is_guess: whether the name is likely but not certain.
    """

    number: int
    name: str = ""
    text: str = ""
    source: str = ""
    is_guess: bool = False

    @property
    def is_blank(self) -> bool:
        """Whether the file says nothing of the band but, perhaps, its number: ``"Band 1"``."""
        words = set(re.split(r"[\W\d_]+", self.text.lower())) - {"", "b", "band", "layer", "channel", "kanal", "bande", "banda"}
        return not self.name and not words

    def is_called(self, name: str) -> bool:
        """Return whether a name means this band: its common name, or what the file says of it."""
        plain = plain_name(name)
        return bool(plain) and (plain == plain_name(self.text) or (self.name or None) in (name, common_name(name)))

    def __str__(self) -> str:
        text = f" ({self.text})" if self.text and plain_name(self.text) != self.name else ""
        return f"{self.number} {self.name}{text}" if self.name else f"{self.number}{text or ' (unnamed)'}"


def plain_name(text: str) -> str:
    """Reduce a name to what it is compared by: ``"Near-Infrared "`` to ``"near infrared"``."""
    return " ".join(re.split(r"[\W_]+", text.lower())).strip()


def common_name(text: str) -> str:
    """Find the common name in a description, in any case and in several languages; empty where it has none, or two.

    >>> common_name("Band 4 - Red"), common_name("NIR_1"), common_name("proche infrarouge"), common_name("Band 1")
    ('red', 'nir08', 'nir', '')
    """
    plain = plain_name(text)
    if plain in _NAME_OF:
        return _NAME_OF[plain]
    words, found, at = plain.split(), set[str](), 0
    while at < len(words):
        lengths = range(min(_MOST_WORDS, len(words) - at), 0, -1)
        length = next((n for n in lengths if " ".join(words[at : at + n]) in _NAME_OF), 0)
        if length:
            found.add(_NAME_OF[" ".join(words[at : at + length])])
        at += max(1, length)
    return found.pop() if len(found) == 1 else ""


def name_at(micrometers: float) -> str:
    """Return the common name of a wavelength; empty between the names."""
    return next((name for name, (low, _, high) in _WAVELENGTHS.items() if low <= micrometers < high), "")


def name_bands(dataset: DatasetReader) -> tuple[NamedBand, ...]:
    """Name the bands of an open raster except alpha bands; nothing is read but metadata.

    A description counts more than the color, which is often nothing but a default of the program that wrote the file.
    """
    kinds, texts = dataset.colorinterp, dataset.descriptions
    numbers = [n for n, kind in enumerate(kinds, start=1) if kind != ColorInterp.alpha]
    bands = [band for n in numbers if (band := _described(n, texts[n - 1] or "", dataset.tags(n))).name != "alpha"]
    colors = [_COLORS.get(kinds[band.number - 1], "") for band in bands]
    sensor: Sensor | None = None
    # Searched for only where it is needed: for these metadata GDAL looks for a dozen of sidecars.
    if any(not band.name and (band.text or not color) for band, color in zip(bands, colors, strict=True)):
        imagery = {} if is_remote(dataset.name) else dataset.tags(ns="IMAGERY")
        sensor = _sensor_of(dataset, imagery)
        bands = _measured(_coded(bands, sensor), dataset)
    # Colors only where nothing better names the band, and an order only where it agrees with them.
    is_bare = not any(band.name for band in bands)
    taken = {band.name for band in bands}
    for at, (band, color) in enumerate(zip(bands, colors, strict=True)):
        if color and not band.name and color not in taken:
            bands[at] = replace(band, name=color, source="color")
    orders = sensor.orders if sensor and is_bare else ()
    order = next((names for names in orders if len(names) == len(bands)), ())
    if sensor and order and all(band.name in ("", name) for band, name in zip(bands, order, strict=True)):
        bands = [
            band if band.name else replace(band, name=name, source=f"order of {sensor.name}", is_guess=True)
            for band, name in zip(bands, order, strict=True)
        ]
    return tuple(bands)


def names_of_codes(codes: Sequence[str], file_name: str) -> tuple[str, ...]:
    """Find the common names of bands that lie in a file each, by their codes and the sensor that a file's name tells.

    >>> names_of_codes(["B04", "B8A"], "T36MYB_20200101T000000_B04_10m.jp2")
    ('red', 'nir08')

    Returns:
        Names in the order of the codes; empty for an unknown one.
    """
    sensor = next((sensor for sensor in SENSORS if sensor.pattern.search(file_name)), None)
    bands = [NamedBand(number, common_name(code), code, "code") for number, code in enumerate(codes, start=1)]
    return tuple(band.name for band in _coded(bands, sensor))


def _described(number: int, description: str, tags: Mapping[str, str]) -> NamedBand:
    """Name a band by its description, else by its metadata."""
    for text, source in ((description, "description"), *((tags.get(tag, ""), tag) for tag in _NAME_TAGS)):
        if name := common_name(text):
            return NamedBand(number, name, text, source)
    text = description or next((tags[tag] for tag in _NAME_TAGS if tags.get(tag)), "")
    return NamedBand(number, "", text, "description" if description else "metadata")


def _coded(bands: Sequence[NamedBand], sensor: Sensor | None) -> list[NamedBand]:
    """Name bands whose descriptions are codes, such as B04, by the table of the sensor, or of the likeliest one."""
    codes = {band.number: match[1].upper() for band in bands if not band.name and (match := CODE.search(band.text))}
    is_zeroed = any(re.search(r"B0[1-9]", band.text, re.IGNORECASE) for band in bands)
    is_guess, source = True, "codes of Sentinel-2"
    # B1, B2, B3 count the bands of most files, and name them in few.
    is_count = [band.text.strip().upper() for band in bands] == [f"B{n}" for n in range(1, len(bands) + 1)]
    if is_count and (sensor is None or len(bands) < 5):
        table: Mapping[str, str] = {}
    elif sensor and sensor.codes:
        table, source, is_guess = sensor.codes, f"codes of {sensor.name}", False
    elif is_zeroed or "8A" in codes.values():
        table = SENTINEL_2
    else:
        table = {code: name for code, name in SENTINEL_2.items() if LANDSAT_8.get(code) == name}
        source = "codes of Sentinel-2 and Landsat"
    names = {band.number: table.get(codes.get(band.number, ""), "") for band in bands}
    return [
        replace(band, name=names[band.number], source=source, is_guess=is_guess) if names[band.number] else band
        for band in bands
    ]


def _measured(bands: Sequence[NamedBand], dataset: DatasetReader) -> list[NamedBand]:
    """Name bands by their wavelengths; of several in the range of a name, the one nearest to where it is centered."""
    lengths = {band.number: length for band in bands if not band.name for length in _wavelengths(band, dataset)}
    rivals: dict[str, list[int]] = {}
    for number, length in lengths.items():
        rivals.setdefault(name_at(length), []).append(number)
    named = {}
    for name, numbers in rivals.items():
        if name:
            nearest = min(numbers, key=lambda number: abs(lengths[number] - _WAVELENGTHS[name][1]))
            named[nearest] = (name, f"{1000 * lengths[nearest]:.0f} nm", len(numbers) > 1)
    return [
        replace(band, name=known[0], text=known[1], source="wavelength", is_guess=known[2])
        if (known := named.get(band.number))
        else band
        for band in bands
    ]


def _wavelengths(band: NamedBand, dataset: DatasetReader) -> Iterator[float]:
    """Yield the first wavelength that a band's metadata state, in micrometers."""
    tags = dataset.tags(band.number) | ({} if is_remote(dataset.name) else dataset.tags(band.number, ns="IMAGERY"))
    for tag in _WAVELENGTH_TAGS:
        if tag in tags and (match := re.match(r"\s*(\d+(?:\.\d+)?)", tags[tag])):
            value = float(match[1])
            yield value / 1000 if value > 100 else value
            return
    if match := _NANOMETERS.search(band.text):
        yield float(match[1]) / 1000 if match[1] else float(match[2])


def _sensor_of(dataset: DatasetReader, imagery: Mapping[str, str]) -> Sensor | None:
    """Recognize the sensor by the raster's metadata, else by the name of its file."""
    tags = dataset.tags() | imagery
    said = " ".join(tags[tag] for tag in _SENSOR_TAGS if tag in tags)
    name = "" if dataset.name.lstrip().startswith("<") else PurePath(dataset.name).name
    return next((sensor for text in (said, name) for sensor in SENSORS if sensor.pattern.search(text)), None)
