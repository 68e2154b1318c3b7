"""Every number on the page of a run, computed again from the raw files by code that shares nothing with the package."""

import base64
import csv
import hashlib
import inspect
import io
import json
import math
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import yaml
from PIL import Image
from reading import read_html, rows_of

Z = 1.959963984540054


def percent(share):
    return "–" if share is None else f"{100 * share:.2f}%"


def probability(share):
    if 0 < share < 0.0005:
        return "<0.1%"
    return ">99.9%" if 0.9995 <= share < 1 else f"{100 * share:.1f}%"


def wilson(right, total):
    """The shares that are Z standard errors away from what was found, as the roots of a quadratic equation."""
    if not total:
        return "–"
    found, square = right / total, Z * Z / total
    low, high = sorted(np.roots([1 + square, -(2 * found + square), found * found]).real)
    return f"{percent(max(0, low))} to {percent(min(1, high))}"


def read_arrays(path):
    """A safetensors file by hand."""
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    kinds = {"F32": "<f4", "I32": "<i4"}
    arrays = {}
    for name, entry in header.items():
        if name != "__metadata__":
            start, end = entry["data_offsets"]
            values = np.frombuffer(content[8 + size + start : 8 + size + end], kinds[entry["dtype"]])
            arrays[name] = values.reshape(entry["shape"])
    return arrays


class Raw:
    """What the files of the run and its data say."""

    def __init__(self, reported):
        run = reported.run
        self.record = json.loads((run / "run.json").read_text())
        self.evaluation = json.loads((run / "evaluation.json").read_text())
        self.metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        self.config = yaml.safe_load((run / "config.yaml").read_text())
        self.weights = read_arrays(run / "weights.safetensors")
        self.probabilities = read_arrays(run / "probabilities.safetensors")["probabilities"].astype(float)
        with (run / "predictions.csv").open(newline="") as file:
            file.readline()
            rows = list(csv.DictReader(file))
        self.predictions = np.array([int(row["prediction"]) for row in rows])
        self.images, self.labels = reported.images, reported.labels
        assert [int(row["label"]) for row in rows] == self.labels.tolist()
        self.total = len(self.labels)
        self.right = self.predictions == self.labels
        self.of_label = self.probabilities[np.arange(self.total), self.labels]
        self.of_prediction = self.probabilities[np.arange(self.total), self.predictions]
        self.worst = sorted(range(self.total), key=lambda index: (self.of_label[index], index))


@pytest.fixture(scope="module")
def raw(reported):
    return Raw(reported)


@pytest.fixture(scope="module")
def sprite(reported):
    """The pixels of the one PNG that holds all images of the page."""
    image = reported.page.one(id="sprite")
    head, content = image.attrs["href"].split(",")
    assert head == "data:image/png;base64"
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))
    assert pixels.shape == (int(image.attrs["height"]), int(image.attrs["width"]))
    return pixels


def index_of(tile):
    return int(tile.one("b").text.removeprefix("#"))


def check_tile(tile, raw, sprite):
    """Its picture, label, prediction and probabilities are those of the example that it names."""
    index = index_of(tile)
    left, top, width, height = map(int, tile.one("svg").attrs["viewbox"].split())
    assert tile.one("use").attrs["href"] == "#sprite"
    assert np.array_equal(sprite[top : top + height, left : left + width], raw.images[index]), index
    label, prediction = raw.labels[index], raw.predictions[index]
    assert tile.one("svg").attrs["aria-label"] == f"Image {index}, label {label}"
    said = [span.text for span in tile.all("span")]
    if said[0].startswith("loss"):
        assert said.pop(0) == f"loss {-math.log(raw.of_label[index]):.2f}"
    wanted = [f"label {label}: {probability(raw.of_label[index])}"]
    if label != prediction:
        wanted.append(f"predicted {prediction}: {probability(raw.of_prediction[index])}")
    else:
        second = sorted(range(10), key=lambda each: -raw.probabilities[index, each])[1]
        wanted.append(f"next {second}: {probability(raw.probabilities[index, second])}")
    assert said == wanted
    return index


