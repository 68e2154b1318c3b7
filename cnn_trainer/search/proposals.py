"""Proposes the changes of each trial: Optuna's proposals, made a pure function of the search and its history.

A sampler keeps a random state, which is lost when the process is killed. So every proposal uses a new sampler, seeded
with the search's seed and the trial's number, and gives it the whole history.
"""

import hashlib
import math
import warnings
from collections.abc import Sequence
from functools import partial

from cnn_trainer.config.strict_yaml import Value
from cnn_trainer.errors import CnnTrainError
from cnn_trainer.machine.facts import install_command
from cnn_trainer.search.schedule import Schedule, Seen
from cnn_trainer.search.spec import Changes, Search, canonical, num_points, rung_epochs

try:
    import optuna
    from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
    from optuna.samplers import BaseSampler, RandomSampler, TPESampler
    from optuna.trial import FrozenTrial, TrialState
except ModuleNotFoundError as error:  # an installation that only serves
    remedy = f"install it with: {install_command('optuna')}"
    raise CnnTrainError("Optuna is not installed", remedy=remedy) from error

_MAX_REPEATS = 10  # attempts to get a point that was not proposed before

optuna.logging.set_verbosity(optuna.logging.WARNING)


def new_schedule(search: Search) -> Schedule:
    """The schedule of a search, with Optuna's proposals."""
    return Schedule(search, partial(propose, search))


def propose(search: Search, number: int, history: Sequence[Seen]) -> Changes:
    """The changes of the trial with this number: a point of the space that no trial before it has.

    Args:
        search: The search.
        number: Number of the trial, from 1 to ``num_proposals``.
        history: All trials before it, in order, with the scores known at this point.
    """
    if search.spec.method == "grid":
        return _grid_point(search, number - 1)
    before = {_point(search, seen.changes) for seen in history}
    trials = frozen_trials(search, history)
    for repeat in range(_MAX_REPEATS):
        changes = _ask(search, trials, _seed(search, number, repeat))
        if _point(search, changes) not in before:
            return changes
    # Only a space of few points gets here. Take the first unused point, starting at a place that depends on the seed.
    size = int(num_points(search))
    first = _seed(search, number, _MAX_REPEATS) % size
    points = (_grid_point(search, (first + offset) % size) for offset in range(size))
    return next(changes for changes in points if _point(search, changes) not in before)


def frozen_trials(search: Search, history: Sequence[Seen]) -> list[FrozenTrial]:
    """The trials for Optuna: complete at the last rung, pruned before it, and running if they have no result."""
    space, epochs = distributions(search), rung_epochs(search)
    return [_frozen(search, seen, space, epochs) for seen in history]


def _frozen(search: Search, seen: Seen, space: dict[str, BaseDistribution], epochs: Sequence[int]) -> FrozenTrial:
    last = seen.scores[-1] if seen.scores else None
    is_complete = len(seen.scores) == len(epochs) and seen.scores[-1] < math.inf
    state = TrialState.RUNNING if last is None else TrialState.COMPLETE if is_complete else TrialState.PRUNED
    return optuna.trial.create_trial(
        state=state,
        params={key: _parameter(search, key, seen.changes[key]) for key in search.space},
        distributions=space,
        value=last if is_complete else None,
        intermediate_values=dict(zip(epochs, seen.scores, strict=False)),
    )


def distributions(search: Search) -> dict[str, BaseDistribution]:
    """The space for Optuna. Choices are passed by position, because they may be lists."""
    found: dict[str, BaseDistribution] = {}
    for key, dimension in search.space.items():
        if dimension.choices is not None:
            found[key] = CategoricalDistribution(range(len(dimension.choices)))
            continue
        low, high = dimension.bounds()
        if key in search.whole_keys:
            found[key] = IntDistribution(int(low), int(high), log=dimension.log)
        else:
            found[key] = FloatDistribution(low, high, log=dimension.log)
    return found


def importances(search: Search, trials: Sequence[Seen]) -> dict[str, float]:
    """The share of each key in determining whether a trial is among the better ones at the first rung."""
    space = distributions(search)
    study = optuna.create_study(direction="minimize")
    for seen in trials:
        parameters = {key: _parameter(search, key, seen.changes[key]) for key in search.space}
        trial = optuna.trial.create_trial(params=parameters, distributions=space, value=seen.scores[0])
        study.add_trial(trial)
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    return optuna.importance.get_param_importances(study, evaluator=evaluator, params=list(search.space))


def _parameter(search: Search, key: str, value: Value) -> int | float:
    choices = search.space[key].choices
    if choices is not None:
        return list(map(canonical, choices)).index(canonical(value))
    if not isinstance(value, int | float):
        raise AssertionError(f"{key}: the values of a range are numbers")
    return value


def _ask(search: Search, trials: Sequence[FrozenTrial], seed: int) -> Changes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        sampler: BaseSampler = RandomSampler(seed)
        if search.spec.method == "tpe":
            # The sampler avoids points near trials that have no result yet, so that lanes do not try the same thing.
            sampler = TPESampler(multivariate=True, constant_liar=True, seed=seed)
        study = optuna.create_study(sampler=sampler, direction="minimize")
        study.add_trials(trials)
        parameters = study.ask(distributions(search)).params
    changes: dict[str, Value] = {}
    for key, dimension in search.space.items():
        changes[key] = parameters[key] if dimension.choices is None else dimension.choices[parameters[key]]
    return changes


def _grid_point(search: Search, index: int) -> Changes:
    """The point with this index in a finite space, counted from 0. The last key changes fastest."""
    changes: dict[str, Value] = {}
    for key, dimension in reversed(list(search.space.items())):
        if dimension.choices is not None:
            index, position = divmod(index, len(dimension.choices))
            changes[key] = dimension.choices[position]
        else:
            low, high = map(int, dimension.bounds())
            index, position = divmod(index, high - low + 1)
            changes[key] = low + position
    return {key: changes[key] for key in search.space}


def _point(search: Search, changes: Changes) -> str:
    return canonical([changes[key] for key in search.space])


def _seed(search: Search, number: int, repeat: int) -> int:
    """A 32-bit seed for one sampler. It is a hash, so that neighbouring seeds and numbers are unrelated."""
    text = f"proposal {search.spec.seed} {number} {repeat}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
