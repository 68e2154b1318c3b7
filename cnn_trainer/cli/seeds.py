"""``cnn-train train --seeds``: an experiment trained with several seeds, and what the runs say together."""

import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnn_trainer.cli.options import DEFAULT_RUNS_DIR
from cnn_trainer.cli.output import next_step, print_json, say, shown_download, warn
from cnn_trainer.errors import CnnTrainError, DivergedError, StoppedError, UsageError, count

if TYPE_CHECKING:
    from cnn_trainer.analysis.seeds import SeedSummary
    from cnn_trainer.config.load import Config
    from cnn_trainer.seeds.supervise import SeedRun

_PART = re.compile(r"\s*(?P<first>[0-9]{1,10})\s*(?:-\s*(?P<last>[0-9]{1,10})\s*)?")
_LARGEST = 2**31 - 1  # as in the schema, which --help does not load
_MAX_SEEDS = 1000


def parse_seeds(text: str, overrides: Sequence[str]) -> list[int]:
    """The seeds that ``1,2,3`` or ``1-3`` name, in this order. Raises UsageError."""
    place, form = f"--seeds {text}", "give numbers or ranges, such as 1,2,3 or 1-5"
    if any(override.partition("=")[0] == "seed" for override in overrides):
        raise UsageError("also got --set seed", place=place, remedy="use one of the two")
    seeds: dict[int, None] = {}
    for part in text.split(","):
        if not (found := _PART.fullmatch(part)):
            raise UsageError(f"{part.strip()!r} is not a seed", place=place, remedy=form)
        first, last = int(found["first"]), int(found["last"] or found["first"])
        if last > _LARGEST:
            raise UsageError(f"{last} is too large", place=place, remedy=f"a seed is at most {_LARGEST}")
        if last < first:
            raise UsageError(f"{part.strip()} is empty", place=place, remedy=f"write {last}-{first}")
        if last - first + 1 + len(seeds) > _MAX_SEEDS:
            raise UsageError(f"more than {_MAX_SEEDS} seeds", place=place, remedy="train them in several groups")
        for seed in range(first, last + 1):
            if seed in seeds:
                raise UsageError(f"seed {seed} is named twice", place=place, remedy="name each seed once")
            seeds[seed] = None
    return list(seeds)


def train_group(
    config: "Config",
    seeds: Sequence[int],
    again: Sequence[str],
    runs_dir: Path,
    workers: int,
    quiet: bool,
    as_json: bool,
) -> None:
    """Train a group of runs, and say what they have in common. ``again`` are the words that repeat the command.

    Raises:
        StoppedError: with the commands that do the rest.
        CnnTrainError: at the end, if a run failed, with the exit code of the first failure.
    """
    from cnn_trainer.analysis.seeds import summarize_seeds
    from cnn_trainer.machine import terminal
    from cnn_trainer.runs.paths import require_writable
    from cnn_trainer.seeds.display import SeedsDisplay
    from cnn_trainer.seeds.supervise import SeedsFeedback, train_seeds

    def ended(run: "SeedRun") -> None:
        if run.failure is not None:
            is_lost = run.dir is None or run.failure.exit_code == DivergedError.exit_code
            resume = "" if is_lost else f"; continue with: {shlex.join(('cnn-train', 'resume', str(run.dir)))}"
            warn(f"seed {run.seed}: {run.failure}{resume}")
        elif not quiet:
            say(_run_words(run))

    require_writable(runs_dir)
    with shown_download(quiet) as download:
        feedback = SeedsFeedback(
            warn=warn,
            download=download,
            began=lambda run_dir: None if quiet else _say_preparation(run_dir, seeds),
            ended=ended,
            display=SeedsDisplay(len(seeds), sys.stderr if terminal.can_draw(sys.stderr) and not quiet else None),
        )
        runs, signal_number = train_seeds(config, seeds, runs_dir, workers, feedback)
    if signal_number is not None:
        raise StoppedError(_progress(runs), signal_number, remedy=_rest(runs, again, runs_dir))
    outcomes = [run.outcome for run in runs if run.outcome is not None]
    summary = summarize_seeds(outcomes)
    if not quiet and summary is not None:
        say(*_summary_words(summary))
    if as_json:
        print_json({"runs": [_as_json(run) for run in runs], "summary": None if summary is None else asdict(summary)})
    if not quiet and outcomes:
        found = [outcome.run for outcome in outcomes]
        next_step("runs", *(("compare", *found) if summary is not None else ("show", found[0])))
    failures = [run.failure for run in runs if run.failure is not None]
    if failures:
        failed = [run for run in runs if run.failure is not None]
        error = CnnTrainError(f"{len(failures)} of {count(len(runs), 'run')} failed: {_names(failed)}")
        error.exit_code = failures[0].exit_code
        raise error