def test_the_sentence_and_the_figures_say_what_the_predictions_say(reported, raw):
    right, header = int(raw.right.sum()), reported.page.one("header")
    accuracy, interval = percent(right / raw.total), wilson(right, raw.total)
    sentence = (
        f"classifies {right:,} of {raw.total:,} test images of npz correctly: {accuracy}, with a 95 % interval of"
    )
    assert header.one(class_="verdict").text == f"A convolutional network that {sentence} {interval}."
    error = raw.evaluation["calibration"]["calibration_error"]
    parameters = sum(array.size for array in raw.weights.values())
    seconds = raw.record["train_seconds"]
    assert [div.text for div in header.one(class_="figures").all("div")] == [
        f"Accuracy{accuracy} {interval}",
        f"Wrong{raw.total - right:,} of {raw.total:,} test images",
        f"Loss{-np.log(raw.of_label).mean():.4f} cross entropy",
        f"Calibration error{percent(error['error'])} {percent(error['chance_mean'])} by chance",
        f"Parameters{parameters:,} cnn",
        f"Trained{round(seconds)} s 3 epochs",
    ]
    assert header.one("h1").text == f"digits, seed {raw.config['seed']}"


def test_the_matrix_counts_the_predictions_and_is_not_always_zero(reported, raw):
    table = reported.page.one(class_="matrix")
    assert table.one("caption").text == f"{raw.total:,} test images"
    assert [cell.text for cell in table.one("thead").all("th")] == ["label", *map(str, range(10)), "all"]
    rows = rows_of(table)
    counts = [[int(cell.replace(",", "")) for cell in row] for row in rows]
    pairs = list(zip(raw.labels.tolist(), raw.predictions.tolist(), strict=True))
    for label, row in enumerate(counts):
        assert row == [label, *(pairs.count((label, other)) for other in range(10)), int((raw.labels == label).sum())]
    wrong = sum(row[1 + other] for label, row in enumerate(counts) for other in range(10) if other != label)
    assert wrong == (~raw.right).sum() > 20


def test_each_cell_opens_its_images_with_the_worst_first(reported, raw, sprite):
    buttons = reported.page.one(class_="matrix").all("button")
    opened = 0
    for button in buttons:
        box = reported.page.one(id=button.attrs["popovertarget"])
        _, label, other = box.attrs["id"].split("-")
        behind = [i for i in raw.worst if (raw.labels[i], raw.predictions[i]) == (int(label), int(other))]
        noun = "image" if len(behind) == 1 else "images"
        assert button.text == f"{len(behind):,}"
        assert button.attrs["aria-label"] == f"{len(behind):,} {noun} with label {label} and prediction {other}"
        assert box.one("h3").text == f"Label {label}, prediction {other}: {len(behind):,} {noun}"
        shown = [check_tile(tile, raw, sprite) for tile in box.all("li")]
        assert shown == behind[: len(shown)]
        more = len(behind) - len(shown)
        words = (
            f"The {len(shown)} with the largest loss; and {more:,} more."
            if more
            else "All of them, the largest loss first."
        )
        assert box.one("p").text == words
        opened += len(shown) if label != other else 0
        assert more == 0 or len(shown) == 40
    assert opened == (~raw.right).sum()
    assert len(buttons) == len({*zip(raw.labels.tolist(), raw.predictions.tolist(), strict=True)})


def test_the_galleries_show_the_worst_and_the_least_certain(reported, raw, sprite):
    for name, wanted in ("worst", False), ("uncertain", True):
        order = [index for index in raw.worst if raw.right[index] == wanted]
        section = reported.page.one("section", aria_labelledby=name)
        assert [check_tile(tile, raw, sprite) for tile in section.all("li")] == order[:32]
        assert f"{min(32, len(order))} of {len(order):,}." in section.one("p").text


def test_the_scores_of_the_classes_are_those_of_the_predictions(reported, raw):
    section = reported.page.one("section", aria_labelledby="classes")
    recalls = []
    for label, row in enumerate(rows_of(section.one("table"))):
        mine, said = raw.labels == label, raw.predictions == label
        right = int((mine & said).sum())
        recall, precision = right / mine.sum(), right / said.sum() if said.any() else None
        f1 = 2 * right / (mine.sum() + said.sum()) if right else None
        recalls.append(recall)
        of_recall, of_precision = wilson(right, int(mine.sum())), wilson(right, int(said.sum()))
        wanted = [
            str(label),
            f"{mine.sum():,}",
            percent(recall),
            of_recall,
            percent(precision),
            of_precision,
            percent(f1),
        ]
        assert row == wanted
    heading = ["Class", "Images", "Recall", "Interval", "Precision", "Interval", "F1"]
    assert [cell.text for cell in section.one("thead").all("th")] == heading
    assert section.one("caption").text == "Scores of each class on the test split, with 95 % intervals"
    assert f"is {percent(np.mean(recalls))}." in section.one("p").text


