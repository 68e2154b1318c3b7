"""``runs rank``: tiers, what is left out, and by which split."""

import json
import shutil

import numpy as np
import pytest
from support import invoke

from cnn_trainer.analysis.compare import Comparison, Group, Pair
from cnn_trainer.analysis.difference import Difference
from cnn_trainer.analysis.rank import tiers_of


def board(accuracies, told_apart):
    groups = [Group((), accuracy, 0, 1, 0, None, np.ones((1, 1), bool)) for accuracy in accuracies]
    pairs = [
        Pair(
            i, j, Difference(accuracies[i] - accuracies[j], 0, 0, 0.01 if (i, j) in told_apart else 0.5, None, 1), None
        )
        for i in range(len(groups))
        for j in range(i + 1, len(groups))
    ]
    return Comparison("test", "", 1, tuple(groups), {}, tuple(pairs))


def test_a_group_is_one_tier_below_those_that_are_better():
    assert tiers_of(board([0.9, 0.8, 0.7], {})) == (1, 1, 1)
    assert tiers_of(board([0.9, 0.8, 0.7], {(0, 1), (0, 2), (1, 2)})) == (1, 2, 3)
    assert tiers_of(board([0.9, 0.8, 0.7], {(0, 2)})) == (1, 1, 2), "no tier has two that can be told apart"
    assert tiers_of(board([0.7, 0.9, 0.8], {(0, 1), (0, 2)})) == (2, 1, 1)
    assert tiers_of(board([0.9, 0.8, 0.7, 0.6], {(0, 2), (1, 3), (2, 3)})) == (1, 1, 2, 3)


def ranked(*words):
    code, out, err = invoke("runs", "rank", *words, "--json")
    assert code == 0, err
    return json.loads(out)


def test_seeds_are_one_row_and_configs_are_ordered(variant, tmp_path):
    for seed in (1, 2, 3):
        variant(f"runs/a{seed}", seed, wrong=(*range(seed, 40), 50 + seed), learning_rate=0.5)
        variant(f"runs/b{seed}", seed, wrong=(seed,))
        variant(f"runs/c{seed}", seed, wrong=(seed, 60 + seed), momentum=0.5)
    found = ranked("--runs-dir", tmp_path / "runs")
    (only,) = found["boards"]
    assert [group["tier"] for group in only["groups"]] == [1, 1, 2]
    assert [sorted(group["seeds"]) for group in only["groups"]] == [[1, 2, 3]] * 3
    assert only["groups"][2]["runs"][0].endswith("a3")
    assert only["differing"]["training.learning_rate"] == ["0.01", "0.01", "0.5"]
    each = ranked("--runs-dir", tmp_path / "runs", "--group", "none")["boards"][0]
    assert len(each["groups"]) == 9
    assert each["differing"]["seed"].count("1") == 3
    code, out, _ = invoke("runs", "rank", "--runs-dir", tmp_path / "runs")
    assert code == 0
    assert out.split()[:3] == ["tier", "test", "accuracy"]
    assert "to choose from it is itself a choice made on the test split" in out
    assert "ranks that run, not its config" not in out


def test_what_cannot_be_ranked_is_left_out_with_the_reason(variant, tmp_path):
    variant("runs/a", wrong=(1,))
    variant("runs/again", wrong=(1,))
    (variant("runs/unscored") / "evaluation.json").unlink()
    variant.rescore(variant("runs/other", momentum=0.5), "1" * 64)
    (tmp_path / "runs" / "20261125-000000-broken").mkdir()
    found = ranked("--runs-dir", tmp_path / "runs")
    assert sorted(len(board["groups"]) for board in found["boards"]) == [1, 1]
    reasons = {run["run"].rpartition("/")[2]: run["reason"] for run in found["left_out"]}
    assert reasons.keys() == {"a", "unscored", "20261125-000000-broken"}
    assert "the config and the seed of" in reasons["a"]
    assert reasons["unscored"] == "has no score on its test split"
    code, out, _ = invoke("runs", "rank", "--runs-dir", tmp_path / "runs")
    assert code == 0
    assert "2 different sets of test images" in out
    assert "3 runs left out:" in out
    assert "a row of a single run ranks that run" in out
    code, out, err = invoke("runs", "rank", tmp_path / "runs" / "a", tmp_path / "runs" / "unscored")
    assert (code, out) == (6, ""), "a run that is named is refused"
    assert "has no score on its test split; score it with: cnn-train evaluate" in err


def test_runs_are_ordered_by_validation_if_all_have_a_score_on_it(variant, tmp_path):
    runs = [variant("runs/a", wrong=(1,)), variant("runs/b", wrong=range(30), momentum=0.5)]
    shown = ("--runs-dir", tmp_path / "runs")
    variant.rescore(runs[0], "2" * 64, "validation")
    assert ranked(*shown)["split"] == "test"
    variant.rescore(runs[1], "3" * 64, "validation")
    assert ranked(*shown)["split"] == "test", "these are not the same validation images"
    variant.rescore(runs[1], "2" * 64, "validation")
    assert ranked(*shown)["split"] == "validation"
    assert ranked(*shown, "--split", "test")["split"] == "test"
    code, out, _ = invoke("runs", "rank", *shown)
    assert code == 0
    assert "validation accuracy" in out
    assert "choice made on the test split" not in out
    shutil.rmtree(runs[1])
    variant("runs/c", momentum=0.5)
    assert ranked(*shown)["split"] == "test"


def test_an_empty_folder_is_said_to_be_empty(tmp_path):
    code, out, err = invoke("runs", "rank", "--runs-dir", tmp_path)
    assert (code, out) == (0, "")
    assert "no runs in" in err


def test_a_run_that_is_named_twice_is_refused(variant):
    run = variant("a")
    assert invoke("runs", "rank", run, run)[::2] == (2, f"error: {run}: is named twice; name each run once\n")


@pytest.mark.parametrize("words", [["--group", "config"], ["--split", "train"]])
def test_wrong_options_are_refused(words, tmp_path):
    assert invoke("runs", "rank", *words, "--runs-dir", tmp_path)[0] == 2
