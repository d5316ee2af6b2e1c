"""`bbi sweep …`: a comparison of several arms, here or on a cluster, from its plan to its results."""

from __future__ import annotations

import typer

from bbi_lightning.cli.sweep import cancel, plan, repair, results, run, status, submit, sync, work
from bbi_lightning.cli.sweep.asking import CONTEXT

app = typer.Typer(
    help="Compare arms (optimizers, say) fairly: search with equal budgets, then replicate.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings=CONTEXT,
)
for verb, text in (
    (plan.plan, plan.HELP),
    (run.run, run.HELP),
    (submit.submit, submit.HELP),
    (status.status, status.HELP),
    (results.best, results.BEST_HELP),
    (results.logs, results.LOGS_HELP),
    (results.export, results.EXPORT_HELP),
    (repair.retry, repair.RETRY_HELP),
    (repair.extend, repair.EXTEND_HELP),
    (repair.add, repair.ADD_HELP),
    (cancel.cancel, cancel.HELP),
    (sync.sync, sync.HELP),
):
    app.command(no_args_is_help=True, help=text, short_help=verb.__doc__, context_settings=CONTEXT)(verb)
app.command(no_args_is_help=True, help=work.HELP, hidden=True, context_settings=CONTEXT)(work.work)
