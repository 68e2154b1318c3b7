"""The chart with which training ends on a terminal."""

import io
import re

import pytest

from cnn_trainer.cli import curves, tables
from cnn_trainer.runs.records import EpochMetrics

BRAILLE = re.compile("[\u2800-\u28ff]+")


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


@pytest.fixture
def lines_for(monkeypatch):
    """A function of metrics that gives the chart for a terminal of this size."""

    def draw(metrics, columns=80, lines=24, encoding="utf-8", **environment):
        for name, value in {"TERM": "xterm-256color", "NO_COLOR": "1", **environment}.items():
            monkeypatch.setenv(name, value)
        stream = Terminal()
        stream.encoding = encoding
        monkeypatch.setattr("sys.stderr", stream)
        monkeypatch.setattr("sys.stdout", stream)
        monkeypatch.setattr(tables, "terminal_size", lambda _: (columns, lines))
        return curves.curve_lines(metrics)

    return draw


def epochs(losses, accuracies, validated=None):
    """Metrics of epochs; ``validated`` are validation losses, for validation accuracies of half the training's."""
    return [
        EpochMetrics(
            epoch=number,
            step=number,
            train_loss=loss,
            train_accuracy=accuracy,
            validation_loss=validated[number - 1] if validated else None,
            validation_accuracy=accuracy / 2 if validated else None,
            learning_rate=0.1,
            images_per_second=1.0,
            seconds=1.0,
        )
        for number, (loss, accuracy) in enumerate(zip(losses, accuracies, strict=True), start=1)
    ]


FALLING = epochs([1.0, 0.1, 0.01], [0.5, 0.75, 1.0])
OVERFITTED = epochs([1.0, 0.1, 0.01], [0.5, 0.75, 1.0], [0.5, 0.2, 0.3])


def dots(lines, name):
    """The highest dot of the curves from left to right, counted from the bottom; None where there is none."""
    start = lines.index(name) + 1
    rows = [BRAILLE.search(line)[0] for line in lines[start : start + 6]]
    assert len({len(row) for row in rows}) == 1
    found = []
    for column in range(2 * len(rows[0])):
        bits = (0x01, 0x02, 0x04, 0x40) if column % 2 == 0 else (0x08, 0x10, 0x20, 0x80)
        lit = [
            4 * (5 - number) + 3 - place
            for number, row in enumerate(rows)
            for place, bit in enumerate(bits)
            if (ord(row[column // 2]) - 0x2800) & bit
        ]
        found.append(max(lit, default=None))
    return found


def test_the_curves_have_the_shape_of_the_figures(lines_for):
    lines = lines_for(FALLING)
    loss, accuracy = dots(lines, "loss, on a logarithmic scale"), dots(lines, "accuracy")
    assert len(loss) == 2 * (80 - 7 - 11 - 2)
    assert (loss[0], loss[-1]) == (23, 0)
    assert (accuracy[0], accuracy[-1]) == (0, 23)
    middle = len(loss) // 2
    assert abs(loss[middle] - 11.5) <= 1  # a tenth each time is a straight line on a logarithmic scale
    assert abs(accuracy[middle] - 11.5) <= 1
    assert loss == sorted(loss, reverse=True)


def test_scales_and_curves_are_labelled(lines_for):
    lines = lines_for(OVERFITTED)
    text = "\n".join(BRAILLE.sub("|", line) for line in lines)
    assert re.search(r"^ 1\.0000 \|$", text, re.MULTILINE)
    assert re.search(r"^ 0\.0100 \| train$", text, re.MULTILINE)
    assert re.search(r"^100\.00% \| train$", text, re.MULTILINE)
    assert re.search(r"^ 25\.00% \|$", text, re.MULTILINE)
    assert len(re.findall(r"\| validation$", text, re.MULTILINE)) == 2
    assert re.search(r"^  epoch 1 +3$", text, re.MULTILINE)


@pytest.mark.parametrize("columns", [60, 79, 80, 100, 300])
def test_no_line_is_wider_than_the_terminal(lines_for, columns):
    lines = lines_for(OVERFITTED, columns)
    assert lines
    assert max(map(len, lines)) <= min(columns, 101) - 1
    assert len(lines) < 20


def test_names_of_curves_that_end_close_together_are_on_different_lines(lines_for):
    for losses in ([1.0, 0.01], [0.01, 1.0]):
        lines = lines_for(epochs(losses, [0.5, 0.5], [loss * 1.01 for loss in losses]))
        loss = lines[lines.index("loss, on a logarithmic scale") + 1 : lines.index("accuracy")]
        assert sum(line.endswith(" train") for line in loss) == 1
        assert sum(line.endswith(" validation") for line in loss) == 1


@pytest.mark.parametrize("losses", [[0.0, 0.0], [0.5, 0.5], [1e30, 0.0]])
def test_any_losses_can_be_drawn(lines_for, losses):
    assert lines_for(epochs(losses, [1.0, 1.0]))


@pytest.mark.parametrize(
    "where",
    [
        {"columns": 59},
        {"lines": 19},
        {"encoding": "ascii"},
        {"encoding": "iso8859-1"},
        {"TERM": "dumb"},
    ],
    ids=str,
)
def test_a_terminal_that_cannot_show_it_gets_no_chart(lines_for, where):
    assert lines_for(FALLING)
    assert lines_for(FALLING, **where) == []


def test_one_epoch_has_no_curve(lines_for):
    assert lines_for(FALLING[:1]) == []
    assert lines_for([]) == []


def test_colours_are_those_of_the_program_and_only_if_wanted(lines_for):
    assert "\x1b" not in "".join(lines_for(OVERFITTED))
    coloured = lines_for(OVERFITTED, NO_COLOR="")
    plain = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in coloured]
    assert plain == lines_for(OVERFITTED)
    assert {"\x1b[38;5;28m", "\x1b[38;5;31m"} <= set(re.findall(r"\x1b\[38;5;\d+m", "".join(coloured)))


def test_training_ends_with_the_chart_on_a_terminal_and_without_it_in_a_pipe(on_terminal, small_config, cnn_train):
    received = on_terminal(80, "train", small_config)[1]
    assert BRAILLE.search(received)
    assert received.index("loss, on a logarithmic scale") < received.index("test accuracy")
    assert not BRAILLE.search(on_terminal(80, "train", small_config, "--set", "training.epochs=1")[1])
    assert not BRAILLE.search(cnn_train("train", small_config).err)
