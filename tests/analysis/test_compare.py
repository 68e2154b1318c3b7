"""``runs compare``: from saved scores to a verdict, and what is refused."""

import json
from math import log

import numpy as np
import pytest
from support import edit_json, invoke, read_json


def compared(*words):
    code, out, err = invoke("runs", "compare", *words, "--json")
    assert code == 0, err
    return json.loads(out)


def test_two_runs_are_compared_image_by_image(variant):
    first, second = variant("a", wrong=(0, 1)), variant("b", wrong=range(1, 12), learning_rate=0.5)
    found = compared(first, second)
    (pair,) = found["pairs"]
    num = found["num_images"]
    assert pair["counts"] == {"both_right": num - 12, "only_first": 10, "only_second": 1, "both_wrong": 1}
    assert pair["difference"] == pytest.approx(9 / num)
    assert pair["p_value"] == pytest.approx(2 * (1 + 11) / 2**11)
    assert pair["is_told_apart"]
    assert found["differing"] == {"training.learning_rate": ["0.01", "0.5"]}
    code, out, _ = invoke("runs", "compare", first, second)
    assert code == 0
    assert "A is better than B" in out
    assert "this compares two runs, not their configs" in out


def test_runs_that_differ_only_in_the_seed_are_one_group(variant):
    runs = [variant(f"a{seed}", seed, wrong=(seed,)) for seed in (1, 2, 3)]
    runs += [variant(f"b{seed}", seed, wrong=(seed, 9), batch_size=8) for seed in (1, 2, 3)]
    found = compared(*runs)
    assert [group["seeds"] for group in found["groups"]] == [[1, 2, 3], [1, 2, 3]]
    (pair,) = found["pairs"]
    assert pair["counts"] is None
    assert not pair["is_told_apart"] or pair["p_value"] < 0.05
    code, out, _ = invoke("runs", "compare", *runs[:3])
    assert code == 0
    assert "all runs differ only in their seed: 3 runs of one group" in out


def test_three_configs_give_three_corrected_pairs(variant):
    runs = [variant("a", wrong=()), variant("b", wrong=range(6), learning_rate=0.5), variant("c", momentum=0.5)]
    pairs = {(pair["first"], pair["second"]): pair["p_value"] for pair in compared(*runs)["pairs"]}
    assert pairs == {("A", "B"): pytest.approx(3 * 2 / 2**6), ("B", "C"): pytest.approx(3 * 2 / 2**6), ("A", "C"): 1.0}


def test_a_check_of_the_difference(variant):
    good, bad = variant("a"), variant("b", wrong=range(12), learning_rate=0.5)
    assert invoke("runs", "compare", good, bad, "--min-difference", "0")[0] == 0
    code, out, err = invoke("runs", "compare", bad, good, "--min-difference", "0")
    assert code == 7
    assert "B is better than A" in out
    assert "A minus B may be as low as -0." in err
    assert invoke("runs", "compare", good, "--min-difference", "0")[0] == 2
    same_seed_only = variant("c", seed=5)
    assert invoke("runs", "compare", good, same_seed_only, "--min-difference", "0")[0] == 2


