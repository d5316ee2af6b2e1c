"""The command line: `bbi <verb>`. Each verb has its own module, which imports what is heavy when it runs."""

from __future__ import annotations

from typing import Annotated

import typer

import bbi_lightning
from bbi_lightning.cli import (
    audit,
    checkpoints,
    compare,
    dashboard,
    doctor,
    export,
    import_runs,
    resume,
    runs,
    submit,
    sweep,
    top,
)
from bbi_lightning.cli.train import FROM_EXAMPLES, config, teaching, train
from bbi_lightning.training.leaving import own_exit_code

_CONTEXT = {"help_option_names": ["-h", "--help"]}

app = typer.Typer(
    name="bbi",
    help="Train neural networks with energy-conserving optimizers, and compare them fairly with others.",
    context_settings=_CONTEXT,
    rich_markup_mode="rich",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"bbi_lightning {bbi_lightning.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


app.command(
    context_settings=_CONTEXT,
    help=teaching("Train one network, and test it once at the end.", FROM_EXAMPLES),
)(train)
for verb, module in (
    (resume.resume, resume),
    (submit.submit, submit),
    (checkpoints.checkpoints, checkpoints),
    (export.export, export),
    (compare.compare, compare),
    (audit.audit, audit),
    (dashboard.dashboard, dashboard),
):
    app.command(context_settings=_CONTEXT, help=module.HELP, no_args_is_help=True)(verb)
app.command(context_settings=_CONTEXT, help=teaching("Print the complete config that some overrides make."))(
    config
)
app.command(context_settings=_CONTEXT, help=doctor.HELP)(doctor.doctor)
app.command(context_settings=_CONTEXT, help=top.HELP)(top.top)
app.command("import", context_settings=_CONTEXT, help=import_runs.HELP, no_args_is_help=True)(
    import_runs.import_runs
)
app.add_typer(runs.app, name="runs")
app.add_typer(sweep.app, name="sweep")


def main() -> None:
    """The entry point `bbi`."""
    with own_exit_code():
        app()
