"""``runs compare``: from saved scores to a verdict, and what is refused."""

import csv
import json
import shutil

import pytest
import yaml
from support import invoke, read_json


@pytest.fixture
def variant(finished_run, tmp_path):
    """A function that makes a run like ``finished_run`` with other config keys, and some predictions turned wrong."""

    def make(name, seed=1, wrong=(), **training):
        run = shutil.copytree(finished_run, tmp_path / name)
        config = yaml.safe_load((run / "config.yaml").read_text())
        config["seed"] = seed
        config["training"].update(training)
        (run / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        record = read_json(run / "run.json")
        (run / "run.json").write_text(json.dumps({**record, "seed": seed}))
        heading, *lines = (run / "predictions.csv").read_text().splitlines()
        rows = list(csv.DictReader(lines))
        for index, row in enumerate(rows):
            row["prediction"] = str(1 - int(row["label"])) if index in wrong else row["label"]
        body = "\n".join(",".join(row.values()) for row in rows)
        (run / "predictions.csv").write_text(f"{heading}\n{lines[0]}\n{body}\n")
        evaluation = read_json(run / "evaluation.json")
        evaluation["accuracy"] = (len(rows) - len(wrong)) / len(rows)
        (run / "evaluation.json").write_text(json.dumps(evaluation))
        return run

    return make


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


def edit(path, **changes):
    path.write_text(json.dumps({**read_json(path), **changes}))


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
    predictions = (other / "predictions.csv").read_text()
    for broken in (
        "",
        "# images sha256 0\n",
        predictions.replace("label", "lable"),
        predictions[: len(predictions) // 2],
    ):
        (other / "predictions.csv").write_text(broken)
        code, err = refused(good, other)
        assert code == 6
        assert "predictions.csv: does not belong to the run's score" in err
    (other / "predictions.csv").write_text(predictions)
    edit(other / "evaluation.json", weights_sha256="0" * 64)
    assert "is the score of weights that the run no longer has" in refused(good, other)[1]
    edit(
        other / "evaluation.json",
        weights_sha256=read_json(other / "run.json")["weights_sha256"],
        images_sha256="1" * 64,
    )
    (other / "predictions.csv").write_text(
        "\n".join([f"# images sha256 {'1' * 64}", *predictions.splitlines()[1:], ""])
    )
    assert "was scored on other test images than" in refused(good, other)[1]
    (other / "evaluation.json").unlink()
    assert "has no score on its test split; score it with: cnn-train evaluate" in refused(good, other)[1]
