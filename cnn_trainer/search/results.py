"""The results of a search: the best trials, their values on fresh seeds, and which keys mattered."""

import math
import statistics
from collections.abc import Sequence
from itertools import combinations

import numpy as np

from cnn_trainer.analysis.distributions import t_quantile
from cnn_trainer.config.load import change_experiment, dump_config
from cnn_trainer.errors import CheckFailedError, RunDirectoryError, count, raised_as
from cnn_trainer.runs import store
from cnn_trainer.search.journal import OpenSearch, trial_dir
from cnn_trainer.search.paths import BEST_FILE
from cnn_trainer.search.records import Finalist, Importance, JobResult, RankAgreement, SearchSummary
from cnn_trainer.search.schedule import Seen, ranking
from cnn_trainer.search.spec import Search, num_proposals, rung_epochs, score
from cnn_trainer.storage import files

MIN_TRIALS_FOR_IMPORTANCE = 10  # with fewer, the shares mean nothing


def seen_trials(search: Search, results: Sequence[JobResult]) -> list[Seen]:
    """Every trial that has a result, in order of its number, with its scores at the rungs."""
    trials: dict[int, Seen] = {}
    for result in sorted(results, key=lambda one: (one.trial, one.rung)):
        if result.final is None:
            seen = trials.setdefault(result.trial, Seen(result.trial, result.changes))
            seen.scores.append(score(search, result))
    return list(trials.values())


def value_of(search: Search, found: float) -> float | None:
    """The value of the goal for a score: a loss, or an accuracy as a fraction; None if the job diverged."""
    if not math.isfinite(found):
        return None
    return found if search.spec.goal == "validation_loss" else -found


def summarize_search(opened: OpenSearch, results: Sequence[JobResult]) -> SearchSummary:
    """The state of a search so far. Raises RunDirectoryError if the winner's evaluation cannot be read."""
    search = opened.search
    trials = seen_trials(search, results)
    best = ranking(trials)[:1]
    winner = winning_final(search, results) if opened.record.identity_sha256 else None
    run = trial_dir(opened.dir, search, winner) if winner else None
    test = opened.record.test or (store.read_evaluation(run) if run else None)
    return SearchSummary(
        search=str(opened.dir),
        status=opened.record.status,
        goal=search.spec.goal,
        num_trials=len(trials),
        num_planned=num_proposals(search),
        num_diverged=sum(math.inf in seen.scores for seen in trials),
        epochs=epochs_spent(results),
        best_trial=best[0].trial if best else None,
        best_value=value_of(search, best[0].scores[-1]) if best else None,
        finalists=finalists(search, results),
        rank_agreement=rank_agreement(search, trials),
        importance=importance(search, trials),
        winning_run=str(run) if run and run.is_dir() else None,
        test_accuracy=test.accuracy if test else None,
        test_accuracy_interval=test.accuracy_interval if test else None,
        test_examples=test.num_examples if test else None,
        identity_sha256=opened.record.identity_sha256,
    )


def epochs_spent(results: Sequence[JobResult]) -> int:
    """The number of epochs trained in total. A trial counts up to its last rung."""
    last: dict[tuple[int, int | None], int] = {}
    for result in results:
        key = result.trial, result.final
        last[key] = max(result.epochs, last[key] if key in last else 0)
    return sum(last.values())


def finalists(search: Search, results: Sequence[JobResult]) -> list[Finalist]:
    """The retrained trials, best mean first, with those that diverged on any seed last."""
    scores: dict[int, list[float]] = {}
    for result in sorted(results, key=lambda one: (one.trial, one.final or 0)):
        if result.final is not None:
            scores.setdefault(result.trial, []).append(score(search, result))
    ordered = sorted(scores, key=lambda trial: (statistics.fmean(scores[trial]), trial))
    return [_finalist(search, trial, scores[trial]) for trial in ordered]


