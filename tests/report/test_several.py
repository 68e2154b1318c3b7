"""The page of several runs: every number on it computed again, and nothing on it that the runs' text could do."""

import hashlib
import json
import math
import shutil
from itertools import combinations

import browser
import numpy as np
import pytest
import yaml
from page_checks import check_ids, check_in_browser, check_is_harmless
from reading import read_html, rows_of
from support import invoke, read_json, read_metrics

from cnn_trainer.evaluation.predictions import Predictions, encode_predictions

GROUPS = ((0.01, (1, 2, 3)), (0.02, (1, 2)), (0.05, (4,)))  # learning rates and seeds
Z = 1.959963984540054


@pytest.fixture(scope="session")
def made_runs(finished_run, tmp_path_factory):
    """Six runs of three configs, with made-up probabilities that they were scored by, and made-up epochs."""
    folder = tmp_path_factory.mktemp("several")
    return [
        make_run(finished_run, folder, rate, seed, index)
        for index, (rate, seed) in enumerate((rate, seed) for rate, seeds in GROUPS for seed in seeds)
    ]


def make_run(source, folder, rate, seed, index):
    run = shutil.copytree(source, folder / f"2026010{index}-000000-made")
    config = yaml.safe_load((run / "config.yaml").read_text("utf-8"))
    config["seed"] = seed
    config["training"]["learning_rate"] = rate
    (run / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    (run / "run.json").write_text(json.dumps({**read_json(run / "run.json"), "seed": seed}))
    evaluation = read_json(run / "evaluation.json")
    labels = np.repeat(
        np.arange(len(evaluation["classes"]), dtype=np.int32), [one["support"] for one in evaluation["classes"]]
    )
    random = np.random.default_rng([seed, int(rate * 100)])
    logits = random.normal(size=(len(labels), len(evaluation["classes"])))
    logits[np.arange(len(labels)), labels] += {0.01: 0.1, 0.02: 2.2, 0.05: 2.6}[rate] + 0.02 * seed
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    content = encode_predictions(Predictions(labels, probabilities.astype(np.float32), evaluation["images_sha256"]))
    (run / "probabilities.safetensors").write_bytes(content)
    chosen = probabilities.astype(np.float32)[np.arange(len(labels)), labels].astype(np.float64)
    evaluation["accuracy"] = float((probabilities.argmax(axis=1) == labels).mean())
    evaluation["loss"] = float(-np.log(chosen).mean())
    evaluation["probabilities_sha256"] = hashlib.sha256(content).hexdigest()
    (run / "evaluation.json").write_text(json.dumps(evaluation))
    first = read_json_line(run / "metrics.jsonl")
    lines = []
    for epoch in range(1, 4 + seed % 2):
        figures = {
            "train_loss": rate + 1 / (epoch + seed),
            "train_accuracy": 1 - 1 / (epoch + 1 + seed),
            "learning_rate": rate / epoch,
        }
        if rate < 0.05:  # one config does not validate
            figures |= {"validation_loss": rate + 2 / (epoch + seed), "validation_accuracy": 1 - 1 / (epoch + 2 + seed)}
        lines.append(
            json.dumps(
                {
                    **first,
                    "epoch": epoch,
                    "step": epoch,
                    "validation_loss": None,
                    "validation_accuracy": None,
                    **figures,
                }
            )
        )
    (run / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return run


def read_json_line(path):
    return json.loads(path.read_text("utf-8").partition("\n")[0])


@pytest.fixture(scope="session")
def several_file(made_runs, cnn_train, tmp_path_factory):
    """The page of the six runs."""
    file = tmp_path_factory.mktemp("several-page") / "several.html"
    answer = cnn_train("report", *made_runs, "--output", file)
    assert answer.code == 0, answer.err
    return file


@pytest.fixture(scope="session")
def page(several_file):
    return read_html(several_file.read_text("utf-8"))


class Raw:
    """What the files of the runs say: right answers and losses of each group, (runs, images)."""

    def __init__(self, runs):
        self.runs, self.right, self.losses, self.metrics = runs, [], [], []
        position = 0
        for _, seeds in GROUPS:
            group = runs[position : position + len(seeds)]
            position += len(seeds)
            arrays = [read_arrays(run / "probabilities.safetensors") for run in group]
            self.right.append(np.array([labels == found.argmax(axis=1) for labels, found in arrays], float))
            self.losses.append(
                np.array([-np.log(found[np.arange(len(labels)), labels]) for labels, found in arrays], float)
            )
            self.metrics.append(list(map(read_metrics, group)))


def read_arrays(path):
    """Labels and probabilities, from the safetensors file by hand."""
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])

    def array(name, kind):
        start, end = header[name]["data_offsets"]
        return np.frombuffer(content[8 + size + start : 8 + size + end], kind).reshape(header[name]["shape"])

    return array("labels", "<i4"), array("probabilities", "<f4")


