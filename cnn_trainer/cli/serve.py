"""``cnn-train serve``: an exported model over HTTP, and a page to draw on."""

from typing import Annotated

import typer

from cnn_trainer.cli.options import DEFAULT_RUNS_DIR, RunsDir, offer_runs
from cnn_trainer.cli.output import say, warn


def serve(
    run_or_export: Annotated[
        str,
        typer.Argument(
            metavar="RUN_OR_EXPORT",
            help="A run that was exported, or the folder of an export.",
            autocompletion=offer_runs,
            show_default=False,
        ),
    ],
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="PORT", min=0, max=65535, help="The port to listen on; 0 takes a free one.")
    ] = 8501,
    max_in_flight: Annotated[
        int,
        typer.Option(metavar="N", min=1, help="How many requests are handled at a time; others are told to try again."),
    ] = 64,
    max_body_bytes: Annotated[
        int,
        typer.Option(
            metavar="BYTES",
            min=1,
            help="Largest body of a request, before and after decompression; JSON takes 30 times as much memory.",
        ),
    ] = 2**20,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Also answer to this name, such as that of a proxy; can be repeated."),
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ORIGIN",
            help="Let web pages from this origin, such as https://a.example, read answers; can be repeated.",
        ),
    ] = None,
) -> None:
    """Serve an exported model: with TensorFlow Serving's REST API, the Open Inference Protocol, and a web page.

    Ctrl-C or SIGTERM stops it after the requests in flight are answered. The log goes to stderr, one JSON object per
    line.
    """
    from cnn_trainer.cli import words
    from cnn_trainer.errors import DeviceError, count
    from cnn_trainer.machine.facts import install_command

    try:
        from cnn_trainer.serve import limits, model, server
    except ImportError as error:
        remedy = f"install what serve needs with: {install_command('cnn-trainer[serve]')}"
        raise DeviceError(f"{error.name} is not installed", remedy=remedy) from None
    limits.check_names(allow_host or [], allow_origin or [])
    served = model.open_export(model.find_export(run_or_export, runs_dir))
    listener = server.listen(host, port)
    manifest = served.manifest
    data_name = words.data_name(manifest.data.source, manifest.data.requested)
    say(
        f"model: {manifest.name}, test accuracy {manifest.test_accuracy:.2%} "
        f"on {count(manifest.test_examples, 'test image')} of {data_name}"
    )
    if not server.is_loopback(listener):
        warn(
            f"{host} is not only this machine: anyone who reaches it can use the model, without password or encryption"
        )
    say(f"{served.exported.path} in {served.runtime} at {server.address(listener)}; stop with Ctrl-C")
    hosts = server.answered_hosts(listener, allow_host or [])
    server.run(served, listener, limits.Limits(max_body_bytes, max_in_flight, hosts, allow_origin or []), say)
