"""Proposals: a pure function of the search and of what a decision sees."""

import json
import math

import pytest
from search_worker import computed

from cnn_trainer.search.proposals import frozen_trials, propose
from cnn_trainer.search.schedule import Schedule, Seen
from cnn_trainer.search.spec import score


def history(search, length):
    """The first trials of a search without rungs, each proposed after all before it were done."""
    found = []
    for number in range(1, length + 1):
        changes = propose(search, number, found)
        job = Schedule(search, lambda *_: changes).plan([]).jobs[0]  # noqa: B023 -- called at once
        found.append(Seen(number, changes, [score(search, computed(job))]))
    return found


@pytest.mark.parametrize("method", ["tpe", "random"])
def test_the_same_history_gives_the_same_proposal(make_search, method):
    search = make_search(method=method, rungs="null")
    first = history(search, 20)
    assert [seen.changes for seen in history(search, 20)] == [seen.changes for seen in first]
    again = json.loads(json.dumps([seen.changes for seen in first]))  # as the journal gives them back
    read = [Seen(seen.trial, changes, seen.scores) for seen, changes in zip(first, again, strict=True)]
    assert propose(search, 21, read) == propose(search, 21, first)


def test_proposals_lie_in_the_space(make_search):
    search = make_search("{training.batch_size: {low: 3, high: 9}, training.learning_rate: {low: 1, high: 2}}")
    points = [propose(search, number, []) for number in range(1, 200)]
    assert {type(point["training.batch_size"]) for point in points} == {int}
    assert {point["training.batch_size"] for point in points} == set(range(3, 10))
    assert all(1 <= point["training.learning_rate"] <= 2 for point in points)
    assert len({point["training.learning_rate"] for point in points}) == 199


@pytest.mark.parametrize(
    ("key", "low", "high"), [("training.learning_rate", 0.0001, 1), ("training.batch_size", 1, 2500)]
)
def test_a_log_range_gives_each_ratio_its_share(make_search, key, low, high):
    search = make_search(f"{{{key}: {{low: {low}, high: {high}, log: true}}}}")
    values = [propose(search, number, [])[key] for number in range(1, 201)]
    assert 70 < sum(value < (low * high) ** 0.5 for value in values) < 130


def test_tpe_learns_from_what_it_sees(make_search):
    """The computed loss is lowest at a rate of 0.01: later proposals are nearer to it than those of random search."""
    space = "{training.learning_rate: {low: 0.000001, high: 1, log: true}}"

    def distance(method):
        found = history(make_search(space, rungs="null", method=method, trials=40), 40)[20:]
        return sum(abs(math.log10(seen.changes["training.learning_rate"]) + 2) for seen in found) / 20

    assert distance("tpe") < 0.6 * distance("random")


def test_trials_under_way_are_seen_and_kept_away_from(make_search):
    search = make_search(rungs="null")
    before = history(search, 15)
    running = [Seen(16, propose(search, 16, before), [], is_under_way=True)]
    assert propose(search, 17, before + running) != propose(search, 17, before)
    states = [trial.state.name for trial in frozen_trials(search, [Seen(1, before[0].changes, [math.inf]), *running])]
    assert states == ["PRUNED", "RUNNING"]


def test_a_trial_below_the_last_rung_is_pruned_with_what_it_had(make_search):
    search = make_search()
    changes = propose(search, 1, [])
    low, high = frozen_trials(search, [Seen(1, changes, [0.5, 0.4]), Seen(2, changes, [0.5, 0.4, 0.3])])
    assert (low.state.name, low.intermediate_values, low.value) == ("PRUNED", {1: 0.5, 3: 0.4}, None)
    assert (high.state.name, high.value) == ("COMPLETE", 0.3)


def test_a_grid_is_walked_in_the_order_of_the_file(make_search):
    space = "{model.dense_units: {choices: [[8], [16]]}, training.batch_size: {choices: [20, 10, 30]}}"
    search = make_search(space, method="grid")
    found = [propose(search, number, []) for number in range(1, 7)]
    assert [(point["model.dense_units"][0], point["training.batch_size"]) for point in found] == [
        (8, 20), (8, 10), (8, 30), (16, 20), (16, 10), (16, 30),
    ]  # fmt: skip


def test_sections_and_lists_and_null_can_be_choices(make_search):
    choices = '[{"name": "cosine"}, {"name": "step", "epochs": 2}]'
    space = f"{{training.schedule: {{choices: {choices}}}, training.gradient_clip_norm: {{choices: [null, 1, 1.5]}}}}"
    search = make_search(space)
    points = []
    for number in range(1, 7):
        points.append(Seen(number, propose(search, number, points), [1.0 / number]))
    assert len({json.dumps(seen.changes) for seen in points}) == 6
