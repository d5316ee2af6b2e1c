"""What the verbs of `bbi sweep` have in common: which sweep is meant, and how a mistake is answered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

if TYPE_CHECKING:  # the rest is imported when a command runs: --help must be instant
    from bbi_lightning.sweeps import SweepSpec
    from bbi_lightning.sweeps.folder import SweepFolder
    from bbi_lightning.sweeps.study import Studies

CONTEXT = {"help_option_names": ["-h", "--help"]}

Dir = Annotated[Path, typer.Option("--dir", help="The folder that holds all sweeps.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The sweep's name, or its folder.")]
Json = Annotated[bool, typer.Option("--json", help="For scripts.")]
Sweeps = Annotated[
    list[str],
    typer.Argument(metavar="SWEEP…", help="Names of sweeps, or their folders.", show_default=False),
]
Against = Annotated[
    str | None,
    typer.Option(
        "--against",
        "-a",
        metavar="ARM",
        show_default=False,
        help="The arm that the others are compared to. Default: sgd, or the first.",
    ),
]
SWEEPS = Path("sweeps")


@contextmanager
def mistakes_in_a_sentence() -> Iterator[None]:
    """A mistake of the user's, or a refusal of the cluster's, is one sentence on stderr and exit code 2."""
    try:
        yield
    except (ValueError, FileNotFoundError) as error:
        if not is_a_mistake(error):
            raise
        typer.secho(f"error: {error}", err=True, fg="red")
        raise typer.Exit(2) from None


def is_a_mistake(error: Exception) -> bool:
    """Whether the sentence is all the user needs."""
    from bbi_lightning.cluster.errors import ClusterError
    from bbi_lightning.sweeps.section import SweepError
    from bbi_lightning.training.components import ConfigError

    return isinstance(error, (SweepError, ConfigError, ClusterError, FileNotFoundError))


def described(overrides: Sequence[str]) -> SweepSpec:
    """The description that a command line composes: a shipped sweep by its name, one's own by its file."""
    from bbi_lightning.sweeps import SweepError, parse_spec
    from bbi_lightning.training.composition import compose, plain
    from bbi_lightning.training.config_files import groups

    for chosen in overrides:
        if chosen.startswith("sweep=") and chosen.endswith((".yaml", ".yml")):
            return parse_spec(
                _own(Path(chosen.removeprefix("sweep=")), [o for o in overrides if o != chosen])
            )
    if not any(override.startswith("sweep=") for override in overrides):
        raise SweepError(
            f"which sweep is meant is missing: add sweep=NAME, one of {', '.join(groups()['sweep'])}"
        )
    return parse_spec(plain(compose(overrides, root="sweep"))["sweep"])


def _own(file: Path, changes: Sequence[str]) -> Mapping[str, Any]:
    """What a description of the user's own says, with `sweep.KEY=VALUE` words applied."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    from bbi_lightning.sweeps import SweepError

    if not file.is_file():
        raise SweepError(f"sweep={file} is no file: give a shipped sweep's name, or a file that is there")
    wrong = [change for change in changes if not change.startswith("sweep.")]
    if wrong:
        raise SweepError(f"{wrong[0]} changes nothing of a sweep: write it as sweep.search.trials=4")
    try:
        said = OmegaConf.load(file)
        said.merge_with_dotlist([change.removeprefix("sweep.") for change in changes])
        return cast("Mapping[str, Any]", OmegaConf.to_container(said, resolve=True))
    except (YAMLError, OmegaConfBaseException, ValueError) as error:
        raise SweepError(f"sweep={file} cannot be read: {' '.join(str(error).split())}") from None


def find(directory: Path, name: str) -> SweepFolder:
    """The folder of the sweep with this name (or at this path)."""
    from bbi_lightning.sweeps.folder import SweepFolder
    from bbi_lightning.sweeps.section import did_you_mean

    for path in (directory / name, Path(name)):
        if (path / "sweep.yaml").is_file():
            return SweepFolder(path.resolve())
    known = sorted(file.parent.name for file in directory.glob("*/sweep.yaml"))
    hint = did_you_mean(name, known) if known else "start one with bbi sweep run"
    raise FileNotFoundError(f"there is no sweep {name} in {directory}: {hint}")


def opened(folder: SweepFolder) -> Studies:
    """The studies of an existing sweep.

    Raises:
        FileNotFoundError: it has none.
    """
    from bbi_lightning.sweeps.study import Studies

    spec = folder.read_spec()
    if not folder.journal.is_file():
        raise FileNotFoundError(f"{folder.path} has no journal yet: start it with bbi sweep run")
    return Studies(folder.journal, spec)


def as_typed(name: str, directory: Path) -> str:
    """A sweep as the next command would name it."""
    return name if directory == SWEEPS else str(directory / name)


def counted(number: int, what: str) -> str:
    """1 trial, 2 trials."""
    return f"{number} {what}{'' if number == 1 else 's'}"