@pytest.fixture(scope="session")
def raw(made_runs):
    return Raw(made_runs)


def t_density(x, dof):
    scale = math.lgamma((dof + 1) / 2) - math.lgamma(dof / 2) - 0.5 * math.log(dof * math.pi)
    return np.exp(scale - (dof + 1) / 2 * np.log1p(x * x / dof))


def t_two_tails(statistic, dof):
    """The probability beyond the statistic, by Simpson's rule over the middle."""
    if math.isinf(dof):
        return math.erfc(statistic / math.sqrt(2))
    x = np.linspace(0, statistic, 20_001)
    y = t_density(x, dof)
    return 1 - 2 * float((y[0] + y[-1] + 4 * y[1:-1:2].sum() + 2 * y[2:-1:2].sum()) * (x[1] - x[0]) / 3)


def t_limit(dof):
    low, high = 0.0, 200.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if t_two_tails(middle, dof) > 0.05 else (low, middle)
    return high


def estimate(first, second=None):
    """A mean, or a difference of means, of values (runs, images): value, low, high and p.

    The variance comes from the images, less what the seeds add to it, and from the seeds. Each group has at least the
    variance that seeds would add that change each image independently; what is above that is pooled over the groups. A
    mean is corrected for skewness (Hall).
    """
    groups = [first] if second is None else [first, second]
    mean = first.mean(axis=0) - (0 if second is None else second.mean(axis=0))
    value, num = mean.mean(), len(mean)
    within = [(len(g), g.var(axis=0, ddof=1).mean()) for g in groups if len(g) > 1]
    images = max(0, mean.var(ddof=1) - sum(one / runs for runs, one in within)) / num
    dof = max(1, sum(len(g) - 1 for g in groups))
    squares = sum(((g.mean(axis=1) - g.mean()) ** 2).sum() for g in groups)
    above = max(0, squares - sum(one * (runs - 1) / num for runs, one in within)) / dof
    floors = [g.var(axis=0, ddof=1).mean() / num if len(g) > 1 else None for g in groups]
    known = [floor for floor in floors if floor is not None] or [0]
    seeds = sum(
        (above + (known[0] if floor is None else floor)) / len(g) for g, floor in zip(groups, floors, strict=True)
    )
    effective = dof * ((images + seeds) / seeds) ** 2 if seeds else math.inf
    error, limit = math.sqrt(images + seeds), t_limit(effective)
    tails = t_two_tails(abs(value) / error, effective)
    if second is not None:
        return value, value - limit * error, value + limit * error, tails
    skew = ((mean - value) ** 3).mean() / num**2 / error**3

    def end(quantile):
        return value - error * 3 / skew * (np.cbrt(1 + skew * (quantile - skew / 6)) - 1)

    return value, end(limit), end(-limit), tails


def wilson(right, total):
    found, square = right / total, Z * Z / total
    return sorted(np.roots([1 + square, -(2 * found + square), found * found]).real)


def percent(share):
    return f"{100 * share:.2f}%"


def named(letter):
    return "ABC".index(letter)


def table(page, caption):
    [found] = [one for one in page.all("table") if one.all("caption") and one.one("caption").text.startswith(caption)]
    return rows_of(found)


def test_accuracies_and_losses(page, raw):
    rows = table(page, "Groups of runs")
    means = [right.mean() for right in raw.right]
    assert [row[0] for row in rows] == [
        letter for _, letter in sorted(zip((-mean for mean in means), "ABC", strict=True))
    ]
    for letter, _tier, number, accuracy, ends, loss, loss_ends in rows:
        right, losses = raw.right[named(letter)], raw.losses[named(letter)]
        _, low, high, _ = estimate(right)
        if len(right) == 1:
            low, high = wilson(right.sum(), right.size)
        assert int(number) == len(right)
        assert accuracy == percent(right.mean())
        assert ends == f"{percent(max(0, low))} to {percent(min(1, high))}"
        value, low, high, _ = estimate(losses)
        assert loss == f"{value:.4f}"
        assert loss_ends == f"{max(0, low):.4f} to {high:.4f}"