def test_the_curves_are_those_of_the_metrics(reported, raw):
    section = reported.page.one("section", aria_labelledby="curves")
    rows = rows_of(section.one("table"))
    assert len(rows) == len(raw.metrics) == 3
    for row, each in zip(rows, raw.metrics, strict=True):
        figures = [f"{each['train_loss']:.4f}", percent(each["train_accuracy"])]
        figures += [f"{each['validation_loss']:.4f}", percent(each["validation_accuracy"])]
        figures += [f"{each['learning_rate']:.3g}", f"{each['images_per_second']:,.0f}", f"{each['seconds']:.1f}"]
        assert row == [str(each["epoch"]), *figures]
    loss, accuracy, rate = (svg.attrs["aria-label"] for svg in section.all("svg", role="img"))
    first, last = raw.metrics[0], raw.metrics[-1]
    lowest = min(raw.metrics, key=lambda each: each["validation_loss"])
    assert f"validation: from {first['validation_loss']:.4g} to {last['validation_loss']:.4g}" in loss
    assert f"best {lowest['validation_loss']:.4g} after epoch {lowest['epoch']}" in loss
    assert f"training: from {percent(first['train_accuracy'])} to {percent(last['train_accuracy'])}" in accuracy
    assert f"from {first['learning_rate']:.4g} to {last['learning_rate']:.4g}" in rate


def distribution(probabilities):
    """The probability of each number of successes, one trial after the other."""
    chances = np.ones(1)
    for share in probabilities:
        chances = np.append(chances * (1 - share), 0) + np.append(0, chances * share)
    return chances


def area(raw):
    """The mean error of the most confident 1, 2, … predictions; of equal ones, each is as likely to be kept."""
    errors, wrong = [], 0.0
    for confidence in sorted(set(raw.of_prediction.tolist()), reverse=True):
        equal = raw.of_prediction == confidence
        for number in range(1, equal.sum() + 1):
            errors.append((wrong + number * (~raw.right[equal]).mean()) / (len(errors) + 1))
        wrong += (~raw.right[equal]).sum()
    return np.mean(errors)


def best_temperature(probabilities, labels):
    """By golden section search."""

    def loss(temperature):
        scaled = np.log(probabilities) / temperature
        return (np.log(np.exp(scaled).sum(axis=1)) - scaled[np.arange(len(labels)), labels]).mean()

    low, high, ratio = 0.1, 10.0, (math.sqrt(5) - 1) / 2
    for _ in range(60):
        first, second = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, second) if loss(first) < loss(second) else (first, high)
    return (low + high) / 2


@pytest.fixture(scope="module")
def validation(cnn_train, scored_run, tmp_path_factory):
    """Probabilities and labels of the validation split."""
    copy = tmp_path_factory.mktemp("validation") / scored_run.name
    shutil.copytree(scored_run, copy)
    answer = cnn_train("evaluate", copy, "--split", "validation")
    assert answer.code == 0, answer.err
    arrays = read_arrays(copy / "probabilities-validation.safetensors")
    return arrays["probabilities"].astype(float), arrays["labels"]


