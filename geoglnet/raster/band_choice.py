"""Bands of a raster: which of them a model reads, by name, number or preset, and whether their values are real."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TypeAlias

from rasterio.enums import ColorInterp
from rasterio.io import DatasetReader

from geoglnet.config import suggestion
from geoglnet.errors import BandsError, ConfigError, SceneError
from geoglnet.message import Keyword, Message
from geoglnet.progress import Progress, Rule, SilentProgress
from geoglnet.raster.band_names import NamedBand, common_name, name_bands
from geoglnet.raster.files import short_name

BandSelection: TypeAlias = str | Sequence[int | str]
"""Names or numbers of bands, in the order of the model's, or a preset: what the bands of a file are, in its order."""
RGB = ("red", "green", "blue")
PRESETS = {"RGB": RGB, "BGR": RGB[::-1], "RGBN": (*RGB, "nir"), "BGRN": (*RGB[::-1], "nir"), "GRAY": ("gray",)}
_ALIKE = (  # taken for each other, with a warning
    ("nir", "nir08"),
    ("rededge", "rededge071", "rededge075", "rededge078"),
    ("green", "green05"),
    ("lwir", "lwir11", "lwir12"),
    ("gray", "pan"),
)


def parse_bands(given: BandSelection | None) -> tuple[int | str, ...] | None:
    """Read a selection of bands: ``"nir,red,green"``, ``"3,2,1"``, ``"BGR"``, or a sequence of names and numbers.

    >>> parse_bands("nir, red,2"), parse_bands("bgr"), parse_bands((3, 2, 1))
    (('nir', 'red', 2), ('BGR',), (3, 2, 1))

    Raises:
        ConfigError: a number is not above 0, a name has no letter, or occurs twice.
    """
    if given is None:
        return None
    parts = [part.strip() for part in given.split(",")] if isinstance(given, str) else list(given)
    bands = tuple(int(part) if isinstance(part, str) and part.isdecimal() else part for part in parts)
    shown = ",".join(map(str, bands))
    is_known = [any(map(str.isalpha, band)) if isinstance(band, str) else band >= 1 for band in bands]
    if not all(is_known):
        raise ConfigError(
            f"bands = {shown!r} are neither names (nir,red,green) nor numbers from 1 (3,2,1) nor one of {', '.join(PRESETS)}"
        )
    names = [band.lower() for band in bands if isinstance(band, str)]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ConfigError(f"bands = {shown!r} name {twice[0]} twice; name each band once")
    preset = bands[0].upper().replace("GREY", "GRAY") if len(bands) == 1 and isinstance(bands[0], str) else ""
    return (preset,) if preset in PRESETS else bands


def choose_bands(
    dataset: DatasetReader,
    wanted: Sequence[str] | None = None,
    selection: BandSelection | None = None,
    progress: Progress = SilentProgress(),  # noqa: B008 - it has no state
) -> tuple[int, ...]:
    """Choose the 1-based bands of a raster for a model; never the alpha band, unless it is selected.

    Args:
        dataset: the open raster; only its metadata are read.
        wanted: names of the model's bands. Left out, red, green and blue if they are found, else three bands or as many as
            there are.
        selection: bands that the user has selected. Left out, they are found by name; in a raster whose bands have no names
            they are taken in its order, and one gray band is taken for each of red, green and blue.
        progress: receives the rule, if it is more than "as the file has them", and a warning for every guess.

    Raises:
        BandsError: a band is missing, or described twice; the message lists what there is.
        ConfigError: ``selection`` cannot be read.
    """
    name, chosen = short_name(dataset.name), parse_bands(selection)
    if not dataset.count:
        parts = f"name one of its parts, such as {dataset.subdatasets[0]}" if dataset.subdatasets else "give another raster"
        raise BandsError(f"{name} has no bands; {parts}")
    if chosen is None:
        return _found(dataset, wanted, progress)
    if len(chosen) == 1 and chosen[0] in PRESETS:
        bands = _preset(dataset, str(chosen[0]))
        names = wanted or (RGB if set(RGB) <= {band.name for band in bands} else [band.name for band in bands])
        return announce(find_by_name(bands, names, f"{name} as {chosen[0]}"), names, name, progress)
    if wanted is not None and len(chosen) != len(wanted):
        raise BandsError(
            f"{len(chosen)} bands are selected ({', '.join(map(str, chosen))}), the model takes {len(wanted)} "
            f"({', '.join(wanted)}); " + ("select as many with " + Keyword("bands"))
        )
    numbers = [band for band in chosen if isinstance(band, int)]
    if not chosen or any(number > dataset.count for number in numbers):
        found = f"there is no band {max(numbers)}" if chosen else "no bands are chosen"
        raise BandsError(f"{found}: {name} has bands 1 to {dataset.count}; choose among them")
    if len(numbers) == len(chosen):
        return tuple(numbers)
    names = [band for band in chosen if isinstance(band, str)]
    by_name = dict(zip(names, find_by_name(name_bands(dataset), names, name), strict=True))
    picked = [by_name[band] if isinstance(band, str) else NamedBand(band, source="number") for band in chosen]
    return announce(picked, wanted or list(map(str, chosen)), name, progress)


def _preset(dataset: DatasetReader, preset: str) -> list[NamedBand]:
    """Name the bands of a raster by a preset.

    Raises:
        BandsError: there are fewer.
    """
    names = PRESETS[preset]
    if len(names) > dataset.count:
        count = f"{dataset.count} band{'' if dataset.count == 1 else 's'}"
        raise BandsError(f"{short_name(dataset.name)} has {count}, {preset} are {len(names)}; select others")
    return [NamedBand(number, name, source=f"preset {preset}") for number, name in enumerate(names, start=1)]


