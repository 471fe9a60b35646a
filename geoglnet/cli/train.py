"""``geoglnet train``: a checkpoint from a config file."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import click

from geoglnet.cli.options import progress_options
from geoglnet.cli.terminal import Reporter
from geoglnet.cli.verb import Verb


def _overrides(ctx: click.Context, param: click.Parameter, texts: tuple[str, ...]) -> dict[str, Any]:
    overrides: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not (key.strip() and equals):
            raise click.BadParameter(f"{text!r} is not KEY=VALUE, as in batch_size=4", ctx, param)
        try:
            overrides[key.strip()] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            overrides[key.strip()] = value.strip()  # a bare word is a string
    return overrides


@click.command(cls=Verb)
@click.argument("config", metavar="CONFIG.toml", type=click.Path(path_type=Path))
@click.option("--run-dir", type=click.Path(path_type=Path), default=Path("runs"), show_default=True, help="Folder for the run.")
@click.option(
    "--set", "overrides", multiple=True, callback=_overrides, metavar="KEY=VALUE", help="Override the file; may repeat."
)
@progress_options
def train(config: Path, run_dir: Path, overrides: dict[str, Any], reporter: Reporter) -> None:
    """Train a model as a config file says.

    Writes a checkpoint into a folder of its own below --run-dir. Needs the extra: pip install 'geoglnet[train]'. The
    whole configuration is stored in the checkpoint.
    """
    from geoglnet.training.fit import fit

    checkpoint = fit(config, overrides, run_dir, reporter)
    reporter.done(f"checkpoint {checkpoint}", {"checkpoint": checkpoint})
