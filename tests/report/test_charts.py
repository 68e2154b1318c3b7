"""Charts: what is drawn is what was given, and nothing in the SVG can load, run or restyle anything."""

import re
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest

import cnn_trainer.report
from cnn_trainer.report import charts, draw, search_charts
from cnn_trainer.report.charts import IntervalRow, Series
from cnn_trainer.report.search_charts import ParallelAxis, TrialLine
from cnn_trainer.runs.records import CoveragePoint, ReliabilityBin

TEMPLATES = Path(cnn_trainer.report.__file__).parent / "templates"
HOSTILE = '<script>alert(1)</script>"\'&\u202e\x1b\0\ud800]]>{{x}} style="x" onload="y"'
LOSSES = (0.9, 0.5, 0.3, 0.25, 0.26)


def bins(*accuracies):
    edges = [(0.5, 0.4, 0.6, 20), (0.7, 0.6, 0.8, 300), (0.95, 0.93, 0.97, 9000)]
    return [
        ReliabilityBin(
            low=mean - 0.05, high=mean + 0.05, num_examples=number, confidence=mean, accuracy=accuracy,
            chance_low=low, chance_high=high,
        )
        for accuracy, (mean, low, high, number) in zip(accuracies, edges, strict=True)
    ]  # fmt: skip


def coverage():
    return [CoveragePoint(coverage=k / 10, error=k / 400, min_confidence=1 - k / 20) for k in range(1, 11)]


def all_charts(name):
    """One chart of each kind, with a name from outside wherever there can be one."""
    rows = [IntervalRow(name, 0.9, 0.8, 0.95), IntervalRow(name, 0.8, 0.7, 0.85)]
    trials = [TrialLine((0.9, 0.4), True), TrialLine((0.8,), False)]
    axes = [ParallelAxis(name, ((0.0, name), (1.0, "1"))), ParallelAxis("b", ((0.5, name),))]
    return {
        "curves": charts.learning_curves([Series(name, (LOSSES, (0.8, 0.6))), Series("b", (LOSSES,))], "loss"),
        "rate": charts.learning_curves([Series(name, (LOSSES,))], "learning rate", result_epoch=2),
        "reliability": charts.reliability_chart(bins(0.5, 0.9, 0.95)),
        "coverage": charts.error_coverage(coverage()),
        "accuracies": charts.interval_rows(rows, name, "accuracy"),
        "differences": charts.interval_rows(rows, name, "difference"),
        "importance": search_charts.importance_bars({name: 0.7, "b": 0.3}),
        "rungs": search_charts.rung_lines([1, 3], trials, "loss"),
        "parallel": search_charts.parallel_coordinates(axes, trials),
    }


@pytest.fixture(scope="module")
def hostile():
    return all_charts(HOSTILE)


def root_of(svg):
    return ElementTree.fromstring(svg)  # noqa: S314 -- made by the test


def elements(svg):
    return list(root_of(svg).iter())


def texts(svg):
    return ["".join(element.itertext()) for element in elements(svg) if element.tag.endswith("text")]


def test_no_chart_has_styles_scripts_links_or_ids(hostile):
    allowed = {"svg", "g", "path", "line", "rect", "text", "tspan"}
    for name, svg in hostile.items():
        for element in elements(svg):
            assert element.tag.rpartition("}")[2] in allowed, name
            names = {key.rpartition("}")[2] for key in element.attrib}
            assert not names & {"style", "id", "href", "src", "filter", "clip-path", "mask"}, name
            assert not [key for key in names if key.startswith("on")], name
            assert not [value for value in element.attrib.values() if "url(" in value], name


def test_text_from_outside_stays_text(hostile):
    for name in ("curves", "rate", "accuracies", "differences", "importance", "parallel"):
        assert "<script>alert(1)</script>\"'&\\u202e\\x1b\\x00\\ud800]]>" in root_of(hostile[name]).get("aria-label"), (
            name
        )
    assert any(text.startswith("<script>alert(1)") for text in texts(hostile["curves"])), "the legend"
    assert any(text.startswith("<script>") for text in texts(hostile["accuracies"])), "the rows"


@pytest.mark.parametrize("name", ["\U0001f600" * 300, "x" + "\U0001d4b3" * 30, "m" * 5000, "\ufdfa" * 40, "a\n\tb", ""])
def test_any_name_can_be_drawn(name):
    for svg in all_charts(name).values():
        assert max(map(len, texts(svg))) <= draw.MAX_LABEL


def test_every_chart_is_an_image_with_a_text_that_says_its_numbers(hostile):
    spoken = {name: root_of(svg).get("aria-label") for name, svg in hostile.items()}
    assert {root_of(svg).get("role") for svg in hostile.values()} == {"img"}
    assert "b: from 0.9 to 0.26, best 0.25 after epoch 4" in spoken["curves"]
    assert "1 beyond what chance allows" in spoken["reliability"]
    assert "70.0% confident: 90.0% right of 300" in spoken["reliability"]
    assert "2.50% of the 100.0% most confident" in spoken["coverage"]
    assert "90.00%, 95 % interval 80.00% to 95.00%" in spoken["accuracies"]
    assert "+90.00, 95 % interval +80.00 to +95.00" in spoken["differences"]
    assert "b: 30%" in spoken["importance"]
    assert "after 1 epoch: 2 trials; after 3 epochs: 1 trial" in spoken["rungs"]


def test_equal_numbers_give_equal_bytes(hostile):
    assert all_charts(HOSTILE) == hostile


