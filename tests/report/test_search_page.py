"""The page of a search: every number on it computed again from the journal, by code that shares nothing with it."""

import json
import math
import re
import statistics
import sys
from itertools import combinations, pairwise
from pathlib import Path

import browser
import optuna
import pytest
from page_checks import check_ids, check_in_browser, check_is_harmless
from reading import read_html, rows_of
from support import invoke, read_json

sys.path.insert(0, str(Path(__file__).parents[1] / "search"))

from search_worker import computed

from cnn_trainer.report.draw import COLOURS
from cnn_trainer.search import journal
from cnn_trainer.search.load import load_search
from cnn_trainer.search.proposals import new_schedule
from cnn_trainer.search.records import WinnerScore

SPACE = """\
name: try
experiment: base.yaml
goal: {goal}
space:
  training.learning_rate: {{low: 0.0001, high: 0.1, log: true}}
  training.batch_size: {{choices: [50, 100, 200]}}
  model.dropout: {{low: 0, high: 0.5}}
  training.schedule: {{choices: [{{name: constant}}, {{name: cosine}}]}}
trials: 24
rungs: {{first: 1, factor: 3, last: 9}}
final: {{trials: 2, seeds: 3}}  # </code><script>alert(1)</script>
"""
T_TWO = 4.302652729911275  # 97.5 % quantile of Student's t with two degrees of freedom


