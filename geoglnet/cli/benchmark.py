"""``geoglnet benchmark``: the paper's tables and figures on a configuration's data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from geoglnet.cli.options import data_option, device_option, option, progress_options
from geoglnet.cli.terminal import JsonReporter, Reporter
from geoglnet.cli.train import parse_overrides
from geoglnet.cli.verb import Verb

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
@option("-o", "--output", group="Outputs", type=click.Path(path_type=Path, file_okay=False), required=True, metavar="FOLDER",
        help="Folder for models, scores and tables; what it already holds is not computed again.")  # fmt: skip
@option("--dry", group="Outputs", is_flag=True, help="Train and measure nothing; tabulate what FOLDER holds.")
@option("--memory/--no-memory", "measures", group="Outputs", default=True, help="Measure memory and speed.  [default: yes]")
@option("--own-data", group="Outputs", is_flag=True, help="Leave out the paper's numbers: CONFIG.toml uses other data.")
@option("--systems", group="Systems", default="", metavar="A,B", help="Only these systems.  [default: all of the table's]")
@option("--seeds", group="Systems", callback=_numbers, default="0", show_default=True, metavar="0,1,2",
        help="Random seeds; every system is trained once per seed.")  # fmt: skip
@option("--sizes", group="Systems", callback=_numbers, default="", metavar="500,1000",
        help="Image sizes that figure1b and figure1c compare.")  # fmt: skip
@option("--checkpoint", "checkpoints", group="Systems", multiple=True, callback=_checkpoints, metavar="SYSTEM=FILE",
        help="Use this model instead of training SYSTEM; {seed} in FILE is replaced by the seed. May be repeated.")  # fmt: skip
@data_option
@option("--steps", group="Configuration", type=click.IntRange(1), metavar="N",
        help="Optimizer steps of every stage, instead of the configuration's.")  # fmt: skip
@option("--set", "overrides", group="Configuration", multiple=True, callback=parse_overrides, metavar="KEY=VALUE",
        help="Override a setting of CONFIG.toml; may be repeated.")  # fmt: skip
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
    is trained (or loaded, see --checkpoint), scored on the validation scenes of CONFIG.toml and measured. The table, with the
    paper's columns beside ours, is printed and written as Markdown, CSV, PNG and SVG. Needs the extras:
    pip install 'geoglnet[train,baselines]'.
    """
    from geoglnet.paper.study import Study
    from geoglnet.paper.tables import Wishes, report
    from geoglnet.paper.targets import find_target
    from geoglnet.training.train_config import read_config

    chosen_target = find_target(target)
    all_steps = {f"optim.{name}": steps for name in _STEPS} if steps else {}
    # --set wins over --steps: it names a single stage.
    study = Study(read_config(config, all_steps | overrides, reporter), data, output, checkpoints, device, reporter)
    only = tuple(name.strip() for name in systems.split(",") if name.strip())
    table = report(chosen_target, study, Wishes(seeds or (0,), sizes, only, dry, measures, own_data))
    # With --progress json, stdout is for events alone.
    if not isinstance(reporter, JsonReporter):
        click.echo(table.text, nl=False)
    reporter.done(", ".join(map(str, table.paths)), {path.suffix[1:]: path for path in table.paths})
