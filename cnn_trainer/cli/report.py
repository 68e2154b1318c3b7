"""``cnn-train report``: one HTML page about a run, several runs, or a search."""

from pathlib import Path
from typing import Annotated

import typer

from cnn_trainer.cli.options import DEFAULT_RUNS_DIR, AsJson, RunsDir, offer_runs
from cnn_trainer.cli.output import print_json, say, warn
from cnn_trainer.errors import DeviceError, UsageError


def report(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...",
            help="Runs: run directories, names under the runs directory, or latest. Or the folder of a search.",
            autocompletion=offer_runs,
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The file to write; by default report.html in the folder of the run or search, or for several runs "
            "beside the first.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Read the images from here.", show_default=False)
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Write the page again after each epoch, until the training or search ends.")
    ] = False,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
    as_json: AsJson = False,
) -> None:
    """Write one HTML page, to look at offline in any browser: about a run, several runs, or a search.

    A run has its curves, its scores and its mistakes. Several runs are compared on the same test images; those that
    differ only in their seed are one group.
    """
    from cnn_trainer.machine import stopping
    from cnn_trainer.machine.facts import install_command

    try:
        from cnn_trainer.report import publish, subject
    except ImportError as error:
        remedy = f"install what report needs with: {install_command('cnn-trainer[report]')}"
        raise DeviceError(f"{error.name} is not installed", remedy=remedy) from None
    about = subject.find_subject(runs, runs_dir, data, warn)
    path = publish.require_place(output or about.path)
    if watch and not about.watched:
        raise UsageError("several runs cannot be watched", place="--watch", remedy="name one run or one search")

    def written() -> None:
        if open_page:
            publish.open_page(path)

    if watch:
        say(f"{path} is written again after each epoch; stop with Ctrl-C")
        with stopping.stop_requests() as stop:
            content = subject.watch_subject(about, path, stop, written)
    else:
        content = about.build(None)
        publish.write_page(path, content)
        written()
    say(f"report: {path}, {len(content):,} bytes")
    if as_json:
        print_json({"report": str(path), "bytes": len(content)})
