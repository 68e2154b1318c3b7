"""``cnn-train report``: one HTML page about a run."""

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
            help="A run directory, a name under the runs directory, or latest.",
            autocompletion=offer_runs,
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="The file to write; by default report.html in the run directory.", show_default=False
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Read the images from here.", show_default=False)
    ] = None,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
    as_json: AsJson = False,
) -> None:
    """Write one HTML page about a run, to look at offline in any browser."""
    from cnn_trainer.machine.facts import install_command
    from cnn_trainer.runs import paths

    try:
        from cnn_trainer.report import publish, run_page
        from cnn_trainer.report.context import read_context
    except ImportError as error:
        remedy = f"install what report needs with: {install_command('cnn-trainer[report]')}"
        raise DeviceError(f"{error.name} is not installed", remedy=remedy) from None
    if len(runs) > 1:
        raise UsageError("a page is about one run", place=runs[1], remedy="name one run")
    run_dir = paths.resolve_run(runs[0], runs_dir)
    path = publish.require_place(output or run_dir / paths.REPORT_FILE)
    context = read_context(run_dir, data)
    content = run_page.build_run_page(context)
    publish.write_page(path, content)
    if context.problem:
        warn(f"the page has no images: {context.problem}")
    say(f"report: {path}, {len(content):,} bytes")
    if as_json:
        print_json({"report": str(path), "bytes": len(content)})
    if open_page:
        publish.open_page(path)
