"""``geoglnet benchmark``: the paper's tables and figures on a configuration's data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from geoglnet.cli.options import data_option, device_option, progress_options
from geoglnet.cli.terminal import JsonReporter, Reporter
from geoglnet.cli.train import parse_overrides
from geoglnet.cli.verb import Verb
from geoglnet.errors import Canceled

_STEPS = ("global_steps", "local_steps", "bidirectional_steps")


def _checkpoints(ctx: click.Context, param: click.Parameter, texts: tuple[str, ...]) -> dict[str, Path]:
    pairs = [text.partition("=") for text in texts]
    if not all(name and path for name, _, path in pairs):
        raise click.BadParameter("give SYSTEM=FILE, as in one-way=model.safetensors", ctx, param)
    return {name: Path(path) for name, _, path in pairs}


def _numbers(ctx: click.Context, param: click.Parameter, text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not all(part.isdecimal() for part in parts):
        raise click.BadParameter(f"{text!r} is not a list of whole numbers, as in 0,1,2", ctx, param)
    return tuple(map(int, parts))


@click.command(cls=Verb)
@click.argument("target", metavar="TABLE|FIGURE")
@click.argument("config", metavar="CONFIG.toml", type=click.Path(path_type=Path))
@data_option
@click.option("-o", "--output", type=click.Path(path_type=Path, file_okay=False), required=True, metavar="FOLDER",
              help="Where everything is kept; what is there is not done again.")  # fmt: skip
@click.option("--seeds", callback=_numbers, default="0", show_default=True, metavar="0,1,2", help="Trainings of each system.")
@click.option("--steps", type=click.IntRange(1), help="Optimizer steps of every stage, instead of the configuration's.")
@click.option("--systems", default="", metavar="A,B", help="Only these systems.  [default: all of the table's]")
@click.option("--sizes", callback=_numbers, default="", metavar="500,1000", help="Sizes that figure1b and figure1c sweep.")
@click.option("--checkpoint", "checkpoints", multiple=True, callback=_checkpoints, metavar="SYSTEM=FILE",
              help="A trained model instead of training one; {seed} is the seed; may repeat.")  # fmt: skip
@click.option("--set", "overrides", multiple=True, callback=parse_overrides, metavar="KEY=VALUE",
              help="Override the file; may repeat.")  # fmt: skip
@click.option("--dry", is_flag=True, help="Train and measure nothing: write what FOLDER holds.")
@click.option("--memory/--no-memory", "measures", default=True, help="Measure memory and speed too.  [default: yes]")
@click.option("--own-data", is_flag=True, help="CONFIG is of other data than the paper's: leave its numbers out.")
@device_option
@progress_options
def benchmark(
    target: str,
    config: Path,
    data: Path,
    output: Path,
    seeds: tuple[int, ...],
    steps: int | None,
    systems: str,
    sizes: tuple[int, ...],
    checkpoints: dict[str, Path],
    overrides: dict[str, Any],
    dry: bool,
    measures: bool,
    own_data: bool,
    device: str,
    reporter: Reporter,
) -> None:
    """Make a table or figure of the paper on your data.

    TABLE|FIGURE is table2, table3, table4, table5, table7, figure1a, figure1b, figure1c, figure7 or figure8. Every system in it
    is trained (or taken: --checkpoint), scored on the validation scenes of CONFIG.toml and measured; the table, with the
    paper's columns beside ours, is printed and kept as Markdown, CSV, PNG and SVG. Needs the extras:
    pip install 'geoglnet[train,baselines]'.
    """
    from geoglnet.paper.report import Wishes, report
    from geoglnet.paper.study import Study
    from geoglnet.paper.targets import find_target
    from geoglnet.training.config import read_config
    from geoglnet.training.devices import silence_lightning

    silence_lightning()
    wanted = find_target(target)
    all_steps = {f"optim.{name}": steps for name in _STEPS} if steps else {}
    study = Study(read_config(config, all_steps | overrides, reporter), data, output, checkpoints, device, reporter)
    only = tuple(name.strip() for name in systems.split(",") if name.strip())
    try:
        made = report(wanted, study, Wishes(seeds or (0,), sizes, only, dry, measures, own_data))
    except SystemExit as left:  # how Lightning ends on Ctrl-C and SIGTERM
        raise Canceled("the benchmark was stopped; the same command goes on") from left
    if not isinstance(reporter, JsonReporter):
        click.echo(made.text, nl=False)
    reporter.done(", ".join(map(str, made.paths)), {path.suffix[1:]: path for path in made.paths})
