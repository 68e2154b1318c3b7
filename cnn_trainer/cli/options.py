"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import typer

ConfigFile: TypeAlias = Annotated[
    Path, typer.Argument(metavar="CONFIG", help="The experiment: a YAML file, or a shipped config, such as mnist.")
]

OverrideOptions: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Set a key over what the file says, such as training.epochs=3; may be given many times.",
    ),
]

AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print the result to stdout as one JSON object.")]

RunsDir: TypeAlias = Annotated[
    Path, typer.Option("--runs-dir", envvar="CNN_TRAIN_RUNS_DIR", help="The folder that holds the runs.")
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
    Literal["auto", "cpu", "gpu"] | None, typer.Option("--device", help="Where to compute, over the config.")
]