def make_search(folder, goal="validation_loss", end=None):
    """A search whose results are made up; some trials diverge. ``end`` leaves out all results from this one on."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "base.yaml").write_text("{name: small, data: {source: mnist-5k}, model: {builder: cnn}}\n")
    (folder / "space.yaml").write_text(SPACE.format(goal=goal))
    search, data = load_search(folder / "space.yaml", pytest.fail, lambda *_: None)
    opened = journal.create_search(folder / "searches", folder / "space.yaml", search, data)
    schedule, found = new_schedule(search), []
    while not (now := schedule.plan(found)).is_done and len(found) != end:
        found.append(computed(now.jobs[0], lambda changes: changes["training.learning_rate"] > 0.05))
        journal.add_result(opened.dir, found[-1])
    return opened


@pytest.fixture(scope="module")
def made_search(tmp_path_factory):
    """The folder of a finished search."""
    opened = make_search(tmp_path_factory.mktemp("made"))
    test = WinnerScore(accuracy=0.9876, accuracy_interval=[0.9852, 0.9896], num_examples=10_000)
    journal.update_search_record(opened, status="finished", identity_sha256="ab" * 32, test=test)
    return opened.dir


@pytest.fixture(scope="module")
def search_file(made_search, tmp_path_factory):
    file = tmp_path_factory.mktemp("search-page") / "search.html"
    code, _, err = invoke("report", made_search, "--output", file)
    assert code == 0, err
    return file


@pytest.fixture(scope="module")
def page(search_file):
    return read_html(search_file.read_text("utf-8"))


@pytest.fixture(scope="module")
def results(made_search):
    return [json.loads(line) for line in (made_search / "journal.jsonl").read_text().splitlines()]


def table(page, caption):
    [found] = [one for one in page.all("table") if one.one("caption").text.startswith(caption)]
    return rows_of(found)


def at_rungs(results):
    """For each trial, its losses at the rungs that it reached; infinite if it diverged."""
    found = {}
    for one in sorted(results, key=lambda one: (one["trial"], one["rung"])):
        if one["final"] is None:
            loss = math.inf if one["validation_loss"] is None else one["validation_loss"]
            found.setdefault(one["trial"], []).append(loss)
    return found


def retrained(results):
    found = {}
    for one in results:
        if one["final"] is not None:
            found.setdefault(one["trial"], []).append(one)
    losses = {
        trial: [one["validation_loss"] for one in sorted(finals, key=lambda one: one["final"])]
        for trial, finals in found.items()
    }
    return dict(sorted(losses.items(), key=lambda item: statistics.mean(item[1])))


def test_means_on_fresh_seeds(page, results):
    losses = retrained(results)
    rows = table(page, "The best trials")
    assert [row[0] for row in rows] == list(map(str, losses))
    for row, values in zip(rows, losses.values(), strict=True):
        mean, half = statistics.mean(values), T_TWO * statistics.stdev(values) / math.sqrt(3)
        assert row[1:] == [
            f"{mean:.4f}",
            f"{mean - half:.4f} to {mean + half:.4f}",
            ", ".join(f"{value:.4f}" for value in values),
        ]
    winner, values = next(iter(losses.items()))
    verdict = page.one("p", class_="verdict").text
    words = f"with a mean validation loss of {statistics.mean(values):.4f} on 3 fresh seeds."
    assert verdict == f"Trial {winner} wins, {words}"
    spoken = page.all("figcaption")[0].parent.one("svg").attrs["aria-label"]
    assert f"trial {winner}: {statistics.mean(values):.4f}, 95 % interval {rows[0][2]}" in spoken


def best_first(losses):
    sound = [trial for trial, found in losses.items() if found[-1] < math.inf]
    return sorted(sound, key=lambda trial: (-len(losses[trial]), losses[trial][-1], trial))


def test_figures(page, results):
    losses = at_rungs(results)
    figures = {one.one("dt").text: one.one("dd").text for one in page.one("dl", class_="figures").all("div")}
    best = best_first(losses)[0]
    epochs = {}
    for one in results:
        key = one["trial"], one["final"]
        epochs[key] = max(epochs.get(key, 0), one["epochs"])
    diverged = sum(math.inf in found for found in losses.values())
    assert diverged > 0
    assert figures["Best in the search"].startswith(f"{losses[best][-1]:.4f} trial {best};")
    assert figures["Trials"] == f"24 of 24, {diverged} diverged"
    assert figures["Trained"] == f"{sum(epochs.values())} epochs"
    assert figures["Test accuracy"].startswith("98.76% 98.52% to 98.96%")


def test_rungs(page, results):
    losses = at_rungs(results)
    rows = []
    for index, epochs in enumerate((1, 3, 9)):
        there = [found for found in losses.values() if len(found) > index]
        went_on = sum(len(found) > index + 1 for found in there)
        here = [found[index] for found in there]
        rows.append([str(epochs), str(len(there)), str(here.count(math.inf)), str(went_on), f"{min(here):.4f}"])
    assert table(page, "What was compared") == rows
    found = {row[0]: row[1:] for row in table(page, "Kendall's tau")}
    for (low, first), (high, second) in combinations(enumerate((1, 3, 9)), 2):
        both = [found for found in losses.values() if len(found) > high and found[high] < math.inf]
        signs = [
            math.copysign(1, a[low] - b[low]) * math.copysign(1, a[high] - b[high]) for a, b in combinations(both, 2)
        ]
        assert found[f"{first} and {second} epochs"] == [f"{statistics.mean(signs):.2f}", str(len(both))]


def test_all_trials_are_in_the_table(page, results):
    losses = at_rungs(results)
    changes = {one["trial"]: one["changes"] for one in results if one["final"] is None}
    rows = table(page, "Trials, best first")
    order = best_first(losses)
    assert [int(row[0]) for row in rows] == order + [trial for trial in losses if trial not in order]
    for row in rows:
        found, changed = losses[int(row[0])], changes[int(row[0])]
        values = ["diverged" if value == math.inf else f"{value:.4f}" for value in found]
        assert row[1:4] == values + ["–"] * (3 - len(values))
        assert row[4:] == [
            f"{changed['training.learning_rate']:.4g}",
            str(changed["training.batch_size"]),
            f"{changed['model.dropout']:.4g}",
            changed["training.schedule"]["name"],
        ]


def test_importance_is_that_of_optuna(page, results):
    losses = at_rungs(results)
    study = optuna.create_study()
    space = {
        "training.learning_rate": optuna.distributions.FloatDistribution(1e-4, 0.1, log=True),
        "training.batch_size": optuna.distributions.CategoricalDistribution([50, 100, 200]),
        "model.dropout": optuna.distributions.FloatDistribution(0, 0.5),
        "training.schedule": optuna.distributions.CategoricalDistribution(["constant", "cosine"]),
    }
    for one in sorted(results, key=lambda one: one["trial"]):
        if one["final"] is None and one["rung"] == 1 and losses[one["trial"]][0] < math.inf:
            changes = {**one["changes"], "training.schedule": one["changes"]["training.schedule"]["name"]}
            trial = optuna.trial.create_trial(params=changes, distributions=space, value=one["validation_loss"])
            study.add_trial(trial)
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    figure = page.one("h2", id="importance").parent.one("figure")
    words = "; ".join(f"{key}: {share:.0%}" for key, share in shares.items())
    assert figure.one("svg").attrs["aria-label"] == f"Importance. {words}."
    assert [text.text for text in figure.all("text")][-4:] == [f"{share:.0%}" for share in shares.values()]


def test_a_line_of_parallel_coordinates_is_where_its_settings_are(page, results):
    losses = at_rungs(results)
    changes = {one["trial"]: one["changes"] for one in results if one["final"] is None}
    first = [found[0] for found in losses.values() if found[0] < math.inf]
    lines = []
    for trial in retrained(results):
        changed = changes[trial]
        lines.append(
            [
                math.log(changed["training.learning_rate"] / 1e-4) / math.log(1000),
                [50, 100, 200].index(changed["training.batch_size"]) / 2,
                changed["model.dropout"] / 0.5,
                ["constant", "cosine"].index(changed["training.schedule"]["name"]),
                (losses[trial][0] - min(first)) / (max(first) - min(first)),
            ]
        )
    svg = page.one("h2", id="parallel").parent.one("svg")
    drawn = []
    for path in svg.all("path"):
        if path.attrs.get("stroke") == COLOURS[1]:
            points = re.findall(r"[ML](-?[\d.]+),(-?[\d.]+)", path.attrs["d"])
            assert len({round(float(after[0]) - float(before[0]), 1) for before, after in pairwise(points)}) == 1
            drawn.append([float(y) for _, y in points])
    height = 340 - 2 * 4  # of the picture, less its padding
    positions = [[1.29 - (y / height) * (1.29 + 0.05) for y in line] for line in drawn]
    assert sorted(positions) == [pytest.approx(line, abs=0.01) for line in sorted(lines)]


def test_a_search_that_goes_on_says_so(tmp_path):
    opened = make_search(tmp_path, goal="validation_accuracy", end=12)
    code, _, err = invoke("report", opened.dir)
    assert code == 0, err
    page = read_html((opened.dir / "report.html").read_text("utf-8"))
    found = [json.loads(line) for line in (opened.dir / "journal.jsonl").read_text().splitlines()]
    number = len({one["trial"] for one in found})
    assert page.one("p", class_="verdict").text == f"{number} of 24 trials have a result; the search is interrupted."
    titles = [one.text for one in page.all("h2")]
    assert "Retrained on fresh seeds" not in titles
    assert "Rungs" in titles
    assert "--resume" in page.all("pre")[-1].text
    best = max(one["validation_accuracy"] for one in found if one["rung"] == 1 and one["status"] == "ok")
    assert table(page, "What was compared")[0][-1] == f"{best:.2%}"


def test_a_search_without_results_has_a_page(tmp_path):
    opened = make_search(tmp_path, end=0)
    code, _, err = invoke("report", opened.dir)
    assert code == 0, err
    page = read_html((opened.dir / "report.html").read_text("utf-8"))
    assert [one.text for one in page.all("h2")] == ["The search"]
    assert "0 of 24 trials" in page.one("p", class_="verdict").text


def test_a_search_in_a_database_is_shown_as_far_as_it_is_here(tmp_path):
    opened = make_search(tmp_path, end=3)
    journal.update_search_record(opened, study="shared-study")
    code, _, err = invoke("report", opened.dir)
    assert code == 0, err
    page = read_html((opened.dir / "report.html").read_text("utf-8"))
    assert "study shared-study" in page.one("h2", id="search").parent.one("dl").text
    assert "--resume" not in "".join(one.text for one in page.all("pre")), "it is continued with --storage"


def test_the_space_is_shown_as_it_was_given_and_can_do_nothing(page, made_search):
    assert page.all("pre")[0].one("code").children == [(made_search / "search.yaml").read_text().rstrip("\n")]
    record = read_json(made_search / "search.json")
    about = page.one("h2", id="search").parent.one("dl").text
    for fact in (record["created_at"], record["identity_sha256"], str(made_search), *record["versions"].values()):
        assert fact in about
    check_is_harmless(page)
    check_ids(page)


def test_equal_results_give_equal_bytes(made_search, search_file, tmp_path):
    code, _, _ = invoke("report", made_search, "--output", tmp_path / "again.html")
    assert code == 0
    assert (tmp_path / "again.html").read_bytes() == search_file.read_bytes()


@pytest.mark.skipif(not browser.CHROMIUM, reason="no Chromium is installed")
@pytest.mark.parametrize("kind", [browser.DESKTOP, browser.PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("color_scheme", ["light", "dark"])
def test_axe_finds_nothing_on_the_page_of_a_search(search_file, kind, color_scheme):
    check_in_browser(search_file, kind, color_scheme)