def test_the_reliability_is_that_of_the_probabilities(reported, raw, validation):
    section, found = reported.page.one("section", aria_labelledby="reliability"), raw.evaluation["calibration"]
    likelihood = -np.log(raw.of_label).mean()
    brier = ((raw.probabilities - np.eye(10)[raw.labels]) ** 2).sum(axis=1).mean()
    parts = [found["brier"][name] for name in ("miscalibration", "discrimination", "uncertainty")]
    assert parts[0] - parts[1] + parts[2] == pytest.approx(brier)
    shares = np.bincount(raw.labels) / raw.total
    assert parts[2] == pytest.approx(1 - (shares**2).sum())
    facts = {div.one("dt").text: div.one("dd").text for div in section.one("dl").all("div")}
    assert facts["Negative log likelihood"] == f"{likelihood:.4f} nats"
    words = [
        f"{name} {part:.5f}"
        for name, part in zip(("miscalibration", "− discrimination", "+ uncertainty"), parts, strict=True)
    ]
    assert facts["Brier score"] == f"{brier:.5f} = {' '.join(words)}"
    text = section.all("p")[0].text
    assert f"mean probability of {percent(raw.of_prediction.mean())}, and {percent(raw.right.mean())} of them" in text
    error = found["calibration_error"]
    rows = rows_of(section.one("table"))
    weighted = 0.0
    for row, each in zip(rows, found["bins"], strict=True):
        inside = (raw.of_prediction > each["low"]) & (raw.of_prediction <= each["high"])
        inside |= (raw.of_prediction == 0) & (each["low"] == 0)
        right, confidence = raw.right[inside].mean(), raw.of_prediction[inside].mean()
        chance = f"{percent(each['chance_low'])} to {percent(each['chance_high'])}"
        ends = f"{percent(each['low'])} to {percent(each['high'])}"
        assert row == [ends, f"{inside.sum():,}", percent(confidence), percent(right), chance]
        weighted += inside.sum() / raw.total * abs(right - confidence)
    assert f"expected calibration error is {percent(weighted)} (95 % interval " in text
    low, high = map(percent, error["interval"])
    assert f"(95 % interval {low} to {high})" in text
    assert f"at most {percent(error['chance_limit'])} in 95 % of splits" in text
    assert facts["Error and coverage"] == f"{percent(area(raw))} mean error over all coverages"
    temperature = best_temperature(*validation)
    assert facts["Temperature"].startswith(f"{temperature:.3f}, found on the validation split")
    scaled = np.log(raw.probabilities) / temperature
    tempered = np.exp(scaled) / np.exp(scaled).sum(axis=1, keepdims=True)
    assert f"is {-np.log(tempered[np.arange(raw.total), raw.labels]).mean():.4f} nats" in facts["Temperature"]
    confidences = tempered[np.arange(raw.total), raw.predictions]
    places = np.ceil(confidences * 15)
    apart = [abs((raw.right - confidences)[places == place].sum()) for place in np.unique(places)]
    assert facts["Temperature"].endswith(f"calibration error {percent(sum(apart) / raw.total)}")


def test_the_band_of_the_reliability_diagram_is_what_chance_allows(reported, raw):
    section, found = reported.page.one("section", aria_labelledby="reliability"), raw.evaluation["calibration"]
    mean, holds, rng, draws = 0.0, 1.0, np.random.default_rng(1), np.zeros(20_000)
    for each in found["bins"]:
        inside = (raw.of_prediction > each["low"]) & (raw.of_prediction <= each["high"])
        chances = distribution(raw.of_prediction[inside])
        lowest, highest = (round(each[name] * inside.sum()) for name in ("chance_low", "chance_high"))
        holds *= chances[lowest : highest + 1].sum()
        assert max(chances[:lowest].sum(), chances[highest + 1 :].sum()) < 0.025
        off = np.abs(np.arange(len(chances)) - raw.of_prediction[inside].sum()) / raw.total
        mean += (chances * off).sum()
        draws += off[rng.choice(len(chances), 20_000, p=chances / chances.sum())]
    text = section.all("p")[0].text
    assert 0.95 <= holds < 0.975
    assert section.all("p")[1].text.endswith(f"stays inside all of them with a probability of {percent(holds)}.")
    assert f"would show {percent(mean)} on so many" in text
    limit = found["calibration_error"]["chance_limit"]
    assert limit == pytest.approx(np.quantile(draws, 0.95), rel=0.05)
    assert f"at most {percent(limit)} in 95 % of splits" in text


def parts_of(figure):
    """The parts of a picture of filters or maps, without the grey lines between them."""
    image = figure.one("img")
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(image.attrs["src"].split(",")[1]))))
    assert pixels.shape[:2] == (int(image.attrs["height"]), int(image.attrs["width"]))
    return pixels