def corrected(p_values):
    """Holm's: the smallest times their number, the next times one less, and none below one before it."""
    order, found, least = sorted(range(len(p_values)), key=p_values.__getitem__), [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        least = max(least, min(1, p_values[index] * (len(p_values) - rank)))
        found[index] = least
    return found


def test_differences_and_tiers(page, raw):
    pairs = list(combinations(range(3), 2))
    found = [estimate(raw.right[first], raw.right[second]) for first, second in pairs]
    p_values = corrected([one[3] for one in found])
    rows = table(page, "Pairs of groups")
    assert len(rows) == 3
    for row, (first, second), (value, low, high, _), p_value in zip(rows, pairs, found, p_values, strict=True):
        loss, loss_low, loss_high, _ = estimate(raw.losses[first], raw.losses[second])
        assert row == [
            f"{'ABC'[first]} − {'ABC'[second]}",
            f"{value * 100:+.2f}",
            f"{low * 100:+.2f} to {high * 100:+.2f}",
            f"{p_value:.2g}",
            f"{loss:+.4f}",
            f"{loss_low:+.4f} to {loss_high:+.4f}",
        ]
    better = {
        (f, s) if one[0] > 0 else (s, f) for (f, s), one, p in zip(pairs, found, p_values, strict=True) if p < 0.05
    }
    tiers = {}
    for group in sorted(range(3), key=lambda group: -raw.right[group].mean()):
        tiers[group] = 1 + max((tiers[best] for best, other in better if other == group), default=0)
    assert {named(row[0]): int(row[1]) for row in table(page, "Groups of runs")} == tiers
    top = [letter for letter in "ABC" if tiers[named(letter)] == 1]
    assert 1 <= len(top) < 3
    assert page.one("p", class_="verdict").text == f"Of 3 groups, none is shown to be better than {' or '.join(top)}."


def test_what_differs_and_the_runs(page, raw):
    assert table(page, "The config keys") == [["training.learning_rate", *(f"{rate:g}" for rate, _ in GROUPS)]]
    rows = table(page, "Every run")
    expected = [(letter, seed) for letter, (_, seeds) in zip("ABC", GROUPS, strict=True) for seed in seeds]
    right = [one for group in raw.right for one in group]
    losses = [one for group in raw.losses for one in group]
    for row, run, (letter, seed), one, loss in zip(rows, raw.runs, expected, right, losses, strict=True):
        record = read_json(run / "run.json")
        assert row[:4] == [run.name, letter, str(seed), str(record["epochs_done"])]
        assert row[4:6] == [percent(one.mean()), f"{loss.mean():.4f}"]
        assert record["weights_sha256"].startswith(row[6].rstrip("…"))
    command = page.one("pre").text.split()
    assert command == ["cnn-train", "report", *map(str, raw.runs)]


def test_curves_are_the_means_of_the_runs_that_reached_each_epoch(page, raw):
    fields = {
        "Validation loss": "validation_loss",
        "Validation accuracy": "validation_accuracy",
        "Training loss": "train_loss",
        "Training accuracy": "train_accuracy",
        "Learning rate": "learning_rate",
    }
    details = {one.one("summary").text.removesuffix(" after each epoch"): one for one in page.all("details")}
    assert details.keys() == fields.keys()
    charts = {one.one("figcaption").text: one.one("svg") for one in page.all("figure")}
    for title, field in fields.items():
        groups = [
            [[line[field] for line in run] for run in group if run[0][field] is not None] for group in raw.metrics
        ]
        letters = [letter for letter, group in zip("ABC", groups, strict=True) if group]
        heading = [cell.text for cell in details[title].one("thead").all("th")]
        assert heading == ["Epoch", *letters]
        assert letters == (list("AB") if "Validation" in title else list("ABC"))
        for row in rows_of(details[title].one("table")):
            epoch = int(row[0])
            for cell, letter in zip(row[1:], letters, strict=True):
                values = [run[epoch - 1] for run in groups[named(letter)] if len(run) >= epoch]
                mean = sum(values) / len(values) if values else None
                form = "–" if mean is None else percent(mean) if "accuracy" in field else f"{mean:.4g}"
                assert cell == form, (title, epoch, letter)
        for letter in letters:
            start = np.mean([run[0] for run in groups[named(letter)]])
            start = percent(start) if "accuracy" in field else f"{start:.4g}"
            assert f"{letter}: from {start} to " in charts[title].attrs["aria-label"]


def test_a_single_pair_of_runs_counts_images(raw, tmp_path):
    runs = raw.runs[0], raw.runs[5]
    code, _, err = invoke("report", *runs, "--output", tmp_path / "pair.html")
    assert code == 0, err
    page = read_html((tmp_path / "pair.html").read_text("utf-8"))
    a, b = raw.right[0][0] > 0, raw.right[2][0] > 0
    [row] = table(page, "Pairs of groups")
    only_a, only_b = int((a & ~b).sum()), int((~a & b).sum())
    assert row[6:] == [f"{n:,}" for n in ((a & b).sum(), only_a, only_b, (~a & ~b).sum())]
    tail = sum(math.comb(only_a + only_b, k) for k in range(min(only_a, only_b) + 1)) / 2 ** (only_a + only_b)
    assert row[3] == f"{min(1, 2 * tail):.2g}"
    verdict = page.one("p", class_="verdict").text
    assert verdict.startswith(("A is better than B", "B is better than A", "Cannot tell A and B apart"))
    assert f"{abs(a.mean() - b.mean()) * 100:.2f} points" in verdict


def test_seeds_of_one_config_are_one_group(raw, tmp_path):
    code, _, err = invoke("report", *raw.runs[:3], "--output", tmp_path / "group.html")
    assert code == 0, err
    page = read_html((tmp_path / "group.html").read_text("utf-8"))
    assert f"{percent(raw.right[0].mean())} of the test images" in page.one("p", class_="verdict").text
    assert "differences" not in [one.attrs.get("id") for one in page.all("h2")]


def test_equal_runs_give_equal_bytes(made_runs, several_file, tmp_path):
    code, _, _ = invoke("report", *made_runs, "--output", tmp_path / "again.html")
    assert code == 0
    assert (tmp_path / "again.html").read_bytes() == several_file.read_bytes()


def test_the_page_lies_beside_the_first_run_unless_told_otherwise(made_runs, tmp_path):
    runs = [shutil.copytree(run, tmp_path / "runs" / run.name) for run in made_runs[:2]]
    code, out, err = invoke("report", *(run.name for run in runs), "--runs-dir", tmp_path / "runs", "--json")
    assert code == 0, err
    file = tmp_path / "runs/report.html"
    assert json.loads(out) == {"report": str(file), "bytes": file.stat().st_size}


def test_what_cannot_be_shown_is_refused(made_runs, tmp_path):
    file = tmp_path / "x.html"
    (tmp_path / "search").mkdir()
    (tmp_path / "search/search.json").write_text("{}")
    for words, code, message in (
        ((made_runs[0], made_runs[0]), 2, "is named twice"),
        ((made_runs[0], made_runs[1], "--watch"), 2, "several runs cannot be watched"),
        ((made_runs[0], made_runs[1], "--data", tmp_path), 2, "only the page of one run shows images"),
        ((made_runs[0], tmp_path / "search"), 2, "is a search, which has a page of its own"),
        ((tmp_path / "search",), 6, "search.json"),
        ((made_runs[0], "nothing"), 6, "no such path"),
    ):
        found, _, err = invoke("report", *words, "--output", file)
        assert (found, message in err) == (code, True), err
        assert not file.exists()


def test_hostile_text_stays_text(made_runs, tmp_path):
    name = "<img src=x onerror=alert(1)>\"'\x1b[2J"
    folder = tmp_path / "<b>&amp;'"
    folder.mkdir()
    runs = [shutil.copytree(run, folder / f"{index}{name}") for index, run in enumerate(made_runs[:4])]
    file = tmp_path / "hostile.html"
    code, _, err = invoke("report", *runs, "--output", file)
    assert code == 0, err
    text = file.read_text("utf-8")
    page = read_html(text)
    check_is_harmless(page)
    assert "\x1b" not in text
    assert table(page, "Every run")[0][0] == "0<img src=x onerror=alert(1)>\"'\\x1b[2J"


def test_the_page_can_do_nothing_and_ids_are_unique(page):
    check_is_harmless(page)
    check_ids(page)


@pytest.mark.skipif(not browser.CHROMIUM, reason="no Chromium is installed")
@pytest.mark.parametrize("kind", [browser.DESKTOP, browser.PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("color_scheme", ["light", "dark"])
def test_axe_finds_nothing_on_the_page_of_several_runs(several_file, kind, color_scheme):
    check_in_browser(several_file, kind, color_scheme)