def _say_preparation(run_dir: Path, seeds: Sequence[int]) -> None:
    from cnn_trainer.cli import words
    from cnn_trainer.runs import store

    say(*words.group_preparation(store.open_run(run_dir), seeds))


def _run_words(run: "SeedRun") -> str:
    from cnn_trainer.training.display import format_seconds

    outcome = run.outcome
    if outcome is None or outcome.test_accuracy is None:
        return f"seed {run.seed}"
    figures = f"test accuracy {outcome.test_accuracy:.2%}  loss {outcome.test_loss:.4f}"
    trained = f"{count(outcome.epochs, 'epoch')} in {format_seconds(outcome.train_seconds)}"
    return f"seed {run.seed}  {figures}  {trained}  {outcome.run}"


def _summary_words(summary: "SeedSummary") -> list[str]:
    from cnn_trainer.cli.tables import stderr_width, wrap

    deviation = f"{summary.accuracy_deviation * 100:.2f} points"
    lines = [
        f"{summary.num_runs} seeds: mean test accuracy {summary.accuracy:.2%}, standard deviation {deviation}; "
        f"mean loss {summary.loss:.4f}, standard deviation {summary.loss_deviation:.4f}"
    ]
    if summary.accuracy_interval is None:
        remedy = "with data.split_seed, all runs are scored on the same images"
        lines.append(f"the runs have different test images, so there is no interval of the mean; {remedy}")
    else:
        low, high = summary.accuracy_interval
        lines.append(
            f"95 % interval of the mean accuracy: {low:.2%} to {high:.2%}, for other seeds and other test images"
        )
    return [part for line in lines for part in wrap(line, stderr_width(), "  ")]


def _progress(runs: Sequence["SeedRun"]) -> str:
    done = [run for run in runs if run.outcome is not None]
    failed = [run for run in runs if run.failure is not None]
    words = f"stopped with {len(done)} of {count(len(runs), 'run')} done"
    words += f" ({_names(done)})" if done else ""
    return words + (f", {_names(failed)} failed" if failed else "")


def _rest(runs: Sequence["SeedRun"], again: Sequence[str], runs_dir: Path) -> str:
    """The commands that do what a stopped group has left."""
    left = [run for run in runs if run.outcome is None and run.failure is None]
    begun = [run.dir for run in left if run.dir is not None]
    commands = [("resume", str(run_dir)) for run_dir in begun]
    if seeds := [str(run.seed) for run in left if run.dir is None]:
        written = [str(run.dir / "config.yaml") for run in runs if run.dir is not None]
        words = [written[0] if word == "-" and written else word for word in again]  # stdin can be read only once
        elsewhere = () if runs_dir == DEFAULT_RUNS_DIR else ("--runs-dir", str(runs_dir))
        commands.append(("train", *words, *elsewhere, "--seeds", ",".join(seeds)))
    return "continue with: " + " && ".join(shlex.join(("cnn-train", *words)) for words in commands)


def _names(runs: Sequence["SeedRun"]) -> str:
    seeds = ", ".join(str(run.seed) for run in runs)
    return f"seed {seeds}" if len(runs) == 1 else f"seeds {seeds}"


def _as_json(run: "SeedRun") -> dict[str, Any]:
    return {
        "seed": run.seed,
        "run": None if run.dir is None else str(run.dir),
        "failure": None if run.failure is None else str(run.failure),
        "outcome": None if run.outcome is None else run.outcome.model_dump(mode="json"),
    }
