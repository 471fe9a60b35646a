"""``geoglnet evaluate``: scores of a model on labeled scenes."""

from __future__ import annotations

import json
from pathlib import Path

import click

from geoglnet.cli.options import (
    batch_option,
    data_option,
    device_option,
    json_option,
    option,
    overwrite_option,
    progress_options,
)
from geoglnet.cli.score_table import score_table
from geoglnet.cli.terminal import JsonReporter, Reporter
from geoglnet.cli.verb import Verb


@click.command(cls=Verb)
@click.argument("model")
@click.argument("config", metavar="CONFIG.toml", type=click.Path(path_type=Path))
@option(
    "-o",
    "--output",
    group="Outputs",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Write scores.json, scores.csv and report.png into this folder.",
)
@json_option
@overwrite_option
@data_option
@option(
    "--split",
    group="Data",
    type=click.Choice(["train", "validation", "test", "all"]),
    metavar="SPLIT",
    help="Split of a published data set to score: train, validation, test or all.",
)
@device_option
@batch_option
@progress_options
def evaluate(
    model: str,
    config: Path,
    data: Path,
    output: Path | None,
    split: str | None,
    overwrite: bool,
    device: str,
    batch_size: int,
    as_json: bool,
    reporter: Reporter,
) -> None:
    """Score a model on held-out scenes.

    MODEL is the name of a shipped model or a .safetensors file. The scenes are the validation sources of CONFIG.toml. Prints
    the intersection over union (IoU) of every class per scene, and the mean IoU under each convention in use.
    """
    from geoglnet.api.training import evaluate as tool
    from geoglnet.prediction.predict_config import PredictConfig
    from geoglnet.training.score_sheet import check_report

    if output is not None:  # before hours of scoring
        check_report(output, overwrite=overwrite)
    settings = PredictConfig(batch_size=batch_size, device=device)
    scored = tool(model, config, folder=data, split=split or "", predict_config=settings, progress=reporter)
    if output is not None:
        scored.save(output, overwrite=overwrite)
    scores = scored.evaluation.to_dict()
    reporter.done(f"mean IoU {scores['total']['mean_iou']:.3f}", scores)
    if not isinstance(reporter, JsonReporter):
        click.echo(json.dumps(scores, indent=2) if as_json else score_table(scores))