def test_what_cannot_be_compared_is_refused(variant):
    good, other = variant("a"), variant("b", learning_rate=0.5)

    def refused(*words):
        code, out, err = invoke("runs", "compare", *words)
        assert not out
        return code, err

    assert refused(good, good) == (2, f"error: {good}: is named twice; name each run once\n")
    code, err = refused(good, other, "--split", "validation")
    assert code == 6
    assert "--split validation" in err
    old = variant("old", is_old=True, momentum=0.5)
    table = (old / "predictions.csv").read_text()
    for broken in (
        "",
        "# images sha256 0\n",
        table.replace("label", "lable"),
        table[: len(table) // 2],
        table.replace("\n5,", "\n6,"),
        table.replace("\n5,", "\n5,x"),
        table.replace("\n5,2,2", "\n5,2,1"),
    ):
        assert broken != table
        (old / "predictions.csv").write_text(broken)
        code, err = refused(good, old)
        assert code == 6
        assert "predictions.csv: does not belong to the run's score" in err
        assert "cnn-train evaluate" in err
    content = (other / "probabilities.safetensors").read_bytes()
    (other / "probabilities.safetensors").write_bytes(content[:-1] + b"0")
    assert "probabilities.safetensors: does not belong to the run's score" in refused(good, other)[1]
    (other / "probabilities.safetensors").write_bytes(content)
    edit_json(other / "evaluation.json", weights_sha256="0" * 64)
    assert "is the score of weights that the run no longer has" in refused(good, other)[1]
    edit_json(other / "evaluation.json", weights_sha256=read_json(other / "run.json")["weights_sha256"])
    variant.rescore(other, "1" * 64)
    assert "was scored on other test images than" in refused(good, other)[1]
    (other / "evaluation.json").unlink()
    assert "has no score on its test split; score it with: cnn-train evaluate" in refused(good, other)[1]


def test_older_runs_are_compared_by_their_predictions(variant):
    """The names of the classes hold commas, quotes and line breaks."""
    runs = [variant("a", wrong=(0, 1), is_old=True), variant("b", wrong=(1, 2, 3), is_old=True, learning_rate=0.5)]
    found = compared(*runs)
    (pair,) = found["pairs"]
    assert pair["counts"]["only_first"] == 2
    assert pair["counts"]["only_second"] == 1
    assert pair["loss_difference"] is None
    assert [group["loss_interval"] for group in found["groups"]] == [None, None]
    assert "95 % interval of the loss" not in invoke("runs", "compare", *runs)[1]


def test_losses_have_intervals(variant):
    first, second = variant("a", wrong=(0, 1)), variant("b", wrong=range(1, 12), learning_rate=0.5)
    found = compared(first, second)
    (pair,), num = found["pairs"], found["num_images"]
    per_image = np.full((2, num), -log(0.75))
    per_image[0, :2] = per_image[1, 1:12] = -log(0.125)
    differences = per_image[0] - per_image[1]
    half = 1.959964 * differences.std(ddof=1) / num**0.5
    assert pair["loss_difference"] == pytest.approx(differences.mean())
    expected = [differences.mean() - half, differences.mean() + half]
    assert pair["loss_difference_interval"] == pytest.approx(expected, rel=1e-5)
    low, high = found["groups"][0]["loss_interval"]
    assert low < per_image[0].mean() < high
    assert high - per_image[0].mean() > per_image[0].mean() - low, "few images have most of the loss"
    assert "loss of A minus B: -0.1" in invoke("runs", "compare", first, second)[1]
    squared = variant("c", loss="mean_squared_error")
    assert compared(first, squared)["pairs"][0]["loss_difference"] is None, "these are not the same loss"


def test_a_run_that_repeats_config_and_seed_is_no_second_sample(variant):
    runs = [variant("a"), variant("b", wrong=(1,), learning_rate=0.5), variant("c")]
    code, out, err = invoke("runs", "compare", *runs)
    assert (code, out) == (2, "")
    assert f"{runs[2]}: has the config and the seed of {runs[0]}" in err


def test_many_groups_are_shown_by_tiers_and_by_their_difference_from_the_first(variant):
    runs = [variant(f"run-{n}", wrong=range(n * 8), learning_rate=1 / (n + 1)) for n in range(6)]
    code, out, _ = invoke("runs", "compare", *runs)
    assert code == 0
    assert "A minus it, in points" in out
    assert "p, corrected for 15 pairs" in out
    assert "cannot tell B and C" not in out
    assert "--json has the differences of all 15 pairs" in out
    assert len(compared(*runs)["pairs"]) == 15
    tiers = [line.split()[0] for line in out.splitlines() if " 95." in line or "100.00%" in line]
    assert tiers[0] == "1"
