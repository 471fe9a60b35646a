"""``geoglnet train``: a checkpoint from a config file."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import click

from geoglnet.cli.options import data_option, overwrite_option, path_option, progress_options
from geoglnet.cli.terminal import Reporter
from geoglnet.cli.verb import Verb
from geoglnet.errors import Canceled
from geoglnet.output import OutputFile, refuse_inputs


def parse_overrides(ctx: click.Context, param: click.Parameter, texts: tuple[str, ...]) -> dict[str, Any]:
    """Values by dotted key, of ``KEY=VALUE`` as TOML reads it."""
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
@data_option
@path_option("-o", "--checkpoint", required=True, help="Model file to write (.safetensors).")
@path_option("--global-branch-from", help="Checkpoint whose global branch is taken instead of training one.")
@path_option("--branches-from", help="Checkpoint whose branches and f_agg are taken: only what comes after is trained.")
@click.option(
    "--set", "overrides", multiple=True, callback=parse_overrides, metavar="KEY=VALUE", help="Override the file; may repeat."
)
@click.option("--resume", is_flag=True, help="Go on where a training of the same CHECKPOINT was cut off.")
@click.option("--skip-corrupt", is_flag=True, help="Pass over damaged files with a warning instead of stopping.")
@overwrite_option
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
    """Train a model as a config file says.

    The patterns in CONFIG.toml start from the --data folder; the whole configuration is stored in the checkpoint. Beside it,
    CHECKPOINT.run gets the log (tensorboard --logdir) and the report of the scores. A training that is cut off can be resumed,
    and ends with the same weights. Needs the extra: pip install 'geoglnet[train]'.
    """
    from geoglnet.training.config import read_config
    from geoglnet.training.devices import silence_lightning
    from geoglnet.training.fit import Start, fit

    silence_lightning()
    refuse_inputs([OutputFile(checkpoint, overwrite or resume)], [("the configuration", config)])
    settings = read_config(config, overrides | ({"sample.skip_corrupt": True} if skip_corrupt else {}), reporter)
    try:
        start = Start(global_branch_from, branches_from, resume)
        fit(settings, data, checkpoint, start=start, overwrite=overwrite, progress=reporter)
    except SystemExit as left:  # how Lightning ends on Ctrl-C and SIGTERM
        raise Canceled("training was stopped") from left
    reporter.done(f"checkpoint {checkpoint}", {"checkpoint": checkpoint, "run": checkpoint.with_suffix(".run")})
