"""``cnn-train predict``: what a run makes of real pictures."""

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from cnn_trainer.cli.options import DEFAULT_RUNS_DIR, DeviceOption, RunArgument, RunsDir
from cnn_trainer.cli.output import print_lines, say
from cnn_trainer.cli.tables import stderr_width, stdout_width, table

if TYPE_CHECKING:
    from cnn_trainer.pictures.predict import Answer, ImageRows, Picture

_SHADES = " ░▒▓█"
_ASCII_SHADES = " .:*#"
_SHOWN_WIDTH = 64  # characters in a row, at most
_MANY = 20  # from this many pictures on, a bar shows the progress


def predict_command(
    run: RunArgument,
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE...",
            help="PNG, JPEG, WebP, TIFF, GIF or BMP files, folders of them, CSV files with an image in each row, or - "
            "for stdin.",
        ),
    ],
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
    top: Annotated[int, typer.Option(metavar="N", min=1, help="How many classes to name for each picture.")] = 3,
    prepare: Annotated[
        bool | None,
        typer.Option(
            "--prepare/--resize",
            help="Find the ink and make the picture like MNIST's images, or only resize it; by default, "
            "the run's data decides.",
            show_default=False,
        ),
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Show what the network sees.")] = False,
    device: DeviceOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a line with a JSON object for each picture.")] = False,
) -> None:
    """Classify pictures of any size, in grey or colour, dark on light or light on dark.

    A picture that cannot be read is named, the others are still classified, and the exit code is 4. Rows of CSV files
    are used as they are, and labels in them are ignored.
    """
    from cnn_trainer.config.schema.data import Csv
    from cnn_trainer.data.pictures import MAX_PICTURE_BYTES
    from cnn_trainer.errors import DataError, UsageError, count
    from cnn_trainer.evaluation.evaluate import load_result
    from cnn_trainer.pictures import like_mnist, predict
    from cnn_trainer.runs import paths, store

    opened = store.open_run(paths.resolve_run(run, runs_dir))
    data = opened.record.data
    if prepare and data.image_shape != [28, 28, 1]:
        shape = "x".join(map(str, data.image_shape))
        problem = f"--prepare makes images of 28x28x1, but the run was trained on {shape}"
        raise UsageError(problem, remedy="leave it out")
    # Standard input is read only until it is clear that it is too large.
    found = predict.find_pictures(images, lambda: sys.stdin.buffer.read(MAX_PICTURE_BYTES + 1))
    result = load_result(opened, device)
    prepared = like_mnist.prepares(data) if prepare is None else prepare
    rows, num_wrong = [], 0
    section = opened.experiment.data
    row_shape = section.image_shape if isinstance(section, Csv) else None
    with _bar_of_many(found) as shown:
        for answer in predict.predict(data, shown, result, prepared, row_shape):
            if isinstance(answer, DataError):
                num_wrong += 1
                say(f"error: {answer}")
                continue
            order = (-answer.probabilities).argsort(kind="stable")[:top]  # the likeliest first
            likely = [(data.class_names[label], float(answer.probabilities[label])) for label in order]
            if show:
                say(f"{answer.name}:", *_picture(answer))
            if as_json:
                print_lines([json.dumps(_as_json(answer, likely))])
            else:
                rows.append((answer.name, *(f"{name} {share:.1%}" for name, share in likely)))
    if rows:
        heading = ("picture", "prediction", *(f"{place}." for place in range(2, len(rows[0]))))
        print_lines(table(heading, rows, stdout_width()))
    if num_wrong:
        raise DataError(f"{num_wrong} of {count(len(found), 'picture')} could not be read")


@contextmanager
def _bar_of_many(found: "list[Picture | ImageRows]") -> "Iterator[Iterable[Picture | ImageRows]]":
    """Draw a progress bar while ``found`` is iterated over, if there are many and stderr is a terminal."""
    from cnn_trainer.machine import terminal

    if len(found) < _MANY or not terminal.can_draw(sys.stderr):
        yield found
        return
    percentage = "{task.percentage:.0f}%"
    with terminal.cursor_shown_when_stopped(sys.stderr), terminal.progress_bar(sys.stderr, percentage) as bar:
        yield bar.track(found, description="predicting")


def _as_json(answer: "Answer", likely: list[tuple[str, float]]) -> dict[str, object]:
    return {
        "picture": answer.name,
        "label": int(answer.probabilities.argmax()),
        "class_name": likely[0][0],
        "probability": likely[0][1],
        "top": [{"class_name": name, "probability": share} for name, share in likely],
    }


def _picture(answer: "Answer") -> list[str]:
    """What the network sees, in characters: two per pixel if there is room for them, else one per two rows of pixels.

    Either way it looks about square. If an image has more columns than fit, only every second or third is shown.
    """
    width = min(stderr_width() or _SHOWN_WIDTH, _SHOWN_WIDTH)
    step = -(-answer.image.shape[1] // width)
    grey = answer.image[::step, ::step].mean(axis=2)
    doubled = 2 if 2 * grey.shape[1] <= width else 1
    if doubled == 1:
        grey = grey[: len(grey) // 2 * 2].reshape(-1, 2, grey.shape[1]).mean(axis=1)
    encoding = sys.stderr.encoding or "ascii"
    shades = _SHADES if _SHADES.encode(encoding, "replace").decode(encoding) == _SHADES else _ASCII_SHADES
    return ["".join(doubled * shades[round(value / 255 * (len(shades) - 1))] for value in row).rstrip() for row in grey]
