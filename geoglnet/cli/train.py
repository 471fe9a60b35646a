"""``geoglnet train``: a checkpoint from a config file."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import click

from geoglnet.cli.options import data_option, option, overwrite_option, path_option, progress_options
from geoglnet.cli.score_table import score_table
from geoglnet.cli.terminal import JsonReporter, Reporter
from geoglnet.cli.verb import Verb


def parse_overrides(ctx: click.Context, param: click.Parameter, texts: tuple[str, ...]) -> dict[str, Any]:
    """Parse ``KEY=VALUE`` options into values by dotted key, as TOML reads them."""
    overrides: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (key.strip() and equals):
            raise click.BadParameter(f"{text!r} is not KEY=VALUE, as in optim.batch_size=4", ctx, param)
        try:
            overrides[key.strip()] = tomllib.loads(f"value = {value}")["value"]
        except (ValueError, RecursionError):
            overrides[key.strip()] = value.strip()  # a bare word is a string
    return overrides


@click.command(cls=Verb)
@click.argument("config", metavar="CONFIG.toml", type=click.Path(path_type=Path))
@path_option("-o", "--checkpoint", group="Outputs", required=True, help="Model file to write (.safetensors).")
@overwrite_option
@data_option
@option("--skip-corrupt", group="Data", is_flag=True, help="Skip damaged files with a warning instead of stopping.")
@option(
    "--set",
    "overrides",
    group="Configuration",
    multiple=True,
    callback=parse_overrides,
    metavar="KEY=VALUE",
    help="Override a setting of CONFIG.toml, such as optim.batch_size=4; may be repeated.",
)
@option(
    "--from",
    "start_from",
    group="Configuration",
    metavar="NAME|FILE",
    help="Start every stage from this model instead of from nothing. What CONFIG.toml leaves out is the model's.",
)
@option(
    "--global-branch-from",
    group="Configuration",
    metavar="NAME|FILE",
    help="Take the global branch from this model instead of training it.",
)
@option(
    "--branches-from",
    group="Configuration",
    metavar="NAME|FILE",
    help="Take both branches and f_agg from this model; train only what follows.",
)
@option("--resume", group="Run", is_flag=True, help="Continue an interrupted training of the same CHECKPOINT.")
@progress_options
def train(
    config: Path,
    data: Path,
    checkpoint: Path,
    start_from: str | None,
    global_branch_from: str | None,
    branches_from: str | None,
    resume: bool,
    overrides: dict[str, Any],
    skip_corrupt: bool,
    overwrite: bool,
    reporter: Reporter,
) -> None:
    """Train a model from a configuration file.

    The checkpoint stores the whole configuration. The folder CHECKPOINT.run beside it holds the training log (tensorboard
    --logdir CHECKPOINT.run) and a report of the scores on the held-out scenes, which are also printed. An interrupted
    training can be resumed and ends with the same weights. Needs the extra: pip install 'geoglnet[train]'.
    """
    from geoglnet.api.training import train as tool

    trained = tool(
        config,
        checkpoint,
        folder=data,
        overrides=overrides | ({"sample.skip_corrupt": True} if skip_corrupt else {}),
        start_from=start_from,
        global_branch_from=global_branch_from,
        branches_from=branches_from,
        resume=resume,
        overwrite=overwrite,
        progress=reporter,
    )
    scores = trained.scores
    mean = f": mean IoU {scores['total']['mean_iou']:.3f} on the held-out scenes" if scores else ""
    outputs = {"checkpoint": trained.checkpoint_path, "run": trained.run_path}
    reporter.done(f"checkpoint {checkpoint}{mean}", outputs | ({"scores": scores} if scores else {}))
    if scores and not isinstance(reporter, JsonReporter):
        click.echo(score_table(scores))