def test_the_pictures_of_the_network_are_those_of_its_weights(reported, raw, sprite):
    section = reported.page.one("section", aria_labelledby="network")
    filters, first, second, dense = section.all("figure")
    kernel = next(array for name, array in raw.weights.items() if name.endswith("conv_1/kernel"))[:, :, 0]
    bias = next(array for name, array in raw.weights.items() if name.endswith("conv_1/bias"))
    pixels, side = parts_of(filters), 20
    assert filters.one("p").text.startswith("6 filters of conv_1, 3 by 3 pixels each.")
    for number in range(6):
        for row, column in np.ndindex(3, 3):
            weight = kernel[row, column, number]
            red, _, blue = map(int, pixels[1 + row * side + 5, 1 + number * 61 + column * side + 5])
            strength = abs(weight) / np.abs(kernel).max()
            assert (red > blue) == (weight > 0) or strength < 0.02
            assert abs(red - blue) == pytest.approx(strength * (139 if weight < 0 else 189), abs=2)
    index = check_tile(section.one(class_="subject").one("li"), raw, sprite)
    assert index == raw.worst[0]
    titles = [figure.one("h3").text for figure in (first, second, dense)]
    assert titles == [f"Activations of {name}" for name in ("conv_1", "conv_2", "dense_1")]
    image = raw.images[index] / 255
    maps = np.zeros((26, 26, 6))
    for row, column in np.ndindex(3, 3):
        maps += image[row : row + 26, column : column + 26, None] * kernel[row, column]
    maps = np.maximum(maps + bias, 0)
    assert first.one("p").text == f"6 maps of 26 by 26 values. Black is 0, white is {maps.max():.3g}."
    pixels = parts_of(first)
    for number in range(6):
        left = 1 + number * 53
        shown = pixels[1:53:2, left : left + 52 : 2, 0].astype(float)
        assert np.abs(shown - maps[..., number] / maps.max() * 255).max() < 1
    assert second.one("p").text.startswith("8 maps of 11 by 11 values.")
    assert dense.one("p").text.startswith("16 units.")


def test_what_the_run_was_is_what_its_files_say(reported, raw):
    section = reported.page.one("section", aria_labelledby="about")
    assert section.all("pre")[0].text == f"cnn-train train {reported.run / 'config.yaml'}"
    differing = {key: json.loads(value) for key, value, _ in rows_of(section.one("table"))}
    assert differing == {
        "name": "digits",
        "data.source": "npz",
        "data.path": raw.config["data"]["path"],
        "data.validation_fraction": 0.1,
        "model.filters": [6, 8],
        "model.dense_units": [16],
        "training.epochs": 3,
        "training.batch_size": 32,
        "training.learning_rate": 0.004,
    }
    assert yaml.safe_load(section.one("details").one("code").children[0]) == raw.config
    assert [heading.text for heading in section.all("h3")] == ["Facts", "SHA-256"]
    facts, digests = ({div.one("dt").text: div.one("dd").text for div in dl.all("div")} for dl in section.all("dl"))
    assert facts["Examples"] == "1,800 training images and 200 validation images of 28x28x1, 10 classes"
    assert facts["Times"] == f"created {raw.record['created_at']}, updated {raw.record['updated_at']}"
    assert all(version in facts["Versions"] for version in raw.record["versions"].values())
    assert all(value in facts["Machine"] for value in raw.record["machine"].values())
    content = f"{raw.total} 28 28 1\n".encode() + raw.images.tobytes() + raw.labels.astype("<i4").tobytes()
    assert digests["test images"] == hashlib.sha256(content).hexdigest()
    digest = hashlib.sha256()
    layers = ["conv_1", "conv_2", "dense_1", "probabilities"]
    for name in (f"digits/{layer}/{part}" for layer in layers for part in ("kernel", "bias")):
        array = raw.weights[name]
        digest.update(f"float32 {','.join(map(str, array.shape))}\n".encode() + array.tobytes())
    assert digests["weights"] == digest.hexdigest()
    assert digests["training images"] == raw.record["data"]["train_sha256"]


def test_every_number_on_the_page_is_compared_by_these_tests(reported, raw, sprite, validation):
    """No text with a digit is left that none of them reads."""
    fresh = replace(reported, page=read_html(reported.file.read_text("utf-8")))
    arguments = {"reported": fresh, "raw": raw, "sprite": sprite, "validation": validation}
    own = inspect.currentframe().f_code.co_name
    for name, check in list(globals().items()):
        if name.startswith("test_") and name != own:
            check(**{each: arguments[each] for each in inspect.signature(check).parameters})
    page = fresh.page.one("body")
    assert [text for text in page.unread() if re.search(r"\d", text)] == []
