"""``cnn-train benchmark``: how fast this machine trains, compared with plain programs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cnn_trainer.cli.options import AsJson, DeviceOption, OverrideOptions
from cnn_trainer.cli.output import next_step, print_json, print_lines, say, shown_download
from cnn_trainer.errors import count

if TYPE_CHECKING:
    from cnn_trainer.benchmark.compare import BenchmarkRecord, Figure, Program


def benchmark_command(
    config_file: Annotated[
        Path | None,
        typer.Argument(metavar="CONFIG", help="The experiment to train; by default the documented network on MNIST."),
    ] = None,
    overrides: OverrideOptions = None,
    rounds: Annotated[int, typer.Option(metavar="N", min=1, max=100, help="How many times each program runs.")] = 3,
    epochs: Annotated[int, typer.Option(metavar="N", min=1, max=1000, help="Epochs that each program trains.")] = 3,
    device: DeviceOption = None,
    as_json: AsJson = False,
) -> None:
    """Compare the speed of training and evaluation with that of a plain Keras program.

    In a checkout, a plain PyTorch program is measured too if PyTorch is installed.

    Every program runs in its own process, and they take turns, so a busy machine slows all of them. You can always
    trust the ratios, but images/s only if the machine does nothing else.
    """
    from cnn_trainer.benchmark import compare
    from cnn_trainer.config.load import documented_config
    from cnn_trainer.network.fits import load_checked

    changes = [*(overrides or ()), *([f"runtime.device={device}"] if device else [])]
    loaded = load_checked(config_file, changes) if config_file else documented_config(changes)
    say(*loaded.notes)
    with shown_download() as download:
        found = compare.benchmark(loaded, rounds, epochs, say, download)
    if as_json:
        print_json(found.model_dump(mode="json"))
    else:
        print_lines(_words(found))
    next_step("train", config_file or "mnist")


def _words(found: "BenchmarkRecord") -> list[str]:
    from cnn_trainer.cli.tables import stdout_width, table

    rounds = count(found.num_rounds, "round") + (": median (lowest to highest)" if found.num_rounds > 1 else "")
    processor = found.machine["processor"] if "processor" in found.machine else found.machine["architecture"]
    heading = ("program", "images/s", "times", "seconds", "times", "of the limit")
    training = [_cells(program) for program in found.training]
    evaluation = [_cells(program)[:3] for program in found.evaluation]
    products = ", ".join(
        f"{figure.median / 1e9:,.0f} GFLOP/s in {precision}" for precision, figure in found.products_per_second.items()
    )
    return [
        f"{processor}, {count(int(found.machine['cores']), 'core')}; {found.device}, "
        f"{count(found.towers, 'tower')}; {rounds}",
        "",
        f"Training: {found.experiment}, {count(found.num_train, 'image')} of {found.data}, "
        f"batches of {found.batch_size}, {count(found.epochs, 'epoch')}; seconds of the whole process",
        *table(heading, training, stdout_width()),
        "",
        f"Evaluation: {count(found.num_test, 'image')}",
        *table(heading[:3], evaluation, stdout_width()),
        "",
        f"An image takes {found.flop_per_image / 1e6:.2f} MFLOP to train on, "
        f"{found.flop_per_image_cropped / 1e6:.2f} without pixels that no layer reads.",
        f"Matrix products reach {products}; the limit is what they allow.",
    ]


def _cells(program: "Program") -> tuple[str, ...]:
    return (
        program.name,
        _cell(program.images_per_second, ",.0f"),
        _cell(program.ratio, ".2f"),
        _cell(program.seconds, ".1f"),
        _cell(program.seconds_ratio, ".2f"),
        f"{program.share_of_limit:.0%}" if program.share_of_limit is not None else "-",
    )


def _cell(figure: "Figure | None", form: str) -> str:
    if figure is None:
        return "-"
    spread = f" ({figure.lowest:{form}} to {figure.highest:{form}})" if len(figure.rounds) > 1 else ""
    return f"{figure.median:{form}}{spread}"
