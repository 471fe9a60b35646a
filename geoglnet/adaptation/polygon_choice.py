"""Which settings of polygons suit an adapted model: those whose polygons agree best with what was drawn."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np

from geoglnet.adaptation.attempt import AdaptTask, segment
from geoglnet.adaptation.squares import CHOOSE, LEARN, Squares
from geoglnet.adaptation.tally import PolygonRules, crops_of, polygon_counts, polygon_f1
from geoglnet.models.network import Network
from geoglnet.progress import SilentProgress

_OPENINGS = (0, 2, 4, 6, 8)  # pixels
_LEAST_CONFIDENCES = (0.0, 0.6, 0.65, 0.7, 0.75, 0.8)
_FEWEST = 20  # polygons; fewer say nothing about settings
_LEAST_GAIN = 0.01  # of F1: for less, the settings stay


def choose_polygons(job: AdaptTask, network: Network, squares: Squares) -> dict[str, Any]:
    """Choose opening and least confidence on the squares that were learned from, or leave the model's settings.

    Two numbers are little to fit, so that it does no harm that the network has seen these squares. Everything else stays as
    the old model has it.
    """
    kept = dict(job.manifest.polygons)
    if job.legend.background is None or len(job.drawn.objects) < _FEWEST:
        return kept
    silent = replace(job, progress=SilentProgress())
    crops = crops_of(job.drawn, squares, squares.of_role(LEARN, CHOOSE), job.scene.transform, job.scene.shape)
    answers = segment(silent, network, job.new_manifest, crops)
    found: dict[tuple[int, float], float] = {}
    before = (kept.get("opening", 0), kept.get("min_confidence", 0.0))
    for opening, least in {before: None} | dict.fromkeys(itertools.product(_OPENINGS, _LEAST_CONFIDENCES)):
        settings = kept | {"opening": opening, "min_confidence": least}
        rules = PolygonRules.of(settings, job.manifest.resolution_m)
        counts = sum(polygon_counts(crop, answer, job.legend, rules) for crop, answer in zip(crops, answers, strict=True))
        found[opening, least] = float(np.nanmean(polygon_f1(np.asarray(counts))[list(job.legend.polygon_values)]))
    best = max(found, key=lambda pair: (found[pair], -pair[0], -pair[1]))
    if not found[best] > found[before] + _LEAST_GAIN:
        return kept
    opening, least = best
    job.progress.log(
        f"settings of polygons by what was drawn: opening {opening} px, least confidence {least:g} "
        f"(polygon F1 {found[before]:.3f} → {found[best]:.3f})"
    )
    return kept | {"opening": opening, "min_confidence": least}
