"""Text about a search for people to read: sentences and tables made from its records."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cnn_trainer.cli.tables import pairs, stdout_width, table
from cnn_trainer.errors import count
from cnn_trainer.search.records import JobResult, SearchSummary
from cnn_trainer.search.words import goal_value, goal_words, interval_words, setting_words

if TYPE_CHECKING:
    from cnn_trainer.search.journal import OpenSearch
    from cnn_trainer.search.spec import Search

LIST_HEADING = ("search", "status", "trials", "goal", "best", "retrained", "test accuracy")
_MAX_TRIALS = 50


def search_preparation(search: "Search") -> list[str]:
    """Describes the search that is about to begin."""
    from cnn_trainer.search.schedule import expected_epochs
    from cnn_trainer.search.spec import final_epochs, num_proposals, rung_epochs

    spec, data = search.spec, search.base.experiment.data
    epochs = ", ".join(map(str, rung_epochs(search)))
    finals = f"the best {spec.final.trials} retrained on {count(spec.final.seeds, 'fresh seed')}"
    return [
        f"space: {', '.join(search.space)}",
        f"data: {data.source}, {search.num_train:,} training images; goal: {goal_words(spec.goal)}",
        f"trials: {num_proposals(search)} by {spec.method}, {spec.lanes} at a time, compared after {epochs} epochs; "
        f"{finals}; about {expected_epochs(search) + final_epochs(search):,} epochs in total",
    ]


def search_outcome(summary: SearchSummary) -> list[str]:
    """The outcome of a search: the honest figure beside the optimistic one, then the test accuracy."""
    lines, goal = [], summary.goal
    if summary.finalists and summary.finalists[0].mean is not None:
        winner = summary.finalists[0]
        lines.append(
            f"trial {winner.trial} wins: mean {goal_words(goal)} {goal_value(goal, winner.mean)} "
            f"on {count(len(winner.values), 'fresh seed')}{interval_words(goal, winner.interval)}"
        )
        lines.append(
            f"the best value in the search is {goal_value(goal, summary.best_value)}, of trial "
            f"{summary.best_trial}: the best of many is partly luck, so report the mean"
        )
    if summary.test_accuracy is not None:
        low, high = summary.test_accuracy_interval or (0.0, 1.0)
        lines.append(
            f"test accuracy {summary.test_accuracy:.2%} (95 % interval {low:.2%} to {high:.2%}), "
            f"on {summary.test_examples:,} test images, of {summary.winning_run or 'a run on another machine'}"
        )
    if summary.identity_sha256:
        lines.append(f"results sha256 {summary.identity_sha256}")
        lines.append(f"config {summary.search}/best.yaml")
    return lines


def list_row(summary: SearchSummary) -> tuple[str, ...]:
    """The table row for one search, under ``LIST_HEADING``."""
    winner = summary.finalists[0] if summary.finalists else None
    return (
        summary.search.rpartition("/")[2],
        summary.status,
        f"{summary.num_trials}/{summary.num_planned}",
        goal_words(summary.goal),
        goal_value(summary.goal, summary.best_value),
        goal_value(summary.goal, winner.mean if winner else None),
        "-" if summary.test_accuracy is None else f"{summary.test_accuracy:.2%}",
    )


def details(opened: "OpenSearch", results: Sequence[JobResult], summary: SearchSummary) -> list[str]:
    """Everything that ``search show`` prints."""
    record = opened.record
    rows = [
        ("search", summary.search),
        ("status", summary.status + (f": {record.error}" if record.error else "")),
        ("goal", goal_words(summary.goal)),
        ("trials", f"{summary.num_trials} of {summary.num_planned}, {summary.num_diverged} diverged"),
        ("trained", count(summary.epochs, "epoch")),
        ("data", f"{record.data.source}, {record.data.num_train:,} training and "
         f"{record.data.num_validation:,} validation images"),
        ("versions", ", ".join(f"{name} {version}" for name, version in record.versions.items())),
        ("created", record.created_at),
    ]  # fmt: skip
    lines = [*pairs(rows), "", *_trials(opened, results)]
    if summary.finalists:
        heading = ("retrained", "mean", "95 % interval", "each fresh seed")
        finals = [
            (
                f"trial {one.trial}",
                goal_value(summary.goal, one.mean),
                interval_words(summary.goal, one.interval, "{} to {}") or "-",
                ", ".join(goal_value(summary.goal, value) for value in one.values)
                + (f", {one.num_diverged} diverged" if one.num_diverged else ""),
            )
            for one in summary.finalists
        ]
        lines += ["", *table(heading, finals, stdout_width())]
    if summary.rank_agreement:
        taus = [
            (
                f"{one.lower_epochs} and {one.upper_epochs} epochs",
                "-" if one.tau is None else f"{one.tau:.2f}",
                str(one.num_trials),
            )
            for one in summary.rank_agreement
        ]
        lines += ["", *table(("rungs", "Kendall's tau", "trials"), taus)]
    if summary.importance is not None:
        shares = [(key, f"{share:.0%}") for key, share in summary.importance.shares.items()]
        about = f"{count(summary.importance.num_trials, 'trial')} after {count(summary.importance.epochs, 'epoch')}"
        lines += ["", f"importance, by {about}:", *table(("key", "share"), shares)]
    end = search_outcome(summary)
    return [*lines, "", *end] if end else lines


def _trials(opened: "OpenSearch", results: Sequence[JobResult]) -> list[str]:
    """A table of the trials, best first, each with its value at every rung."""
    from cnn_trainer.search.results import seen_trials, value_of
    from cnn_trainer.search.schedule import ranking
    from cnn_trainer.search.spec import rung_epochs

    search = opened.search
    trials = seen_trials(search, results)
    ordered = ranking(trials)
    ordered += [seen for seen in trials if seen not in ordered]
    epochs = rung_epochs(search)
    heading = ("trial", *(f"{number} ep." for number in epochs), *search.space)
    rows = []
    for seen in ordered[:_MAX_TRIALS]:
        values = [
            "diverged" if (value := value_of(search, found)) is None else goal_value(search.spec.goal, value)
            for found in seen.scores
        ]
        values += ["-"] * (len(epochs) - len(values))
        rows.append((str(seen.trial), *values, *(setting_words(seen.changes[key]) for key in search.space)))
    if not rows:
        return ["no trial has a result yet"]
    more = [f"and {count(len(ordered) - _MAX_TRIALS, 'more trial')}"] if ordered[_MAX_TRIALS:] else []
    return [*table(heading, rows, stdout_width()), *more]
