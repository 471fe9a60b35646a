"""``geoglnet VERB``: the group. A verb's file is imported when it is asked for."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

import click

from geoglnet.cli.process import abandon, prepare_environment, speak_utf8, stop_on_terminate, unprinted
from geoglnet.config import suggestion

VERBS = (
    "predict",
    "plan",
    "work",
    "finish",
    "status",
    "batch",
    "vectorize",
    "info",
    "models",
    "export",
    "demo",
    "train",
    "adapt",
    "evaluate",
    "benchmark",
    "import-model",
    "import-official",
    "doctor",
)


class LazyGroup(click.Group):
    """A group whose verbs live in ``geoglnet.cli.<verb>``."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a verb; one that is canceled while its options are read ends as one that is canceled later."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            from geoglnet.cli.verb import CANCELED, sentence_of

            click.echo(sentence_of(KeyboardInterrupt()).capitalize(), err=True)
            ctx.exit(CANCELED)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        # Options before the verb are click's to judge.
        if args[0] not in VERBS and not args[0].startswith("-"):
            ctx.fail(f"no verb {args[0]!r}{suggestion(args[0], VERBS)}")
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        name = cmd_name.replace("-", "_")
        command: click.Command = getattr(import_module(f"geoglnet.cli.{name}"), name)
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="geoglnet", prog_name="geoglnet")
def geoglnet() -> None:
    """Maps and polygons from scenes of any size, with GLNet (Chen et al., CVPR 2019).

    \b
    To start:  geoglnet demo demo
               geoglnet predict demo/scene.tif --vector demo/buildings.gpkg
    """


def main() -> None:
    """Run the ``geoglnet`` program."""
    # First, because it may start the interpreter again.
    speak_utf8()
    prepare_environment()
    stop_on_terminate()
    try:
        # Named, or "python -m geoglnet" would show another name in its help.
        geoglnet(prog_name="geoglnet")
    except OSError as error:  # help, or the line about wrong usage, to a full disk
        message = unprinted(error)
        if not message:
            raise
        try:
            click.echo(f"Error: {message}", err=True)
        except OSError:
            abandon(sys.stderr)
        sys.exit(1)
