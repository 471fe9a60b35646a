"""``geoglnet adapt``: a model that knows a scene better, from polygons drawn on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from geoglnet.cli.adapt_options import READING, adapt_options
from geoglnet.cli.options import overwrite_option, path_option, progress_options
from geoglnet.cli.terminal import JsonReporter, Reporter, clock
from geoglnet.cli.verb import Verb


@click.command(cls=Verb)
@click.argument("model")
@click.argument("scene")
@click.argument("polygons", type=click.Path(path_type=Path))
@path_option("-o", "--checkpoint", group="Outputs", required=True, help="Model file to write (.safetensors).")
@overwrite_option
@adapt_options
@progress_options
def adapt(
    model: str,
    scene: str,
    polygons: Path,
    checkpoint: Path,
    scaling: tuple[float, float] | None,
    reporter: Reporter,
    **chosen: Any,
) -> None:
    """Adapt a model to polygons drawn or corrected on a scene.

    MODEL is the name of a shipped model or a .safetensors file, POLYGONS a vector file of polygons, strokes or points on SCENE.
    About a quarter of what was drawn is held out, by place. The new model is kept if it is better there; else CHECKPOINT holds
    the old one. The folder CHECKPOINT.run has the report. Killed, it begins anew. Needs the extra: pip install
    'geoglnet[train]'.
    """
    from geoglnet.api.adaptation import adapt as tool
    from geoglnet.prediction.predict_config import PredictConfig
    from geoglnet.raster.scaling import Scaling

    reading = {name: chosen.pop(name) for name in READING}
    config = PredictConfig(scaling=Scaling(*scaling, "given with --scale") if scaling else None, **reading)
    given = {name: value for name, value in chosen.items() if value is not None}
    done = tool(model, scene, polygons, checkpoint, config=config, progress=reporter, **given)
    facts = done.outcome.facts
    outputs = {"checkpoint": done.checkpoint_path, "run": done.run_path, "report": done.run_path / "report.html"}
    reporter.done(f"{checkpoint}: {done.outcome.reason} (in {clock(facts['seconds'])})", outputs | facts)
    if not isinstance(reporter, JsonReporter):
        click.echo(_table(facts))


def _table(facts: dict[str, Any]) -> str:
    from geoglnet.adaptation.pages import table_rows

    rows = [("MEASURE", "CLASS", "BEFORE", "AFTER", "GAIN (90 %)"), *table_rows(facts)]
    width = max(len(row[1]) for row in rows) + 2
    return "\n".join(f"{a:<14}{b:<{width}}{c:>8}{d:>8}   {e}".rstrip() for a, b, c, d, e in rows)
