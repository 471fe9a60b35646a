"""``geoglnet export``: a model as a file that other programs run."""

from __future__ import annotations

from pathlib import Path

import click

from geoglnet.cli.options import option, overwrite_option, path_option, progress_options
from geoglnet.cli.terminal import Reporter
from geoglnet.cli.verb import Verb


@click.command(cls=Verb)
@click.argument("model", metavar="MODEL")
@path_option(
    "-o",
    "--output",
    group="Outputs",
    required=True,
    help="Model file to write: .onnx (Deepness, GeoDeep, ONNX Runtime) or .pt2 (torch.export). A STAC item that describes it "
    "(.onnx.json) is written beside it.",
)
@overwrite_option
@option(
    "--size",
    group="Model",
    type=click.IntRange(min=32),
    metavar="PX",
    help="Side of the image that the file takes.  [default: the model's region]",
)
@option(
    "--precision",
    group="Model",
    type=click.Choice(["float32", "float16"]),
    default="float32",
    show_default=True,
    metavar="TYPE",
    help="Number type of the network: float32, or float16 for half the size. Images and probabilities are float32.",
)
@option(
    "--opset", group="Model", type=click.IntRange(18, 21), default=18, show_default=True, metavar="N", help="Opset of ONNX."
)
@progress_options
def export(model: str, output: Path, size: int | None, precision: str, opset: int, overwrite: bool, reporter: Reporter) -> None:
    """Write a model as one file that other programs run.

    MODEL is the name of a shipped model, or a .safetensors file. What is written takes an image at the model's resolution
    with values from 0 to 1, and gives the probability of each class at each pixel: normalization, the overview, patches and
    their blending are inside. It is compared with the network before it gets its name. It takes one to three minutes.
    """
    from geoglnet.export.programs import ExportConfig, export_model

    done = export_model(model, output, ExportConfig(size, precision, opset), overwrite=overwrite, progress=reporter)
    program = done.program
    images = "one image" if program.batch else "images"
    kind = f"opset {program.opset}" if program.opset else "torch.export"
    sentence = f"{done.path}, {done.item_path}  ({kind}, {program.precision}, {images} of {program.side} px; {done.parity})"
    reporter.done(
        sentence,
        {
            "model": done.path,
            "item": done.item_path,
            "equal_labels": done.parity.equal_labels,
            "probability_error": done.parity.probability_error,
            "logit_error": done.parity.logit_error,
        },
    )