def test_text_and_frame_take_their_colours_from_the_page(hostile):
    for name, svg in hostile.items():
        colours = {value for element in elements(svg) for key in ("fill", "stroke") if (value := element.get(key))}
        assert colours <= {"none", "transparent", "currentColor", *draw.COLOURS}, name


def lines_of(svg):
    """The points of each path that is a line of a series, by its colour."""
    found = {}
    for element in elements(svg):
        if element.tag.endswith("path") and (colour := element.get("stroke", "")).startswith("var("):
            points = re.findall(r"[ML](-?[\d.]+),(-?[\d.]+)", element.attrib["d"])
            if len(points) > 1 and element.get("fill") is None:
                found.setdefault(colour, [(float(x), float(y)) for x, y in points])
    return found


def test_a_line_has_the_shape_of_its_numbers():
    svg = charts.learning_curves([Series("a", (LOSSES,)), Series("b", ((0.7, 0.2, 0.1),))], "loss")
    first, second = (lines_of(svg)[colour] for colour in draw.COLOURS[:2])
    scale = (first[0][1] - first[1][1]) / (LOSSES[0] - LOSSES[1])  # pixels for each unit, downwards
    for points, values in ((first, LOSSES), (second, (0.7, 0.2, 0.1))):
        assert len(points) == len(values)
        for (_, y), value in zip(points, values, strict=True):
            assert y == pytest.approx(first[0][1] + (value - LOSSES[0]) * scale, abs=0.01)
        steps = {round(after[0] - before[0], 2) for before, after in pairwise(points)}
        assert len(steps) == 1, "one step for each epoch"


def test_several_runs_are_their_mean_in_a_band_from_lowest_to_highest():
    runs = ((1.0, 0.6, 0.2), (0.6, 0.5), (0.8, 0.1, 0.4))
    svg = charts.learning_curves([Series("a", runs)], "loss")
    mean = [y for _, y in lines_of(svg)[draw.COLOURS[0]]]
    [band] = [element.attrib["d"] for element in elements(svg) if element.get("fill-opacity") or element.get("opacity")]
    heights = [float(y) for _, y in re.findall(r"[ML](-?[\d.]+),(-?[\d.]+)", band)]
    edges = [sorted(pair) for pair in zip(heights[:3], reversed(heights[3:]), strict=True)]
    scale = (mean[0] - mean[1]) / (0.8 - 0.4)  # pixels for each unit, downwards
    expected = [(1.0, 0.8, 0.6), (0.6, 0.4, 0.1), (0.4, 0.3, 0.2)]  # highest, mean and lowest of each epoch
    for (top, bottom), middle, values in zip(edges, mean, expected, strict=True):
        assert [top, middle, bottom] == pytest.approx([mean[0] + (value - 0.8) * scale for value in values], abs=0.01)


def test_a_single_epoch_is_seen():
    svg = charts.learning_curves([Series("a", ((0.5,),))], "loss")
    assert [element for element in elements(svg) if element.get("fill") == draw.COLOURS[0]]


def test_bins_beyond_chance_differ_in_shape_and_colour():
    def shapes(svg):
        return {(element.get("fill"), element.attrib["d"].count("A") > 0) for element in elements(svg)
                if element.tag.endswith("path") and element.get("fill") in draw.COLOURS}  # fmt: skip

    within, beyond = (
        shapes(charts.reliability_chart(bins(0.5, 0.7, 0.95))),
        shapes(charts.reliability_chart(bins(0.5, 0.9, 0.95))),
    )
    assert (draw.COLOURS[0], True) in within
    assert (draw.COLOURS[1], False) in beyond


def test_two_rows_with_the_same_name_are_two_rows():
    svg = charts.interval_rows([IntervalRow("a", 0.9, 0.8, 0.95), IntervalRow("a", 0.7, 0.6, 0.8)], "x", "accuracy")
    assert texts(svg).count("a") == 2


def test_a_series_looks_the_same_in_every_chart():
    both = charts.learning_curves([Series("a", (LOSSES,)), Series("b", (LOSSES,))], "loss")
    only = charts.learning_curves([Series("b", (LOSSES,))], "loss", names=["a", "b"])
    assert set(lines_of(only)) == {draw.COLOURS[1]} < set(lines_of(both))
    assert "b" in texts(only)
    assert "a" not in texts(only)


def test_forty_two_series_differ_in_colour_or_dashes():
    scales = draw.series_colours(42)["range"], draw.series_dashes(42)["range"]
    assert len({(colour, tuple(dash)) for colour, dash in zip(*scales, strict=True)}) == 42


def colours_of(style, paper):
    """The paper and the palette in light colours, and in dark ones; printed pages are as light."""
    found = re.findall(r"--chart-(\d): (#\w{6})", style)
    size = len(draw.COLOURS)
    assert [int(number) for number, _ in found] == 2 * list(range(1, size + 1))
    values = [value for _, value in found]
    papers = re.findall(r"--paper: (#\w{6})", paper)
    return list(zip(papers[:2], (values[:size], values[size:]), strict=True))


def luminance(colour):
    """Relative luminance as WCAG 2.2 defines it."""
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_colours_stand_out_from_the_page_in_light_and_dark():
    style, paper = ((TEMPLATES / name).read_text("utf-8") for name in ("charts.css", "page.css"))
    themes = colours_of(style, paper)
    assert len(themes) == 2
    for background, palette in themes:
        for colour in palette:
            low, high = sorted((luminance(background), luminance(colour)))
            assert (high + 0.05) / (low + 0.05) >= 3, (background, colour)
    assert tuple(themes[0][1]) == draw.PALETTE, "charts without the page have the same colours"
