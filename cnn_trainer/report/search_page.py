"""The page of a search: which trials went on at each rung, what all of them were, and which keys mattered."""

import math
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from cnn_trainer.config import strict_yaml
from cnn_trainer.config.load import dump_config
from cnn_trainer.config.strict_yaml import Value
from cnn_trainer.errors import RunDirectoryError, count, raised_as
from cnn_trainer.machine.terminal import printable
from cnn_trainer.report.charts import IntervalRow, Measure, interval_rows
from cnn_trainer.report.page import KeyFigure, PageSection, build_page, fill, percent
from cnn_trainer.report.search_charts import (
    ParallelAxis,
    TrialLine,
    importance_bars,
    parallel_coordinates,
    rung_lines,
)
from cnn_trainer.search.journal import OpenSearch
from cnn_trainer.search.paths import BEST_FILE, SPACE_FILE
from cnn_trainer.search.records import JobResult, SearchSummary
from cnn_trainer.search.results import seen_trials, summarize_search, value_of
from cnn_trainer.search.schedule import Seen, ranking
from cnn_trainer.search.spec import Dimension, Search, canonical, rung_epochs
from cnn_trainer.search.words import goal_value, goal_words, interval_words, setting_words
from cnn_trainer.storage import files

_MAX_ROWS = 200  # trials in the table
_MAX_TICKS = 8  # choices named on an axis
_NUM_BEST = 3  # trials in colour before any is retrained


@dataclass(frozen=True)
class _Trials:
    """The trials of a search for its sections, best first, with those that diverged last."""

    search: Search
    epochs: tuple[int, ...]
    measure: Measure
    ordered: list[Seen]
    marked: frozenset[int]
    """Numbers of those that are retrained; the best few before that."""

    def values(self, seen: Seen) -> list[float | None]:
        """The values of the goal at each rung that a trial reached; None if it diverged."""
        return [value_of(self.search, found) for found in seen.scores]


def build_search_page(opened: OpenSearch, results: Sequence[JobResult], reload_seconds: int | None = None) -> bytes:
    """The page of a search as an HTML file. Raises RunDirectoryError if one of its files cannot be read."""
    search, summary = opened.search, summarize_search(opened, results)
    seen = seen_trials(search, results)
    ordered = ranking(seen)
    chosen = [one.trial for one in summary.finalists] or [one.trial for one in ordered[:_NUM_BEST]]
    ordered += [one for one in seen if one not in ordered]
    measure: Measure = "loss" if summary.goal == "validation_loss" else "accuracy"
    trials = _Trials(search, rung_epochs(search), measure, ordered, frozenset(chosen))
    sections = [
        ("retrained", "Retrained on fresh seeds", _retrained(trials, summary)),
        ("rungs", "Rungs", _rungs(trials, summary)),
        ("parallel", "All trials", _parallel(trials)),
        ("importance", "Importance", _importance(summary)),
        ("trials", "Table of trials", _table(trials)),
        ("search", "The search", _about(opened, summary)),
    ]
    found = [PageSection(id_, title, html) for id_, title, html in sections if html]
    return build_page(
        f"Search {opened.record.name}",
        _verdict(summary),
        found,
        figures=list(_figures(summary)),
        reload_seconds=reload_seconds,
    )


def _verdict(summary: SearchSummary) -> str:
    best = summary.finalists[0] if summary.finalists else None
    if best is None or best.mean is None:
        done = f"{summary.num_trials} of {count(summary.num_planned, 'trial')} have a result"
        return f"{done}; the search is {summary.status}."
    seeds = count(len(best.values), "fresh seed")
    value = goal_value(summary.goal, best.mean)
    if summary.identity_sha256 is None:
        return f"Trial {best.trial} leads, with a mean {goal_words(summary.goal)} of {value} on {seeds}."
    return f"Trial {best.trial} wins, with a mean {goal_words(summary.goal)} of {value} on {seeds}."


def _figures(summary: SearchSummary) -> Iterator[KeyFigure]:
    goal = goal_words(summary.goal)
    best = summary.finalists[0] if summary.finalists else None
    if best is not None and best.mean is not None:
        ends = interval_words(summary.goal, best.interval, "{} to {}")
        yield KeyFigure(f"Mean {goal}", goal_value(summary.goal, best.mean), ends)
    if summary.best_value is not None:
        found = goal_value(summary.goal, summary.best_value)
        yield KeyFigure("Best in the search", found, f"trial {summary.best_trial}; the best of many is partly luck")
    if summary.test_accuracy is not None and summary.test_accuracy_interval is not None:
        ends = " to ".join(map(percent, summary.test_accuracy_interval))
        yield KeyFigure("Test accuracy", percent(summary.test_accuracy), f"{ends}, of the winner's best seed")
    yield KeyFigure("Trials", f"{summary.num_trials}", f"of {summary.num_planned}, {summary.num_diverged} diverged")
    yield KeyFigure("Trained", count(summary.epochs, "epoch"))


