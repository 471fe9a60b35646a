"""``geoglnet train``: a checkpoint from a config file."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import click

from geoglnet.cli.options import data_option, option, overwrite_option, path_option, progress_options
from geoglnet.cli.terminal import Reporter
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
@path_option(
    "--global-branch-from", group="Configuration", help="Take the global branch from this checkpoint instead of training it."
)
@path_option(
    "--branches-from", group="Configuration", help="Take both branches and f_agg from this checkpoint; train only what follows."
)
@option("--resume", group="Run", is_flag=True, help="Continue an interrupted training of the same CHECKPOINT.")
@progress_options
def train(
    config: Path,
    data: Path,
    checkpoint: Path,
    global_branch_from: Path | None,
    branches_from: Path | None,
    resume: bool,
    overrides: dict[str, Any],
    skip_corrupt: bool,
    overwrite: bool,
    reporter: Reporter,
) -> None:
    """Train a model from a configuration file.

    The checkpoint stores the whole configuration. The folder CHECKPOINT.run beside it holds the training log (tensorboard
    --logdir CHECKPOINT.run) and a report of the scores. An interrupted training can be resumed and ends with the same
    weights. Needs the extra: pip install 'geoglnet[train]'.
    """
    from geoglnet.api.training import train as tool

    trained = tool(
        config,
        checkpoint,
        folder=data,
        overrides=overrides | ({"sample.skip_corrupt": True} if skip_corrupt else {}),
        global_branch_from=global_branch_from,
        branches_from=branches_from,
        resume=resume,
        overwrite=overwrite,
        progress=reporter,
    )
    reporter.done(f"checkpoint {checkpoint}", {"checkpoint": trained.checkpoint_path, "run": trained.run_path})
