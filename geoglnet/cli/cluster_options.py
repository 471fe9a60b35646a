"""What the verbs of predictions on many machines share."""

from __future__ import annotations

import click

from geoglnet.cli.options import option

run_argument = click.argument("run", metavar="RUN")
run_option = option(
    "--run",
    group="Outputs",
    required=True,
    metavar="FOLDER",
    help="Folder for the plan and for what workers compute, which all machines see. It goes when the outputs are whole.",
)
