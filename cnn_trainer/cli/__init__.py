"""The command line: parse, call, print, exit code. One module for each command or group of commands.

What these modules import at the top is loaded for ``--help`` and for every completion, so they import only Typer and
the standard library there; a command imports what it works with inside its own function.
"""

import shutil
import sys
from typing import Annotated

import typer

from cnn_trainer import __version__
from cnn_trainer.cli import (
    benchmark,
    config,
    data,
    doctor,
    evaluate,
    export,
    predict,
    report,
    runs,
    search,
    serve,
    train,
)
from cnn_trainer.cli.commands import PlainGroup, present
from cnn_trainer.cli.output import print_lines

# Frames and colours for people at a terminal that has room for them; plain text for a file or a pipe, where Rich's
# 0.06 s would be wasted.
_PRETTY = (
    all(stream is not None and stream.isatty() for stream in (sys.stdout, sys.stderr))
    and shutil.get_terminal_size().columns >= 60
)

app = typer.Typer(
    cls=PlainGroup,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich" if _PRETTY else None,
    pretty_exceptions_enable=False,  # a bug keeps Python's own traceback, which shows no values of variables
    help="Train and evaluate a convolutional network on MNIST, or on your own small images, from one YAML file.",
    epilog="Start with: cnn-train config init, or cnn-train train mnist",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print_lines([f"cnn-train {__version__}"])
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


# In the order of the help page.
_PREPARE, _RUN, _USE = "Prepare", "Train and evaluate", "Use elsewhere"
app.command("train", rich_help_panel=_RUN)(train.train_command)
app.command(rich_help_panel=_RUN)(train.resume)
app.command(rich_help_panel=_RUN)(evaluate.evaluate)
app.command("benchmark", rich_help_panel=_RUN)(benchmark.benchmark_command)
app.command(rich_help_panel=_RUN)(report.report)
app.add_typer(search.app, name="search", rich_help_panel=_RUN)
app.add_typer(runs.app, name="runs", rich_help_panel=_RUN)
app.command("predict", rich_help_panel=_USE)(predict.predict_command)
app.command(rich_help_panel=_USE)(export.export)
app.command(rich_help_panel=_USE)(serve.serve)
app.add_typer(config.app, name="config", rich_help_panel=_PREPARE)
app.add_typer(data.app, name="data", rich_help_panel=_PREPARE)
app.command(rich_help_panel=_PREPARE)(doctor.doctor)
present(app)
