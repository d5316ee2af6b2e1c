"""`bbi export`: a model's weights as a plain file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bbi_lightning.cli.runs import Root, Run, find_run, store_of
from bbi_lightning.cli.train import user_errors

if TYPE_CHECKING:
    from bbi_lightning.checkpoints.store import Checkpoint, CheckpointStore

HELP = """
Write the weights of a run's model as a safetensors file.

[bold]Examples[/bold]

  [dim]# of the newest checkpoint: the weights that the test was made with[/dim]
  bbi export digits-cnn-bbi-38aa4ac6cd-s0

  [dim]# of the best validation, or of the checkpoint with this number[/dim]
  bbi export RUN --checkpoint best
  bbi export RUN --checkpoint 7 --output weights.safetensors

[bold]How to read it[/bold]

  from safetensors.torch import load_file
  model.load_state_dict(load_file("weights.safetensors"))

  The names are the network's own. The file's metadata has run, checkpoint,
  step, epoch and the validation's values. Also for runs that were sharded.
"""


def export(
    run: Run,
    checkpoint: Annotated[
        str, typer.Option("--checkpoint", "-c", metavar="best|last|NUMBER", help="Which of its checkpoints.")
    ] = "last",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            show_default=False,
            help="The file. Default: model-step-<step>.safetensors in the run's folder.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace the file if it exists.")] = False,
    root: Root = Path("runs"),
) -> None:
    """Write a model's weights."""
    with user_errors():
        folder = find_run(run, root)
        with _mistakes():
            chosen = _chosen(store_of(folder), checkpoint)
            path = output or folder.path / f"model-step-{chosen.step}.safetensors"
            _refuse(path, force)

            from bbi_lightning.checkpoints.export import model_weights, write_safetensors

            weights = model_weights(_state_dict(chosen))
            write_safetensors(weights, path, chosen.manifest)
    elements = sum(tensor.numel() for tensor in weights.values())
    typer.echo(f"{len(weights)} tensors, {elements:,} numbers, after step {chosen.step:,}: {path}")


@contextmanager
def _mistakes() -> Iterator[None]:
    """What cannot be done becomes a sentence, like a mistake in a config."""
    from bbi_lightning.training.components import ConfigError

    try:
        yield
    except OSError as error:
        raise ConfigError(f"{error.filename or 'writing failed'}: {error.strerror or error}") from None
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _chosen(store: CheckpointStore, word: str) -> Checkpoint:
    """The checkpoint that is meant, verified. Raises ValueError: there is none, or it is damaged."""
    known = {c.number: c for c in store.checkpoints()}
    if word == "last":
        newest, passed_over = store.newest_valid()
        for sentence in passed_over:
            typer.echo(sentence, err=True)
        if newest is None:
            raise ValueError(f"run {store.run} has no valid checkpoint: train it first")
        return newest
    if word == "best":
        chosen = store.best()
        if chosen is None:
            raise ValueError(f"run {store.run} has no checkpoint that was the best: use --checkpoint last")
    elif word.isdecimal() and int(word) in known:
        chosen = known[int(word)]
    else:
        numbers = ", ".join(map(str, known)) or "none yet"
        raise ValueError(f"--checkpoint={word} is none of best, last, or the numbers there are ({numbers})")
    wrong = store.damage(chosen)
    if wrong is not None:
        raise ValueError(f"checkpoint {chosen.number} is damaged ({wrong}): choose another one")
    return chosen


def _refuse(path: Path, force: bool) -> None:
    if path.is_dir():
        raise ValueError(f"--output={path} is a folder: name the file")
    if path.exists() and not force:
        raise ValueError(f"{path} exists: choose another --output, or replace it with --force")


def _state_dict(checkpoint: Checkpoint) -> Mapping[str, Any]:
    """The state_dict of a run's LightningModule, whole."""
    if checkpoint.manifest.layout == "sharded":
        from bbi_lightning.checkpoints.shard_files import read_whole

        state = read_whole(checkpoint.path, optimizers=False)
    else:
        import torch

        from bbi_lightning.checkpoints.manifest import STATE

        state = torch.load(checkpoint.path / STATE, map_location="cpu", weights_only=True, mmap=True)
    weights: Mapping[str, Any] = state["state_dict"]
    return weights
