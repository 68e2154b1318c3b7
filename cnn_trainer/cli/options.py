"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import typer

ConfigFile: TypeAlias = Annotated[
    Path,
    typer.Argument(
        metavar="CONFIG", help="The experiment: a YAML file, a shipped config such as mnist, or - for standard input."
    ),
]


def offer_overrides(context: typer.Context, incomplete: str) -> list[str]:
    """The keys and values that a half-typed KEY=VALUE can mean, for shell completion."""
    from cnn_trainer.config.completion import overrides_starting

    given = [context.params.get(name) for name in ("config_file", "configs", "subject")]
    files = [value[0] if isinstance(value, list | tuple) else value for value in given if value]
    files += context.args  # Typer leaves arguments here if --set comes last and has no value yet
    return overrides_starting(incomplete, Path(files[0]) if files else None)


OverrideOptions: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a key of the file, such as training.epochs=3; can be repeated.",
        autocompletion=offer_overrides,
    ),
]

AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print the result to stdout as one JSON object.")]

RunsDir: TypeAlias = Annotated[
    Path, typer.Option("--runs-dir", metavar="DIR", envvar="CNN_TRAIN_RUNS_DIR", help="The folder that holds the runs.")
]
"""Give it the default ``DEFAULT_RUNS_DIR`` and the name ``runs_dir``, which completion looks for."""

DEFAULT_RUNS_DIR = Path("runs")


def offer_runs(context: typer.Context, incomplete: str) -> list[str]:
    """The runs that a half-typed word can mean, for shell completion; a path is left to the shell."""
    from cnn_trainer.runs.paths import run_names

    runs_dir = context.params["runs_dir"] if "runs_dir" in context.params else None
    names = run_names(DEFAULT_RUNS_DIR if runs_dir is None else Path(runs_dir))
    return [name for name in ("latest", *names) if name.startswith(incomplete)] if names else []


RunArgument: TypeAlias = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="A run directory, a name under the runs directory, or latest.",
        autocompletion=offer_runs,
        show_default=False,
    ),
]


DeviceOption: TypeAlias = Annotated[
    Literal["auto", "cpu", "gpu"] | None, typer.Option("--device", help="Where to compute; overrides the config.")
]
