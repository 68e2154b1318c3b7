"""``cnn-train train`` and ``cnn-train resume``: from a config, or from an interrupted run, to a result."""

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cnn_trainer.cli import seeds as cli_seeds
from cnn_trainer.cli.options import (
    DEFAULT_RUNS_DIR,
    AsJson,
    ConfigFile,
    DeviceOption,
    OverrideOptions,
    RunArgument,
    RunsDir,
)
from cnn_trainer.cli.output import next_step, print_json, say, say_drawn, shown_download, warn, with_overrides
from cnn_trainer.errors import UsageError, count

if TYPE_CHECKING:
    from cnn_trainer.runs.records import RunOutcome
    from cnn_trainer.training.prepare import Feedback, Prepared

Quiet = Annotated[bool, typer.Option("--quiet", help="Show only warnings and errors.")]


def train_command(
    config_file: ConfigFile,
    overrides: OverrideOptions = None,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the run; overrides the config's name.")
    ] = None,
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
    device: DeviceOption = None,
    seeds: Annotated[
        str | None,
        typer.Option(
            metavar="SEEDS",
            help="Train one run for each seed, such as 1,2,3 or 1-5, and show the mean, deviation and interval.",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=1024,
            metavar="N",
            help="With --seeds: number of runs to train at a time, by default 1. It does not change the result.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and build everything, then stop.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Train an experiment, evaluate it on the test split, and write a run directory.

    The test split is scored once, at the end; before training it is only read, to check that it is not broken.
    Stop with Ctrl-C; continue with cnn-train resume.
    """
    from cnn_trainer.network.fits import load_checked
    from cnn_trainer.training import run as recipe
    from cnn_trainer.training.prepare import prepare

    changes = list(overrides or ())
    changes += [f"name={json.dumps(name)}"] if name is not None else []
    changes += [f"runtime.device={device}"] if device else []
    if workers is not None and seeds is None:
        raise UsageError("needs --seeds: a single run is trained by one process", place="--workers")
    group = [] if seeds is None else cli_seeds.parse_seeds(seeds, changes)
    again = [str(config_file), *with_overrides(changes)]
    again += [] if workers is None else ["--workers", str(workers)]
    config = load_checked(config_file, [*changes, *(f"seed={seed}" for seed in group[:1])])
    if group and not dry_run:
        cli_seeds.train_group(config, group, again, runs_dir, workers or 1, quiet, as_json)
        return
    with _feedback(quiet) as feedback:
        if dry_run:
            _say_dry_run(prepare(config, feedback), quiet, as_json)
        else:
            _say_outcome(recipe.train_config(config, runs_dir, feedback), quiet, as_json)
    if dry_run and not quiet:
        next_step("train", *again, *([] if seeds is None else ["--seeds", seeds]))


def resume(
    run: RunArgument,
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
    epochs: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Train until this many epochs in total are done, even if the run is finished."
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="Read the data from here if it has moved; the run records the new place."),
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Continue an interrupted run, bit for bit as if it had not been interrupted.

    A finished run is not changed, unless --epochs asks for more.
    """
    from cnn_trainer.runs import paths, store
    from cnn_trainer.training import run as recipe

    opened = store.open_run(paths.resolve_run(run, runs_dir))
    if recipe.is_done(opened, epochs):
        done = count(opened.record.epochs_done, "epoch")
        say(f"{opened.dir}: the run is finished after {done}; nothing to do")
        if as_json:
            print_json(recipe.finished_outcome(opened).model_dump(mode="json"))
        next_step("resume", opened.dir, "--epochs", str(opened.experiment.training.epochs + 1))
        return
    with _feedback(quiet) as feedback:
        _say_outcome(recipe.resume_run(opened, epochs, feedback, data_path=data), quiet, as_json)


@contextmanager
def _feedback(quiet: bool) -> "Iterator[Feedback]":
    from cnn_trainer.cli import words
    from cnn_trainer.machine import terminal
    from cnn_trainer.training.display import Display
    from cnn_trainer.training.prepare import Feedback

    tell = (lambda *_: None) if quiet else say
    with ExitStack() as until_prepared:
        download = until_prepared.enter_context(shown_download(quiet))

        def prepared(found: "Prepared") -> None:
            until_prepared.close()  # a leftover bar would draw over the one of training
            tell(*words.preparation(found))

        yield Feedback(
            warn=warn,
            download=download,
            prepared=prepared,
            created=lambda run: tell(f"run: {run.dir}"),
            display=Display(tell, sys.stderr if terminal.can_draw(sys.stderr) and not quiet else None),
        )


def _say_dry_run(prepared: "Prepared", quiet: bool, as_json: bool) -> None:
    from cnn_trainer.cli import words

    if not quiet:
        say(*words.layers(prepared.session.model), "dry run: nothing was written")
    if as_json:
        print_json(prepared.experiment.model_dump(mode="json"))


def _say_outcome(outcome: "RunOutcome", quiet: bool, as_json: bool) -> None:
    from cnn_trainer.cli import curves, score, tables, words
    from cnn_trainer.runs import store

    if not quiet:
        say_drawn(curves.curve_lines(store.read_metrics(store.open_run(Path(outcome.run)))))
        if evaluation := store.read_evaluation(Path(outcome.run)):
            say(*score.headline(evaluation, tables.stderr_width()))
        say(*words.outcome(outcome))
    if as_json:
        print_json(outcome.model_dump(mode="json"))
    if not quiet:
        next_step("evaluate", outcome.run)
