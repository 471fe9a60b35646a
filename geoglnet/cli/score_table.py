"""Scores as a table for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from geoglnet.escaping import visible


def score_table(scores: Mapping[str, Any]) -> str:
    """Tabulate IoU per class and boundary F1, a row per scene and one for all, and the whole under each convention."""
    scenes = {visible(name): row for name, row in scores["scenes"].items()}
    rows: dict[str, Mapping[str, float]] = {**scenes, "all": {**scores["total"], **scores["conventions"]}}
    columns = [*(name for name in scores["total"] if name != "mean_iou"), "mean_iou", "boundary_f1"]
    width = max(map(len, [*rows, "SCENE"])) + 2
    lines = ["SCENE".ljust(width) + "".join(f"{visible(name):>14}" for name in columns)]
    lines += [name.ljust(width) + "".join(_cell(row.get(column)) for column in columns) for name, row in rows.items()]
    lines += ["", *(f"{name.replace('_', ' '):<30}{value:.3f}" for name, value in scores["conventions"].items())]
    return "\n".join(lines)


def _cell(score: float | None) -> str:
    return f"{score:>14.3f}" if score is not None else f"{'-':>14}"
