"""Appearance of a generated scene: sun, season, soil, roofs and camera, drawn from the seed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

import numpy as np

Rgb = tuple[float, float, float]


class Covering(Enum):
    """Material of a roof; determines its texture."""

    METAL = "metal"
    TILE = "tile"
    CONCRETE = "concrete"
    THATCH = "thatch"


@dataclass(frozen=True, slots=True)
class RoofStyle:
    """Covering and color of a roof; ``rust`` is the fraction of its sheets that have corroded."""

    covering: Covering
    color: Rgb
    rust: float = 0.0


@dataclass(frozen=True, slots=True)
class Appearance:
    """Colors (0–255), light and camera of one world.

    Args:
        sun: unit vector toward the sun (right, down, up).
        lush: grass where it is wet.
        dry: grass where it is not.
        soil: bare ground.
        crops: colors of fields.
        crowns: colors of trees.
        water: color of ponds and rivers.
        asphalt: color of paved roads.
        roofs: styles that buildings draw from, with repetition.
        building_density: fraction of building plots that are built on.
        tree_density: multiplies the number of trees outside forests.
        saturation: strength of the colors.
        haze: how much of a gray veil lies over the image.
        gain: brightness of the exposure.
        blur_m: deviation of the camera's point spread.
        noise: deviation of the sensor's noise in gray levels.
    """

    sun: tuple[float, float, float]
    lush: Rgb
    dry: Rgb
    soil: Rgb
    crops: tuple[Rgb, ...]
    crowns: tuple[Rgb, ...]
    water: Rgb
    asphalt: Rgb
    roofs: tuple[RoofStyle, ...]
    building_density: float
    tree_density: float
    saturation: float
    haze: float
    gain: float
    blur_m: float
    noise: float


_SOILS: tuple[Rgb, ...] = ((186, 124, 88), (204, 178, 138), (158, 136, 112), (132, 108, 86), (190, 150, 112))
_LUSH: tuple[Rgb, ...] = ((92, 118, 58), (104, 128, 72), (84, 104, 56), (112, 132, 64))
_DRY: tuple[Rgb, ...] = ((158, 148, 100), (146, 136, 92), (134, 132, 84), (170, 158, 114))
_CROPS: tuple[Rgb, ...] = (
    (98, 128, 54),
    (72, 98, 46),
    (62, 84, 48),
    (130, 140, 70),
    (168, 158, 92),
    (186, 166, 112),
    (112, 100, 66),
    (86, 116, 62),
)
_CROWNS: tuple[Rgb, ...] = ((62, 84, 40), (74, 98, 46), (52, 70, 38), (88, 106, 52), (66, 82, 50), (96, 112, 58), (56, 78, 34))
_WATERS: tuple[Rgb, ...] = ((62, 78, 74), (92, 98, 78), (52, 66, 62), (112, 108, 86), (70, 94, 96))
_ROOFS: tuple[tuple[float, RoofStyle], ...] = (
    (3.0, RoofStyle(Covering.METAL, (206, 212, 216), rust=0.05)),
    (3.0, RoofStyle(Covering.METAL, (166, 172, 176), rust=0.12)),
    (1.5, RoofStyle(Covering.METAL, (178, 170, 160), rust=0.4)),
    (1.2, RoofStyle(Covering.METAL, (140, 98, 74), rust=0.7)),
    (2.0, RoofStyle(Covering.METAL, (164, 62, 64), rust=0.03)),
    (1.0, RoofStyle(Covering.METAL, (132, 56, 48), rust=0.1)),
    (1.2, RoofStyle(Covering.METAL, (70, 122, 168), rust=0.05)),
    (0.7, RoofStyle(Covering.METAL, (92, 160, 178), rust=0.05)),
    (1.0, RoofStyle(Covering.METAL, (88, 98, 112), rust=0.02)),
    (0.6, RoofStyle(Covering.METAL, (86, 124, 96), rust=0.05)),
    (2.0, RoofStyle(Covering.TILE, (186, 100, 62))),
    (1.5, RoofStyle(Covering.TILE, (158, 92, 68))),
    (0.7, RoofStyle(Covering.TILE, (112, 88, 80))),
    (2.0, RoofStyle(Covering.CONCRETE, (178, 172, 162))),
    (1.5, RoofStyle(Covering.CONCRETE, (142, 138, 132))),
    (0.8, RoofStyle(Covering.CONCRETE, (196, 186, 170))),
    (0.5, RoofStyle(Covering.THATCH, (128, 112, 88))),
)


def draw_appearance(rng: np.random.Generator) -> Appearance:
    """Draw an appearance: a scene has one soil and one season, and prefers some kinds of roofs."""
    # Shadows are 0.6 (at 60°) to 1.4 times (at 35°) as long as things are high.
    azimuth, elevation = rng.uniform(0, 2 * math.pi), math.radians(rng.uniform(35, 60))
    flat = math.cos(elevation)
    # Gamma-distributed weights make some coverings common and others rare, differently in each scene.
    weights = np.array([weight for weight, _ in _ROOFS]) * rng.gamma(1.2, 1.0, len(_ROOFS))
    # 24 with repetition: buildings choose among them evenly, and common coverings stay common.
    chosen = rng.choice(len(_ROOFS), size=24, p=weights / weights.sum())
    return Appearance(
        sun=(flat * math.cos(azimuth), flat * math.sin(azimuth), math.sin(elevation)),
        lush=jittered(rng, _one_of(rng, _LUSH), 8),
        dry=jittered(rng, _one_of(rng, _DRY), 8),
        soil=jittered(rng, _one_of(rng, _SOILS), 8),
        crops=tuple(jittered(rng, _CROPS[i], 8) for i in rng.choice(len(_CROPS), size=5)),
        crowns=tuple(jittered(rng, _CROWNS[i], 6) for i in rng.choice(len(_CROWNS), size=4)),
        water=jittered(rng, _one_of(rng, _WATERS), 6),
        asphalt=jittered(rng, (128, 126, 122), 10),
        roofs=tuple(_ROOFS[i][1] for i in chosen),
        building_density=rng.uniform(0.5, 1.0),
        tree_density=rng.uniform(0.6, 2.4),
        saturation=rng.uniform(0.7, 1.0),
        haze=rng.uniform(0.0, 0.14),
        gain=rng.uniform(0.88, 1.12),
        blur_m=rng.uniform(0.10, 0.20),
        noise=rng.uniform(1.5, 4.0),
    )


def jittered(rng: np.random.Generator, color: Rgb, amount: float) -> Rgb:
    """Make a color a little lighter or darker, and shift its hue a little."""
    # One shift of all bands changes the lightness, a smaller one of each the hue.
    shift = rng.normal(0, amount) + rng.normal(0, amount / 3, 3)
    red, green, blue = np.clip(np.asarray(color) + shift, 10, 245)
    return float(red), float(green), float(blue)


def _one_of(rng: np.random.Generator, colors: tuple[Rgb, ...]) -> Rgb:
    """Choose a color."""
    return colors[int(rng.integers(len(colors)))]
