"""``cnn-train train`` and ``cnn-train resume``: from a config, or from a run that was cut, to a result."""

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from cnn_trainer.cli import downloads
from cnn_trainer.cli.options import (
    DEFAULT_RUNS_DIR,
    AsJson,
    ConfigFile,
    Device,
    DeviceOption,
    Overrides,
    RunArgument,
    RunsDir,
)
from cnn_trainer.cli.output import next_step, print_json, say, with_overrides

if TYPE_CHECKING:
    from cnn_trainer.commands import Prepared
    from cnn_trainer.runs import Run

Quiet = Annotated[bool, typer.Option("--quiet", help="Show warnings and errors alone.")]


def train(
    config_file: ConfigFile,
    overrides: Overrides = None,
    name: Annotated[str | None, typer.Option(help="What the run is called, over the config's name.")] = None,
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
    device: DeviceOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and build everything, then stop.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Train an experiment, evaluate it on the test split, and leave a run directory.

    The test split is opened once, at the end. Stop with Ctrl-C; go on with cnn-train resume.
    """
    from cnn_trainer import commands, config, run_dirs, runs
    from cnn_trainer.cli import words

    changes = [*(overrides or ()), *_as_overrides(name, device)]
    loaded = config.load(config_file, changes)
    if not dry_run:
        run_dirs.require_writable(runs_dir)
    with downloads.shown_download(quiet) as download:
        prepared = commands.prepare(loaded, say, download)
    if not quiet:
        say(words.preparation(prepared))
    if dry_run:
        if not quiet:
            say(words.layers(prepared.session.model))
            say("dry run: nothing was written")
        if as_json:
            print_json(prepared.experiment.model_dump(mode="json"))
        if not quiet:
            next_step("train", config_file, *with_overrides(changes))
        return
    run = commands.create_run(prepared, runs_dir)
    with runs.lock_run(run):
        _run(run, prepared, quiet, as_json, resume=False)


def resume(
    run: RunArgument,
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
    epochs: Annotated[int | None, typer.Option(min=1, help="Train on to so many epochs, also a finished run.")] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Go on with a run that was cut, to the bits that it would have had.

    A finished run is left as it is, unless --epochs asks for more.
    """
    from cnn_trainer import commands, run_dirs, runs
    from cnn_trainer.cli import words

    opened = runs.open_run(run_dirs.resolve_run(run, runs_dir))
    if opened.record.status == "finished" and (epochs is None or epochs <= opened.experiment.training.epochs):
        say(f"{opened.dir}: the run is finished after {opened.record.epochs_done} epochs; nothing to do")
        if as_json:
            print_json(commands.finished_outcome(opened).model_dump(mode="json"))
        next_step("resume", opened.dir, "--epochs", str(opened.experiment.training.epochs + 1))
        return
    with runs.lock_run(opened):  # before the seconds that TensorFlow takes: a second process is refused at once
        with downloads.shown_download(quiet) as download:
            prepared = commands.prepare_resume(opened, epochs, say, download)
        if not quiet:
            say(words.preparation(prepared))
        _run(opened, prepared, quiet, as_json, resume=True)


def _as_overrides(name: str | None, device: Device | None) -> list[str]:
    """The options that stand for a key, as --set words."""
    changes = [] if name is None else [f"name={json.dumps(name)}"]
    return changes if device is None else [*changes, f"runtime.device={device.value}"]


def _run(run: "Run", prepared: "Prepared", quiet: bool, as_json: bool, resume: bool) -> None:
    from cnn_trainer import commands, progress, stopping
    from cnn_trainer.cli import words

    if not quiet:
        say(f"run: {run.dir}")
    display = progress.Display(sys.stderr, progress.choose_mode(sys.stderr, quiet))
    with stopping.stop_requests() as stop:
        outcome = commands.train_run(run, prepared, display, stop, say, resume)
    if not quiet:
        say(words.outcome(outcome))
    if as_json:
        print_json(outcome.model_dump(mode="json"))
    if not quiet:
        next_step("evaluate", run.dir)