def _found(dataset: DatasetReader, wanted: Sequence[str] | None, progress: Progress) -> tuple[int, ...]:
    """Find the bands of a model by name, or guess."""
    bands, name = name_bands(dataset), short_name(dataset.name)
    if not bands:
        raise BandsError(f"{name} has an alpha band and nothing else; give another raster")
    if wanted is None:
        named = {band.name: band for band in reversed(bands)}
        if all(color in named for color in RGB):
            return announce([named[color] for color in RGB], RGB, name, progress)
        return tuple(band.number for band in bands[: len(RGB)])
    count = len(wanted)
    is_enough = len(bands) >= count
    # A palette is one band of numbers whose colors GDAL does not apply by itself.
    if not is_enough and ColorInterp.palette in dataset.colorinterp:
        raise BandsError(f"{name} has one band of palette colors, {count} are needed; use gdal_translate -expand rgb")
    if is_enough and not any(band.name or band.is_called(word) for band in bands for word in wanted):
        if len(bands) > count or any(not band.is_blank for band in bands):
            have = ", ".join(map(str, bands[:8])) + (" …" if len(bands) > 8 else "")
            progress.warn(
                f"{name} does not say which of its bands ({have}) are {', '.join(wanted)}: the first {count} are taken, in "
                "this order; if that is wrong, choose with " + Keyword("bands")
            )
        return tuple(band.number for band in bands[:count])
    is_gray = len(bands) == 1 and (bands[0].name in ("pan", "gray") or bands[0].is_blank)
    if is_gray and count > 1 and set(wanted) <= set(RGB):
        gray = replace(bands[0], source="its only band", is_guess=True)
        return announce([gray] * count, wanted, name, progress)
    if not is_enough and not any(band.name for band in bands):
        found = f"{len(bands)} image band{'' if len(bands) == 1 else 's'}"
        raise BandsError(f"{name} has {found}, {count} are needed ({', '.join(wanted)}); choose another model or raster")
    return announce(find_by_name(bands, wanted, name), wanted, name, progress)


def find_by_name(bands: Sequence[NamedBand], wanted: Sequence[str], name: str) -> list[NamedBand]:
    """Find a band for every name; bands of which nothing is known stand for names that are missing, in order.

    Raises:
        BandsError: one is missing, or two are described alike.
    """
    found: dict[str, NamedBand] = {}
    for word in wanted:
        called = [band for band in bands if band.is_called(word)]
        if len(called) > 1 and any(band.source != "color" for band in called):
            exact = [band for band in called if band.text.strip() == word]
            if len(exact) != 1:
                both = " and ".join(str(band) for band in called[:2])
                raise BandsError(f"{name} has {len(called)} bands called {word} ({both}); choose with " + Keyword("bands"))
            called = exact
        if called:
            found[word] = called[0]
    for word in wanted:
        like = next((names for names in _ALIKE if common_name(word) in names), ())
        near = [band for band in bands if band.name in like and band not in found.values()]
        if word not in found and near:
            found[word] = replace(near[0], source="likeness", is_guess=True)
    missing = [word for word in wanted if word not in found]
    if set(missing) <= set(RGB) and len(missing) == len(wanted) > 1 and [band.name for band in bands] == ["gray"]:
        return [replace(bands[0], is_guess=True)] * len(wanted)
    blank = [band for band in bands if band.is_blank]
    if missing and (len(missing) > len(blank) or not found):
        raise BandsError(_missing(bands, missing, wanted, name))
    found |= {word: replace(band, source="position", is_guess=True) for word, band in zip(missing, blank, strict=False)}
    return [found[word] for word in wanted]


def _missing(bands: Sequence[NamedBand], missing: Sequence[str], wanted: Sequence[str], name: str) -> Message:
    """Say which bands are missing, and which there are."""
    have = ", ".join(map(str, bands[:16])) + (" …" if len(bands) > 16 else "")
    near = suggestion(missing[0], tuple(filter(None, (band.name or band.text for band in bands)))) if bands else ""
    hint = near if near.startswith("; did you mean") else ""
    return (
        f"{name} has no band {', '.join(missing)} (needed are {', '.join(wanted)}; it has {have or 'none'}){hint}; choose with "
        + Keyword("bands")
        + ", or add a raster with "
        + Keyword("beside")
    )


def announce(bands: Sequence[NamedBand], wanted: Sequence[str], name: str, progress: Progress) -> tuple[int, ...]:
    """Log the rule by which bands were found, unless they are the file's first ones by color; warn about guesses."""
    numbers = tuple(band.number for band in bands)
    parts = [f"{band} as {word}" if band.name != word else f"{band}" for band, word in zip(bands, wanted, strict=True)]
    sources = ", ".join(dict.fromkeys(band.source for band in bands if band.source))
    if any(band.is_guess for band in bands):
        progress.warn(f"{name}: bands {', '.join(parts)} (by {sources}); if that is wrong, choose with " + Keyword("bands"))
    elif any(band.source != "color" for band in bands) or numbers != tuple(range(1, len(bands) + 1)):
        progress.log(Rule(f"{name}: bands {', '.join(parts)} (by {sources})"))
    return numbers


def check_real(dataset: DatasetReader, bands: Iterable[int] = (1,)) -> None:
    """Refuse complex values, of which reading would silently take the real part.

    Raises:
        SceneError: one of the 1-based bands holds them.
    """
    for band in bands:
        if dataset.dtypes[band - 1].startswith("complex"):
            name = short_name(dataset.name)
            raise SceneError(
                f"{name} holds complex values ({dataset.dtypes[band - 1]} in band {band}), which are not an image; "
                f"give its amplitude, DERIVED_SUBDATASET:AMPLITUDE:{name}"
            )
