"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

ConfigFile: TypeAlias = Annotated[Path, typer.Argument(metavar="CONFIG", help="The experiment, a YAML file.")]

Overrides: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Set a key over what the file says, such as training.epochs=3; may be given many times.",
    ),
]

AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print the result to stdout as one JSON object.")]
