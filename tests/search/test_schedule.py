"""The schedule: which jobs are issued, and that nothing but the file decides it."""

import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from search_worker import computed

from cnn_trainer.search.proposals import new_schedule, propose
from cnn_trainer.search.results import epochs_spent
from cnn_trainer.search.schedule import Schedule, Seen, expected_epochs, ranking
from cnn_trainer.search.spec import epoch_cost, identity, num_proposals, rung_epochs


def searched(search, order=1, workers=1, **how):
    """All results, when ``workers`` work side by side and ``order`` says which of them is done next."""
    schedule, results, running = new_schedule(search), [], []
    random = np.random.default_rng(order)
    while True:
        found = schedule.plan(results)
        waiting = [job for job in found.jobs if job not in running]
        running += waiting[: workers - len(running)]
        if found.is_done:
            assert not running
            return results
        results.append(computed(running.pop(random.integers(len(running))), **how))


def test_a_job_goes_on_where_the_rung_before_it_paused(make_search):
    search = make_search()
    jobs = {(one.trial, one.final, one.rung) for one in searched(search)}
    at = Counter(rung for _, final, rung in jobs if final is None)
    assert (at[1], at[2] >= 8, at[3] >= 2) == (24, True, True)
    assert all((trial, None, rung - 1) in jobs for trial, final, rung in jobs if rung > 1 and not final)
    assert len([job for job in jobs if job[1]]) == 3 * 5


@pytest.mark.parametrize("keys", [{}, {"lanes": 1}, {"lanes": 7, "method": "random"}, {"goal": "validation_accuracy"}])
def test_no_order_of_completion_and_no_number_of_workers_changes_anything(make_search, keys):
    search = make_search(**keys)
    expected = identity(searched(search, order=0))

    @given(st.integers(0, 10**6), st.integers(1, 9))
    @settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    def check(order, workers):
        assert identity(searched(search, order, workers)) == expected

    check()


def test_a_killed_search_goes_on_to_the_same_results(make_search):
    search = make_search()
    whole = searched(search, order=3, workers=3)
    for length in range(0, len(whole), 5):
        schedule, results = new_schedule(search), whole[:length]
        while not (found := schedule.plan(results)).is_done:
            results = [*results, computed(found.jobs[-1])]
        assert identity(results) == identity(whole)


def test_another_seed_another_number_of_lanes_and_other_values_change_the_search(make_search):
    searches = [make_search(), make_search(seed=2), make_search(lanes=2), make_search(goal="validation_accuracy")]
    found = [identity(searched(search)) for search in searches]
    assert len({*found[:3]}) == 3
    assert found[3] == found[0]  # accuracy falls as the loss rises here, so the ranks are the same


def test_at_most_as_many_jobs_as_lanes_and_the_one_that_decides_next_comes_first(make_search):
    search = make_search(lanes=3)
    found = new_schedule(search).plan([])
    assert [job.first_epoch for job in found.jobs] == [1, 1, 1]
    costs = [epoch_cost(search, job.changes) for job in found.jobs]
    assert costs == sorted(costs)
    later = new_schedule(search).plan([computed(job) for job in found.jobs[1:]])
    assert later.jobs == found.jobs[:1]


def test_a_result_beyond_the_next_decision_is_not_seen(make_search):
    """The last of three lanes in virtual time is done first by the clock: no proposal may know of it."""
    search = make_search(lanes=3)
    seen = []

    def spy(number, history):
        seen.append((number, [list(trial.scores) for trial in history]))
        return propose(search, number, history)

    first = new_schedule(search).plan([]).jobs
    Schedule(search, spy).plan([computed(first[0]), computed(first[2])])
    assert [scores for _, scores in seen if len(scores) == 3] == [
        [[computed(job).validation_loss] if job == first[0] else [] for job in sorted(first, key=lambda job: job.trial)]
    ]


