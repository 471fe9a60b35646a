"""``geoglnet evaluate``: scores of a model on labelled scenes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from geoglnet.cli.options import batch_option, data_option, device_option, json_option, progress_options
from geoglnet.cli.terminal import JsonReporter, Reporter
from geoglnet.cli.verb import Verb


@click.command(cls=Verb)
@click.argument("model")
@click.argument("config", metavar="CONFIG.toml", type=click.Path(path_type=Path))
@data_option
@device_option
@batch_option
@json_option
@progress_options
def evaluate(model: str, config: Path, data: Path, device: str, batch_size: int, as_json: bool, reporter: Reporter) -> None:
    """Score a model on held-out scenes.

    MODEL is a shipped one's name or a file; the scenes are the validation sources of CONFIG.toml, whose patterns start
    from the --data folder. Prints the intersection over union of every class.
    """
    from geoglnet.prediction.config import PredictConfig
    from geoglnet.training.evaluate import evaluate as score

    settings = PredictConfig(batch_size=batch_size, device=device)
    evaluation = score(model, config, data, config=settings, progress=reporter).to_dict()
    reporter.done(f"mean IoU {evaluation['total']['mean_iou']:.3f}", evaluation)
    if not isinstance(reporter, JsonReporter):
        click.echo(json.dumps(evaluation, indent=2) if as_json else _table(evaluation))


def _table(evaluation: Mapping[str, Any]) -> str:
    rows: dict[str, Mapping[str, float]] = {**evaluation["scenes"], "all": evaluation["total"]}
    classes = [name for name in evaluation["total"] if name != "mean_iou"]
    width = max(map(len, [*rows, "SCENE"])) + 2
    lines = ["SCENE".ljust(width) + "".join(f"{name:>14}" for name in [*classes, "mean_iou"])]
    for scene, scores in rows.items():
        lines.append(scene.ljust(width) + "".join(_cell(scores.get(name)) for name in [*classes, "mean_iou"]))
    return "\n".join(lines)


def _cell(score: float | None) -> str:
    return f"{score:>14.3f}" if score is not None else f"{'-':>14}"
