"""``geoglnet import-official``: the authors' trained weights as a model file of ours."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import click

from geoglnet.cli.options import overwrite_option, path_option
from geoglnet.cli.verb import Verb
from geoglnet.errors import ConfigError


@click.command(cls=Verb)
@click.argument("checkpoint", metavar="CHECKPOINT", type=click.Path(path_type=Path))
@path_option("-o", "--model", required=True, help="Model file to write (.safetensors).")
@click.option(
    "--stage",
    type=click.Choice(["global", "g2l", "bidirectional"]),
    help="Which stage left CHECKPOINT. Default: bidirectional with --global-checkpoint, else g2l.",
)
@path_option("--global-checkpoint", help="What the global stage left (their path_g); the bidirectional stage needs it.")
@path_option("--g2l-checkpoint", help="What the second stage left (their path_g2l), for tensors that CHECKPOINT lacks.")
@path_option("--legend", help="TOML file with a [legend], as in a training configuration. Default: by the number of classes.")
@click.option("--resolution", type=click.FloatRange(min=0, min_open=True), help="Pixel size in meters that it was trained at.")
@click.option("--region", type=click.IntRange(min=64), help="Side of the images that it was trained on, in pixels.")
@click.option(
    "--side", type=click.IntRange(min=32), default=508, show_default=True, help="Of overviews and patches, in pixels."
)
@overwrite_option
def import_official(
    checkpoint: Path, model: Path, legend: Path | None, resolution: float | None, region: int | None, **options: Any
) -> None:
    """Import weights that the authors trained.

    CHECKPOINT is a file that their code (VITA-Group/GLNet) wrote; nothing in it is executed. The model gives the authors'
    logits: their roundings are kept with it (compat = "official"). 7 classes are taken for DeepGlobe's, 2 for Inria's, in the
    authors' order.
    """
    from geoglnet.models.official.conversion import BY_CLASSES, ImportConfig, OfficialStage
    from geoglnet.models.official.conversion import import_official as convert

    dataset = None
    if legend or resolution or region:
        dataset = _dataset(legend, resolution, region, BY_CLASSES)
    stage = options["stage"] and OfficialStage(options["stage"])
    config = ImportConfig(stage, options["global_checkpoint"], options["g2l_checkpoint"], dataset, options["side"])
    manifest = convert(checkpoint, model, config, overwrite=options["overwrite"])
    click.echo(
        f"{model}: {manifest.model.sharing.value}, {manifest.model.backbone}, {', '.join(manifest.legend.names)}", err=True
    )


def _dataset(legend_path: Path | None, resolution: float | None, region: int | None, known: Any) -> Any:
    """What was said of the data, completed from a published data set of as many classes."""
    from geoglnet.legend import Legend
    from geoglnet.models.official.conversion import DEEPGLOBE, Dataset

    legend = DEEPGLOBE.legend
    if legend_path is not None:
        try:
            legend = Legend.from_dict(tomllib.loads(legend_path.read_text(encoding="utf-8-sig"))["legend"])
        except (OSError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise ConfigError(f"{legend_path} has no [legend] to read ({error})") from error
    like = known.get(legend.num_classes, DEEPGLOBE)
    return Dataset(legend, resolution or like.resolution_m, region or like.image_size)
