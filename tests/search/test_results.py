"""What a search has come to: means, agreement, importance, and the config of the winner."""

import math
import statistics

import pytest
from search_worker import computed

from cnn_trainer.config.load import load_config
from cnn_trainer.errors import CheckFailedError
from cnn_trainer.search import results
from cnn_trainer.search.proposals import new_schedule


def searched(search, diverges=lambda _: False):
    schedule, found = new_schedule(search), []
    while not (now := schedule.plan(found)).is_done:
        found.append(computed(now.jobs[0], diverges))
    return found


def test_the_winner_is_the_trial_with_the_best_mean_on_fresh_seeds(make_search):
    search = make_search()
    found = searched(search)
    finals = results.finalists(search, found)
    assert [one.mean for one in finals] == sorted(one.mean for one in finals)
    for one in finals:
        values = [job.validation_loss for job in found if job.trial == one.trial and job.final]
        assert sorted(one.values) == sorted(values)
        half = 2.7764451 * statistics.stdev(values) / math.sqrt(5)
        assert one.interval == pytest.approx([one.mean - half, one.mean + half])
    winner = results.winning_final(search, found)
    assert winner.trial == finals[0].trial
    assert winner.validation_loss == min(finals[0].values)


def test_an_accuracy_is_better_the_higher_it_is(make_search):
    search = make_search(goal="validation_accuracy")
    finals = results.finalists(search, searched(search))
    assert [one.mean for one in finals] == sorted((one.mean for one in finals), reverse=True)
    assert all(0 < one.mean < 1 for one in finals)


def test_a_trial_that_diverged_on_a_fresh_seed_loses(make_search):
    search = make_search()
    best = results.finalists(search, searched(search))[0].trial
    first = next(one.changes for one in searched(search) if one.trial == best)
    found = searched(search, diverges=lambda changes: changes == {**first, "seed": 3})
    finals = results.finalists(search, found)
    assert (finals[-1].trial, finals[-1].num_diverged, len(finals[-1].values)) == (best, 1, 4)


@pytest.mark.parametrize(
    ("first", "second", "tau"),
    [
        ([1, 2, 3], [4, 5, 6], 1.0),
        ([1, 2, 3], [3, 2, 1], -1.0),
        ([1, 2, 3, 4], [1, 2, 4, 3], 2 / 3),
        ([1, 1, 2, 3], [1, 2, 3, 4], 5 / math.sqrt(5 * 6)),
        ([1, 1, 1], [1, 2, 3], None),
    ],
)
def test_kendalls_tau(first, second, tau):
    assert results.kendall_tau(first, second) == (None if tau is None else pytest.approx(tau))


def test_rungs_that_rank_alike_agree(make_search):
    """The computed loss is a distance over the root of the epochs, with some noise: the ranks hardly change."""
    search = make_search()
    found = results.rank_agreement(search, results.seen_trials(search, searched(search)))
    assert [(one.lower_epochs, one.upper_epochs) for one in found][:1] == [(1, 3)]
    assert all(one.tau > 0.2 for one in found[:1])


def test_the_key_that_decides_is_the_most_important(make_search):
    search = make_search(trials=40, method="random")
    found = results.importance(search, results.seen_trials(search, searched(search)))
    assert next(iter(found.shares)) == "training.learning_rate"
    assert sum(found.shares.values()) == pytest.approx(1)
    assert (found.num_trials, found.epochs) == (40, 1)


def test_too_few_trials_tell_nothing_of_importance(make_search):
    search = make_search(trials=9)
    assert results.importance(search, results.seen_trials(search, searched(search))) is None


def test_best_yaml_is_a_config_that_repeats_the_winning_run(make_opened):
    opened = make_opened()
    found = searched(opened.search)
    results.write_best(opened, found)
    text = (opened.dir / "best.yaml").read_text()
    winner = results.winning_final(opened.search, found)
    assert f"trial {winner.trial}." in text
    experiment = load_config(opened.dir / "best.yaml").experiment
    assert experiment.training.learning_rate == winner.changes["training.learning_rate"]
    assert experiment.model.filters == winner.changes["model.filters"]
    assert (experiment.seed, experiment.data.split_seed) == (winner.changes["seed"], 1)


def test_a_search_without_a_sound_trial_has_no_best(make_opened):
    opened = make_opened()
    with pytest.raises(CheckFailedError, match="every trial diverged"):
        results.write_best(opened, searched(opened.search, diverges=lambda _: True))
    assert not (opened.dir / "best.yaml").exists()


def test_a_summary_tells_what_is_there_so_far(make_opened):
    opened = make_opened()
    empty = results.summarize_search(opened, [])
    assert (empty.num_trials, empty.best_trial, empty.finalists, empty.winning_run) == (0, None, [], None)
    found = searched(opened.search)
    some = results.summarize_search(opened, found[:3])
    assert (some.num_trials, some.num_planned, some.epochs, some.identity_sha256) == (3, 24, 3, None)
    assert some.best_value == min(one.validation_loss for one in found[:3])
