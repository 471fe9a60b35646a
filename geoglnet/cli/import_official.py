"""``geoglnet import-official``: the authors' trained weights as a model file of ours."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import click

from geoglnet.cli.options import option, overwrite_option, path_option
from geoglnet.cli.verb import Verb
from geoglnet.errors import ConfigError


@click.command(cls=Verb)
@click.argument("checkpoint", metavar="CHECKPOINT", type=click.Path(path_type=Path))
@path_option("-o", "--model", group="Outputs", required=True, help="Model file to write (.safetensors).")
@overwrite_option
@option(
    "--stage",
    group="Checkpoints",
    type=click.Choice(["global", "g2l", "bidirectional"]),
    metavar="STAGE",
    help="Stage that wrote CHECKPOINT: global, g2l or bidirectional.  [default: g2l; bidirectional with --global-checkpoint]",
)
@path_option(
    "--global-checkpoint",
    "global_path",
    group="Checkpoints",
    help="Checkpoint of the global stage (path_g), which the bidirectional stage needs.",
)
@path_option(
    "--g2l-checkpoint",
    "g2l_path",
    group="Checkpoints",
    help="Checkpoint of the g2l stage (path_g2l), for tensors that CHECKPOINT lacks.",
)
@path_option(
    "--legend",
    group="Training data",
    help="TOML file with a [legend], as in a training configuration.  [default: by the number of classes]",
)
@option(
    "--resolution",
    "resolution_m",
    group="Training data",
    type=click.FloatRange(min=0, min_open=True),
    metavar="M",
    help="Meters per pixel that the model was trained at.",
)
@option(
    "--region",
    "image_size",
    group="Training data",
    type=click.IntRange(min=64),
    metavar="PX",
    help="Side of the training images.",
)
@option(
    "--side",
    group="Training data",
    type=click.IntRange(min=32),
    default=508,
    show_default=True,
    metavar="PX",
    help="Side of overviews and patches.",
)
def import_official(
    checkpoint: Path, model: Path, legend: Path | None, resolution_m: float | None, image_size: int | None, **options: Any
) -> None:
    """Import weights that the authors trained.

    CHECKPOINT is a file written by their code (VITA-Group/GLNet); nothing in it is executed. The model reproduces the authors'
    logits, their rounding included (compat = "official"). Seven classes are assumed to be DeepGlobe's and two Inria's, in the
    authors' order.
    """
    from geoglnet.models.official.conversion import BY_CLASSES, ImportConfig, OfficialStage
    from geoglnet.models.official.conversion import import_official as convert

    dataset = None
    if legend or resolution_m or image_size:
        dataset = _dataset(legend, resolution_m, image_size, BY_CLASSES)
    stage = options["stage"] and OfficialStage(options["stage"])
    config = ImportConfig(stage, options["global_path"], options["g2l_path"], dataset, options["side"])
    manifest = convert(checkpoint, model, config, overwrite=options["overwrite"])
    click.echo(
        f"{model}: {manifest.model.sharing.value}, {manifest.model.backbone}, {', '.join(manifest.legend.names)}", err=True
    )


def _dataset(legend_path: Path | None, resolution_m: float | None, image_size: int | None, known: Any) -> Any:
    """Complete what the options say of the data from a published data set with as many classes."""
    from geoglnet.legend import Legend
    from geoglnet.models.official.conversion import DEEPGLOBE, Dataset

    legend = DEEPGLOBE.legend
    if legend_path is not None:
        try:
            # utf-8-sig: editors on Windows put a byte order mark first, which TOML does not allow.
            legend = Legend.from_dict(tomllib.loads(legend_path.read_text(encoding="utf-8-sig"))["legend"])
        except (OSError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise ConfigError(f"{legend_path} has no [legend] to read ({error})") from error
    like = known.get(legend.num_classes, DEEPGLOBE)
    return Dataset(legend, resolution_m or like.resolution_m, image_size or like.image_size)