def _finalist(search: Search, trial: int, scores: Sequence[float]) -> Finalist:
    values = [value for found in scores if (value := value_of(search, found)) is not None]
    mean = statistics.fmean(values) if values else None
    interval = None
    if mean is not None and len(values) > 1:
        half = float(t_quantile(np.array([len(values) - 1.0]))[0]) * statistics.stdev(values) / math.sqrt(len(values))
        interval = [mean - half, mean + half]
    return Finalist(trial=trial, values=values, num_diverged=len(scores) - len(values), mean=mean, interval=interval)


def winning_final(search: Search, results: Sequence[JobResult]) -> JobResult | None:
    """The best run of the trial with the best mean over the fresh seeds; None if all its runs diverged."""
    ordered = finalists(search, results)
    if not ordered or not ordered[0].values:
        return None
    runs = [result for result in results if result.final and result.trial == ordered[0].trial]
    return min(runs, key=lambda one: (score(search, one), one.final))


def rank_agreement(search: Search, trials: Sequence[Seen]) -> list[RankAgreement]:
    """How well the lower rung predicts the upper one, for each pair of rungs that 3 or more trials reached."""
    epochs = rung_epochs(search)
    found = []
    for lower, upper in combinations(range(len(epochs)), 2):
        both = [seen.scores for seen in trials if len(seen.scores) > upper and math.isfinite(seen.scores[upper])]
        if len(both) >= 3:
            tau = kendall_tau([scores[lower] for scores in both], [scores[upper] for scores in both])
            found.append(
                RankAgreement(lower_epochs=epochs[lower], upper_epochs=epochs[upper], num_trials=len(both), tau=tau)
            )
    return found


def kendall_tau(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Kendall's tau-b of paired values: 1 for the same order, -1 for the reverse; None if either is all ties.

    M. G. Kendall, "The treatment of ties in ranking problems" (1945).
    """
    agreeing = pairs_first = pairs_second = 0
    for (x, y), (other_x, other_y) in combinations(zip(first, second, strict=True), 2):
        sign_x, sign_y = (x > other_x) - (x < other_x), (y > other_y) - (y < other_y)
        agreeing += sign_x * sign_y
        pairs_first += abs(sign_x)
        pairs_second += abs(sign_y)
    if not pairs_first or not pairs_second:
        return None
    return agreeing / math.sqrt(pairs_first * pairs_second)


def importance(search: Search, trials: Sequence[Seen]) -> Importance | None:
    """Optuna's PED-ANOVA at the first rung, which all trials reach; None if there are too few trials.

    Watanabe and others, "PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in Arbitrary Subspaces" (2023).
    """
    reached = [seen for seen in trials if math.isfinite(seen.scores[0])]
    if len(reached) < MIN_TRIALS_FOR_IMPORTANCE or len(search.space) < 2:
        return None
    from cnn_trainer.search.proposals import importances

    shares = importances(search, reached)
    return Importance(epochs=rung_epochs(search)[0], num_trials=len(reached), shares=shares)


@raised_as(RunDirectoryError)
def write_best(opened: OpenSearch, results: Sequence[JobResult]) -> None:
    """Write best.yaml, which repeats the winning run. Raises CheckFailedError if every final diverged."""
    search, winner = opened.search, winning_final(opened.search, results)
    if winner is None:
        problem = "every trial diverged, in the search or when it was retrained"
        raise CheckFailedError(problem, place=opened.dir, remedy="search lower learning rates")
    name = "validation loss" if search.spec.goal == "validation_loss" else "validation accuracy"
    best = finalists(search, results)[0]
    seeds = count(len(best.values), "fresh seed")
    comment = [
        f"The best of {num_proposals(search)} trials of the search {opened.dir.name}: trial {winner.trial}.",
        f"Mean {name} on {seeds}: {best.mean:.4f}. This is the seed with the best validation result.",
        f"It changes {', '.join(search.space)} in the search's experiment.",
        "To repeat the run: cnn-train train <this file>",
    ]
    experiment = change_experiment(search.base.experiment, winner.changes)
    text = "".join(f"# {line}\n" for line in comment) + dump_config(experiment)
    files.write_atomic(opened.dir / BEST_FILE, text.encode())
