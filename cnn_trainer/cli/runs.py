"""``cnn-train runs``: lists, shows, compares and ranks runs. It only reads, and trusts nothing that it reads."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias, get_args

import typer

from cnn_trainer.cli.options import DEFAULT_RUNS_DIR, AsJson, RunArgument, RunsDir, offer_runs
from cnn_trainer.cli.output import next_step, print_json, print_lines, say
from cnn_trainer.cli.tables import pairs, stdout_width, table
from cnn_trainer.errors import RunDirectoryError, UsageError, count

if TYPE_CHECKING:
    from cnn_trainer.runs.details import RunDetails, RunSummary
    from cnn_trainer.runs.records import EpochMetrics, RunRecord

app = typer.Typer(no_args_is_help=True, help="List, show, compare and rank runs.")

_SHOWN_EPOCHS = 20
_SHOWN_REASONS = 10

# As in runs.details, which is not loaded for --help and completion.
_Status: TypeAlias = Literal[
    "created", "training", "interrupted", "paused", "diverged", "failed", "trained", "finished", "broken"
]
_Order: TypeAlias = Literal["newest", "name", "accuracy", "time"]


@app.command("list")
def runs_list(
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
    status: Annotated[
        _Status | None, typer.Option(metavar="STATUS", help=f"List only runs that are {', '.join(get_args(_Status))}.")
    ] = None,
    sort: Annotated[
        _Order,
        typer.Option(help="Newest first, by name, by the highest test accuracy, or by the shortest training time."),
    ] = "newest",
    limit: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="List at most this many.", show_default="all")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List runs with their status and score.

    Broken runs are listed too, with what is wrong with them. Only run.json and evaluation.json are read; runs show also
    reads the other files of a run.
    """
    from cnn_trainer.runs import details

    found = details.list_runs(runs_dir, sort, status, limit)
    if as_json:
        print_json({"runs_dir": str(runs_dir), "runs": [_as_json(summary) for summary in found]})
    elif found:
        heading = ("run", "status", "data", "epochs", "test accuracy", "trained")
        spare = ("trained", "epochs", "data")
        print_lines(table(heading, [_row(summary) for summary in found], stdout_width(), spare))
    _say_reasons(found)
    elsewhere = () if runs_dir == DEFAULT_RUNS_DIR else ("--runs-dir", str(runs_dir))
    if found:
        next_step("runs", "show", found[0].dir)
    elif status:
        say(f"no runs in {runs_dir} are {status}")
        next_step("runs", "list", *elsewhere)
    else:
        say(f"no runs in {runs_dir}")
        next_step("train", "mnist", *elsewhere)


def _say_reasons(found: "list[RunSummary]") -> None:
    explained = [summary for summary in found if summary.reason]
    for summary in explained[:_SHOWN_REASONS]:
        say(f"{summary.name}: {summary.reason}" if summary.record else str(summary.reason))
    if explained[_SHOWN_REASONS:]:
        say(f"and {len(explained) - _SHOWN_REASONS:,} more; cnn-train runs show RUN says what is wrong with one")


def _row(summary: "RunSummary") -> tuple[str, ...]:
    from cnn_trainer.training.display import format_seconds

    record = summary.record
    if record is None:
        return summary.name, summary.status, "-", "-", "-", "-"
    used, requested = record.data.source, record.data.requested
    return (
        summary.name,
        summary.status,
        used if used == requested else f"{used} for {requested}",
        str(summary.epochs_done),
        "-" if summary.test_accuracy is None else f"{summary.test_accuracy:.2%}",
        "-" if record.status == "training" else format_seconds(record.train_seconds),
    )


def _as_json(summary: "RunSummary") -> dict[str, object]:
    record = summary.record
    return {
        "name": summary.name,
        "run": str(summary.dir),
        "status": summary.status,
        "reason": summary.reason,
        "created_at": record and record.created_at,
        "seed": record and record.seed,
        "data": record and record.data.source,
        "requested_data": record and record.data.requested,
        "epochs": summary.epochs_done,
        "test_accuracy": summary.test_accuracy,
        "train_seconds": record and record.train_seconds,
    }