def test_a_diverged_trial_is_never_promoted_nor_retrained(make_search):
    search = make_search()
    results = searched(search, diverges=lambda changes: changes["training.learning_rate"] > 0.003)
    diverged = {one.trial for one in results if one.status == "diverged"}
    assert diverged
    assert all(one.rung == 1 for one in results if one.trial in diverged)


def test_a_search_whose_trials_all_diverge_ends_without_finals(make_search):
    search = make_search()
    results = searched(search, diverges=lambda _: True)
    assert len(results) == 24
    assert new_schedule(search).plan(results).is_done


def test_without_rungs_every_trial_is_trained_to_its_end(make_search):
    search = make_search(rungs="null", trials=6)
    assert rung_epochs(search) == (10,)
    results = searched(search)
    assert Counter(one.final or 0 for one in results) == {0: 6, **dict.fromkeys(range(1, 6), 3)}


@pytest.mark.parametrize(
    ("rungs", "epochs"), [("{}", (1, 3, 9, 27)), ("{first: 2, factor: 2, last: 9}", (2, 4, 8, 9)), ("{last: 1}", (1,))]
)
def test_rungs_rise_to_the_last(make_search, rungs, epochs):
    search = make_search(rungs=rungs)
    assert rung_epochs(search) == epochs
    assert search.base.experiment.training.epochs == epochs[-1]


def test_finals_differ_in_the_seed_only_and_validate_on_the_same_images(make_search):
    search = make_search(final={"trials": 2, "seeds": 3})
    results = searched(search)
    finals = [one for one in results if one.final]
    trials = {one.trial: one.changes for one in results if not one.final}
    assert all(one.changes == {**trials[one.trial], "seed": 1 + one.final} for one in finals)
    assert search.base.experiment.data.split_seed == search.base.experiment.seed == 1
    assert len({one.trial for one in finals}) == 2


def test_the_best_have_gone_furthest(make_search):
    trials = [Seen(1, {}, [0.1]), Seen(2, {}, [0.5, 0.3]), Seen(3, {}, [0.4, 0.3]), Seen(4, {}, [float("inf")])]
    assert [seen.trial for seen in ranking([*trials, Seen(5, {})])] == [2, 3, 1]


def test_a_small_space_is_searched_once(make_search):
    search = make_search("{model.dense_units: {choices: [[1], [2], [3]]}, training.batch_size: {low: 20, high: 22}}")
    assert num_proposals(search) == 9
    results = searched(search)
    points = [str(one.changes) for one in results if one.rung == 1 and not one.final]
    assert len(points) == len(set(points)) == 9


def test_a_larger_network_and_smaller_batches_cost_more(make_search):
    search = make_search()
    small, large = {"model.filters": [4]}, {"model.filters": [16, 32]}
    assert 0 < epoch_cost(search, small) < epoch_cost(search, large)
    assert epoch_cost(search, small) < epoch_cost(search, {**small, "training.batch_size": 10})


@pytest.mark.parametrize("method", ["tpe", "random"])
@pytest.mark.parametrize("keys", [{}, {"trials": 64, "lanes": 7}, {"goal": "validation_accuracy", "trials": 40}])
def test_the_epochs_of_a_search_are_foretold(make_search, method, keys):
    searches = [make_search(method=method, seed=seed, **keys) for seed in range(5)]
    spent = [epochs_spent([one for one in searched(search) if one.final is None]) for search in searches]
    assert expected_epochs(searches[0]) == pytest.approx(np.median(spent), rel=0.2)


def test_the_epochs_are_foretold_exactly_if_nothing_depends_on_the_results(make_search):
    assert expected_epochs(make_search(rungs="null", trials=6)) == 6 * 10
    assert expected_epochs(make_search(rungs="{first: 2, last: 2}", trials=2000)) == 2000 * 2
    assert expected_epochs(make_search("{training.batch_size: {choices: [8, 16]}}", rungs="null")) == 2 * 10


def test_foretelling_takes_no_time_that_a_user_notices(make_search):
    search = make_search(trials=10_000)
    began = time.process_time()
    expected_epochs(search)
    assert time.process_time() - began < 2
