"""``cnn-train evaluate``: the score of a run's result."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from cnn_trainer.cli.options import DEFAULT_RUNS_DIR, AsJson, DeviceOption, RunArgument, RunsDir
from cnn_trainer.cli.output import next_step, print_json, say, warn
from cnn_trainer.errors import CheckFailedError


def evaluate(
    run: RunArgument,
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
    split: Annotated[Literal["train", "validation", "test"], typer.Option(help="The split to score on.")] = "test",
    data: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Read the data from here; the score is then shown, but not saved."),
    ] = None,
    min_accuracy: Annotated[
        float | None,
        typer.Option(metavar="SHARE", min=0, max=1, help="Exit with code 7 if the accuracy is lower."),
    ] = None,
    device: DeviceOption = None,
    as_json: AsJson = False,
) -> None:
    """Score a run again: accuracy, loss, the confused classes, and figures for every class.

    Everything is rebuilt from the run directory: the network, its weights, and the data that it was trained on.
    """
    from cnn_trainer.cli.score import score_lines
    from cnn_trainer.cli.tables import stderr_width
    from cnn_trainer.evaluation.evaluate import evaluate_result, load_result
    from cnn_trainer.runs import paths, store

    opened = store.open_run(paths.resolve_run(run, runs_dir))
    warnings: list[str] = []  # the score comes first
    evaluation = evaluate_result(opened, load_result(opened, device), split, data, warnings.append)
    say(*score_lines(evaluation, stderr_width()))
    for warning in warnings:
        warn(warning)
    if as_json:
        print_json(evaluation.model_dump(mode="json"))
    if min_accuracy is not None and evaluation.accuracy < min_accuracy:
        found = f"the {evaluation.split} accuracy is {evaluation.accuracy:.4f}"
        raise CheckFailedError(f"{found}, below the required minimum {min_accuracy:g}", place=opened.dir)
    next_step("runs", "show", opened.dir)