@app.command("show")
def runs_show(run: RunArgument, runs_dir: RunsDir = DEFAULT_RUNS_DIR, as_json: AsJson = False) -> None:
    """Show a run: its score, experiment, data, epochs and files.

    If a run is broken, what can be read of it is shown, and the exit code is 6.
    """
    from cnn_trainer.runs import details, paths

    run_dir = paths.resolve_run(run, runs_dir)
    found = details.read_details(run_dir)
    if as_json:
        print_json(_details_as_json(found))
    else:
        print_lines(_describe(found))
    if found.faults:
        *others, last = found.faults
        for fault in others:
            say(f"error: {fault}")
        raise RunDirectoryError(last)
    _name_next(found, run_dir)


@app.command("compare")
def runs_compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...",
            help="Two or more runs: run directories, names under the runs directory, or latest.",
            autocompletion=offer_runs,
            show_default=False,
        ),
    ],
    split: Annotated[
        Literal["test", "validation"], typer.Option(help="The split that the runs were scored on.")
    ] = "test",
    min_difference: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            min=-1,
            max=1,
            help="Exit with code 7 unless the first run is better than each other by at least X, a difference of "
            "fractions such as 0.001, with 95 % confidence. A negative X allows it to be worse by that much.",
            show_default=False,
        ),
    ] = None,
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
    as_json: AsJson = False,
) -> None:
    """Compare the accuracy of runs on the same images: which is better, and is it more than luck?

    Runs that differ only in their seed form a group, and groups are compared. Only saved scores are read.
    """
    from cnn_trainer.analysis.compare import compare_runs
    from cnn_trainer.cli import comparison
    from cnn_trainer.runs import paths

    if len(runs) < 2:
        raise UsageError("one run cannot be compared", place=runs[0], remedy="name two or more")
    found = compare_runs([paths.resolve_run(run, runs_dir) for run in runs], split)
    if as_json:
        print_json(comparison.comparison_as_json(found))
    else:
        print_lines(comparison.describe_comparison(found, stdout_width()))
    if min_difference is not None:
        comparison.require_difference(found, min_difference)


@app.command("rank")
def runs_rank(
    runs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN...]",
            help="Runs: run directories, names under the runs directory, or latest. By default, all that have a score.",
            autocompletion=offer_runs,
            show_default=False,
        ),
    ] = None,
    group: Annotated[
        Literal["seed", "none"],
        typer.Option(help="seed: runs that differ only in their seed are one row. none: every run is a row."),
    ] = "seed",
    split: Annotated[
        Literal["validation", "test"] | None,
        typer.Option(
            help="The split that the runs were scored on.",
            show_default="validation if all runs have a score on the same validation images, else test",
        ),
    ] = None,
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
    as_json: AsJson = False,
) -> None:
    """Rank runs by their accuracy, in tiers: those that cannot be told apart stand together.

    In 95 of 100 such tables, every difference between tiers is real. Only saved scores are read.
    """
    from cnn_trainer.analysis.rank import rank_runs
    from cnn_trainer.cli import ranking
    from cnn_trainer.runs import paths

    run_dirs = [paths.resolve_run(run, runs_dir) for run in runs] if runs else paths.run_dirs(runs_dir)
    found = rank_runs(run_dirs, split, by_seed=group == "seed", skip=not runs)
    if as_json:
        print_json(ranking.ranking_as_json(found))
    elif not found.boards:
        say(f"no runs in {runs_dir} have a score")
    else:
        print_lines(ranking.describe_ranking(found, stdout_width(), is_own_choice=split is not None))


def _details_as_json(details: "RunDetails") -> dict[str, object]:
    evaluation, experiment, record = details.evaluation, details.experiment, details.summary.record
    return {
        **_as_json(details.summary),
        "faults": details.faults,
        "config": experiment and experiment.model_dump(mode="json"),
        "record": record and record.model_dump(mode="json"),
        "metrics": [metrics.model_dump(mode="json") for metrics in details.metrics],
        "evaluation": evaluation and evaluation.model_dump(mode="json"),
        "files": [{"name": name, "bytes": num_bytes} for name, num_bytes in details.files],
    }