def _retrained(trials: _Trials, summary: SearchSummary) -> Markup | None:
    if not summary.finalists:
        return None
    rows = [
        IntervalRow(f"trial {one.trial}", one.mean, one.interval[0], one.interval[1])
        for one in summary.finalists
        if one.mean is not None and one.interval is not None
    ]
    goal = goal_words(summary.goal)
    return fill(
        "search_retrained.html",
        chart=interval_rows(rows, f"mean {goal}", "loss" if trials.measure == "loss" else "accuracy") if rows else None,
        goal=goal,
        finals=[
            (
                one,
                goal_value(summary.goal, one.mean),
                interval_words(summary.goal, one.interval, "{} to {}") or "–",
                [goal_value(summary.goal, value) for value in one.values],
            )
            for one in summary.finalists
        ],
    )


def _rungs(trials: _Trials, summary: SearchSummary) -> Markup | None:
    lines = [
        TrialLine(values, seen.trial in trials.marked)
        for seen in trials.ordered
        if (values := tuple(value for value in trials.values(seen) if value is not None))
    ]
    if not lines:
        return None
    rows = []
    for index, epochs in enumerate(trials.epochs):
        there = [seen for seen in trials.ordered if len(seen.scores) > index]
        scores = [seen.scores[index] for seen in there]
        best = value_of(trials.search, min(scores)) if scores else None
        went_on = sum(len(seen.scores) > index + 1 for seen in there)
        rows.append((epochs, len(there), scores.count(math.inf), went_on, goal_value(summary.goal, best)))
    return fill(
        "search_rungs.html",
        chart=rung_lines(trials.epochs, lines, trials.measure),
        rows=rows,
        agreement=summary.rank_agreement,
        goal=goal_words(summary.goal),
        is_retrained=bool(summary.finalists),
        num_marked=len(trials.marked),
    )


def _parallel(trials: _Trials) -> Markup | None:
    first = [value for seen in trials.ordered if (value := trials.values(seen)[0]) is not None]
    if not first:
        return None
    low, high = min(first), max(first)
    goal = trials.search.spec.goal
    ends = (
        ((0.0, goal_value(goal, low)), (1.0, goal_value(goal, high))) if high > low else ((0.5, goal_value(goal, low)),)
    )
    axes = [_axis(key, dimension) for key, dimension in trials.search.space.items()]
    last = f"{goal_words(goal)} after {count(trials.epochs[0], 'epoch')}"
    lines = []
    for seen in trials.ordered:
        values = [_position(dimension, seen.changes[key]) for key, dimension in trials.search.space.items()]
        if (value := trials.values(seen)[0]) is not None:
            values.append((value - low) / (high - low) if high > low else 0.5)
        lines.append(TrialLine(tuple(values), seen.trial in trials.marked))
    return fill(
        "search_parallel.html",
        chart=parallel_coordinates([*axes, ParallelAxis(last, ends)], lines),
        num_diverged=len(lines) - len(first),
        num_marked=len(trials.marked),
        last=last,
    )


def _axis(key: str, dimension: Dimension) -> ParallelAxis:
    if dimension.choices is None:
        low, high = dimension.bounds()
        return ParallelAxis(key, ((0.0, setting_words(low)), (1.0, setting_words(high))))
    step = max(1, math.ceil(len(dimension.choices) / _MAX_TICKS))
    named = dimension.choices[::step]
    return ParallelAxis(key, tuple((_position(dimension, value), setting_words(value)) for value in named))


def _position(dimension: Dimension, value: Value) -> float:
    """Where a value stands on its axis, from 0 to 1."""
    if dimension.choices is not None:
        at = list(map(canonical, dimension.choices)).index(canonical(value))
        return at / (len(dimension.choices) - 1) if len(dimension.choices) > 1 else 0.5
    if not isinstance(value, int | float):
        raise AssertionError("the values of a range are numbers")
    low, high = dimension.bounds()
    if dimension.log:
        low, high, value = math.log(low), math.log(high), math.log(value)
    return (value - low) / (high - low)


def _importance(summary: SearchSummary) -> Markup | None:
    found = summary.importance
    return fill("search_importance.html", chart=importance_bars(found.shares), found=found) if found else None


def _table(trials: _Trials) -> Markup | None:
    if not trials.ordered:
        return None
    rows = []
    for seen in trials.ordered[:_MAX_ROWS]:
        values = [
            "diverged" if value is None else goal_value(trials.search.spec.goal, value) for value in trials.values(seen)
        ]
        values += ["–"] * (len(trials.epochs) - len(values))
        rows.append((seen.trial, values, [setting_words(seen.changes[key]) for key in trials.search.space]))
    return fill(
        "search_table.html",
        rows=rows,
        epochs=trials.epochs,
        keys=list(trials.search.space),
        goal=goal_words(trials.search.spec.goal),
        num_left_out=len(trials.ordered) - len(rows),
    )


def _about(opened: OpenSearch, summary: SearchSummary) -> Markup:
    with raised_as(RunDirectoryError):
        space = files.read_bounded(opened.dir / SPACE_FILE, strict_yaml.MAX_BYTES).decode(errors="replace")
    commands = ["cnn-train search search.yaml"]
    if summary.status == "finished":
        commands.append(shlex.join(["cnn-train", "train", str(opened.dir / BEST_FILE)]))
    elif opened.record.study is None:
        commands.append(shlex.join(["cnn-train", "search", "--resume", str(opened.dir)]))
    return fill(
        "search_about.html",
        record=opened.record,
        summary=summary,
        space=_lines(space),
        experiment=_lines(dump_config(opened.search.base.experiment)),
        commands=commands,
    )


def _lines(text: str) -> Markup:
    return Markup("\n").join(map(printable, text.splitlines()))