def _name_next(details: "RunDetails", run_dir: Path) -> None:
    experiment, status = details.experiment, details.summary.status
    if status == "finished":
        next_step("evaluate", run_dir)
    elif status == "diverged" and experiment is not None:
        smaller = f"training.learning_rate={experiment.training.learning_rate / 10:g}"
        next_step("train", run_dir / "config.yaml", "--set", smaller)
    elif details.is_locked:
        next_step("runs", "show", run_dir)
    else:
        next_step("resume", run_dir)


def _describe(details: "RunDetails") -> list[str]:
    from cnn_trainer.cli import score
    from cnn_trainer.config.load import summarize_config
    from cnn_trainer.runs.paths import MAX_LISTED

    summary, lines = details.summary, []
    if found := details.evaluation:
        lines = [*score.score_lines(found, stdout_width()), ""]
        if summary.record and summary.record.weights_sha256 not in (None, found.weights_sha256):
            lines = ["this is the score of weights that the run no longer has", *lines]
    rows = [("run", summary.name), ("status", summary.status)]
    if summary.reason and summary.status != "broken":  # that reason is printed as an error
        rows.append(("reason", summary.reason))
    if summary.record and details.experiment:
        rows += [("experiment", f"{summarize_config(details.experiment)}, seed {summary.record.seed}")]
        rows += _record_rows(summary.record, summary.epochs_done)
    lines += pairs(rows, width=stdout_width())
    if details.metrics:
        lines += ["", *_epochs(details.metrics)]
    if details.files:
        rows = [(name, f"{num_bytes:,}") for name, num_bytes in details.files]
        lines += ["", *table(("file", "bytes"), rows[:MAX_LISTED]), *(["and more"] if rows[MAX_LISTED:] else [])]
    return lines


def _record_rows(record: "RunRecord", epochs_done: int | None) -> list[tuple[str, str]]:
    from cnn_trainer.cli.words import data_words, parallel
    from cnn_trainer.training.display import format_seconds

    best = f", result of epoch {record.best_epoch}" if record.best_epoch else ""
    took = "" if record.status == "training" else f" in {format_seconds(record.train_seconds)}"
    rows = [
        ("data", data_words(record.data)),
        ("parameters", f"{record.num_parameters:,}"),
        ("device", f"{record.device}, {parallel(record)}"),
        ("versions", ", ".join(f"{name} {version}" for name, version in record.versions.items())),
        ("environment", ", ".join(f"{name}={value}" for name, value in record.environment.items())),
        ("git commit", record.git_commit or ""),
        ("created", record.created_at),
        ("updated", record.updated_at),
        ("trained", f"{count(epochs_done or 0, 'epoch')}{took}{best}"),
        ("weights", f"sha256 {record.weights_sha256}" if record.weights_sha256 else ""),
    ]
    return [(name, value) for name, value in rows if value]


def _epochs(metrics: "list[EpochMetrics]") -> list[str]:
    validated = any(epoch.validation_loss is not None for epoch in metrics)
    heading = ["epoch", "loss", "accuracy"]
    heading += ["validation loss", "validation accuracy"] if validated else []
    heading += ["learning rate", "images/s", "seconds"]
    rows = []
    for epoch in metrics[-_SHOWN_EPOCHS:]:
        row = [str(epoch.epoch), f"{epoch.train_loss:.4f}", f"{epoch.train_accuracy:.2%}"]
        if validated:
            loss, accuracy = epoch.validation_loss, epoch.validation_accuracy
            row += ["-" if loss is None else f"{loss:.4f}", "-" if accuracy is None else f"{accuracy:.2%}"]
        row += [f"{epoch.learning_rate:.3g}", f"{epoch.images_per_second:,.0f}", f"{epoch.seconds:.1f}"]
        rows.append(row)
    more = len(metrics) - len(rows)
    note = [f"({count(more, 'earlier epoch')} in metrics.jsonl)"] if more else []
    spare = ("images/s", "seconds", "learning rate", "loss", "validation loss")
    return note + table(heading, rows, stdout_width(), spare)
