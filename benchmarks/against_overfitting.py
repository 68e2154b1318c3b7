"""Measures remedies against overfitting; docs/against-overfitting.md says what comes out.

    python benchmarks/against_overfitting.py [--runs-dir runs/against-overfitting]

It trains the documented network on 1,000 and on 4,000 images of MNIST until the training loss is close to 0, and again
with each remedy. How strong a remedy is has been chosen first: with as many images, of which a fifth is set aside to
validate, and seeds that are not used again, the strength with the lowest mean validation loss after the last epoch. The
test split is scored by the runs themselves, and chooses nothing. Groups of runs that are already there are not trained
again, so that the script can be stopped. It takes about half an hour on two cores, and prints every command.
"""

import argparse
import csv
import json
import shlex
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cnn_trainer.analysis.compare import compare_runs
from cnn_trainer.cli.tables import table
from cnn_trainer.report.charts import IntervalRow, interval_rows
from cnn_trainer.runs import paths, store

PROGRAM = [sys.executable, "-m", "cnn_trainer"]
CHOICE_SEEDS, SEEDS = "101-102", "1-5"
EPOCHS = {1000: 60, 4000: 20}
MORE_EPOCHS = {1000: 15, 4000: 5}  # with four times the images, about as many steps

HEADING = (
    "group",
    "training loss",
    "training accuracy",
    "test loss",
    "test accuracy",
    "sd in points",
    "hard ones read",
)

LABELS = {
    "plain": "no remedy", "more": "4 times the images", "simpler": "simpler network", "l1": "L1 penalty",
    "l2": "L2 penalty", "dropout": "Dropout", "augmentation": "augmentation", "stopping": "early stopping",
}  # fmt: skip

CANDIDATES: dict[str, dict[str, tuple[str, ...]]] = {
    "plain": {"": ()},
    "simpler": {
        "16 and 32 filters, 32 units": ("model.filters=[16, 32]", "model.dense_units=[32]"),
        "8 and 16 filters, 16 units": ("model.filters=[8, 16]", "model.dense_units=[16]"),
    },
    "l1": {text: (f"model.l1={text}",) for text in ("0.00003", "0.0003")},
    "l2": {text: (f"model.l2={text}",) for text in ("0.001", "0.01")},
    "dropout": {
        "0.5": ("model.dropout=0.5",),
        "0.5, blocks 0.25": ("model.dropout=0.5", "model.conv_dropout=0.25"),
    },
    "augmentation": {
        "1 pixel": ("training.augmentation={shift_pixels: 1, rotation_radians: 0.1, zoom: 0.1}",),
        "2 pixels": ("training.augmentation={shift_pixels: 2, rotation_radians: 0.2, zoom: 0.1}",),
    },
}


@dataclass(frozen=True)
class Group:
    """A group of runs: its folder below the runs directory, its overrides and its seeds."""

    name: str
    overrides: tuple[str, ...]
    seeds: str


def main() -> None:
    """Choose the strengths, train everything, and compare each remedy with the plain network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs-dir", type=Path, default=Path("runs/against-overfitting"), metavar="DIR")
    parser.add_argument(
        "--pictures", type=Path, default=Path(), metavar="DIR", help="where to draw the test accuracies"
    )
    arguments = parser.parse_args()
    runs_dir = arguments.runs_dir
    for size in EPOCHS:
        groups = groups_for(size, choose(size, runs_dir))
        trained = {group.name: train(group, runs_dir) for group in groups}
        wrong = {name: list(map(misread, run_dirs)) for name, run_dirs in trained.items()}
        hard = set.intersection(*wrong[f"{size}-plain"])
        say(*table(HEADING, [describe(name, run_dirs, wrong[name], hard) for name, run_dirs in trained.items()]))
        say(f"hard: the {len(hard)} test images that all plain runs misread; read: by most runs of the group")
        everything = [path for run_dirs in trained.values() for path in run_dirs]
        always = set.intersection(*(found for group in wrong.values() for found in group))
        say(f"{len(always)} test images are misread by all {len(everything)} runs")
        run([*PROGRAM, "runs", "compare", *map(str, everything)])
        draw(trained, size, arguments.pictures / f"against-overfitting-{size}.svg")


def choose(size: int, runs_dir: Path) -> dict[str, tuple[str, ...]]:
    """The overrides of each remedy at the strength with the lowest mean validation loss after the last epoch."""
    common = (f"data.train_subset={size}", "data.validation_fraction=0.2", f"training.epochs={EPOCHS[size]}")
    rows, chosen = [], {}
    for remedy, strengths in CANDIDATES.items():
        losses = {}
        for number, (strength, overrides) in enumerate(strengths.items(), 1):
            group = Group(f"{size}-choose-{remedy}-{number}", (*common, *overrides), CHOICE_SEEDS)
            last = [store.read_metrics(store.open_run(path))[-1] for path in train(group, runs_dir)]
            losses[strength] = statistics.fmean(line.validation_loss or 0.0 for line in last)
            accuracy = statistics.fmean(line.validation_accuracy or 0.0 for line in last)
            train_loss = statistics.fmean(line.train_loss for line in last)
            rows.append((remedy, strength, f"{train_loss:.4f}", f"{losses[strength]:.4f}", f"{accuracy:.2%}"))
        chosen[remedy] = strengths[min(losses, key=losses.__getitem__)]
    say(*table(("remedy", "strength", "training loss", "validation loss", "validation accuracy"), rows))
    return chosen


def groups_for(size: int, chosen: dict[str, tuple[str, ...]]) -> list[Group]:
    """The groups that are compared on ``size`` training images, the plain one first."""
    common = (f"data.train_subset={size}", f"training.epochs={EPOCHS[size]}")
    stop = ("data.validation_fraction=0.2", "training.early_stopping={patience: 10}")
    more = (f"data.train_subset={4 * size}", f"training.epochs={MORE_EPOCHS[size]}")
    remedies: dict[str, tuple[str, ...]] = {"plain": common, "more": more}
    remedies |= {name: (*common, *overrides) for name, overrides in chosen.items() if name != "plain"}
    remedies["stopping"] = (*common, *stop)
    return [Group(f"{size}-{name}", overrides, SEEDS) for name, overrides in remedies.items()]


def train(group: Group, runs_dir: Path) -> list[Path]:
    """The run directories of a group, which is trained unless it is there already."""
    folder = runs_dir / group.name
    command = ["train", "mnist", *(word for override in group.overrides for word in ("--set", override))]
    command += ["--seeds", group.seeds, "--runs-dir", str(folder)]
    say(f"$ cnn-train {shlex.join(command)}")
    done = folder / "group.json"
    if not done.exists():
        done.parent.mkdir(parents=True, exist_ok=True)
        result = run([*PROGRAM, *command, "--json"], stdout=subprocess.PIPE)
        done.write_text(result, encoding="utf-8")
    return [Path(found["run"]) for found in json.loads(done.read_text(encoding="utf-8"))["runs"]]


def describe(name: str, run_dirs: Sequence[Path], wrong: Sequence[set[int]], hard: set[int]) -> tuple[str, ...]:
    """A row under ``HEADING``: means over the runs, and how many of the ``hard`` images most of them read."""
    last = [store.read_metrics(store.open_run(path))[-1] for path in run_dirs]
    scores = [found for path in run_dirs if (found := store.read_evaluation(path))]
    accuracies = [found.accuracy for found in scores]
    return (
        name,
        f"{statistics.fmean(line.train_loss for line in last):.4f}",
        f"{statistics.fmean(line.train_accuracy for line in last):.2%}",
        f"{statistics.fmean(found.loss for found in scores):.4f}",
        f"{statistics.fmean(accuracies):.2%}",
        f"{statistics.stdev(accuracies) * 100:.2f}",
        str(sum(sum(image in found for found in wrong) * 2 < len(wrong) for image in hard)),
    )


def misread(run_dir: Path) -> set[int]:
    """The indexes of the test images that a run classified wrongly."""
    lines = (run_dir / paths.predictions_file("test")).read_text(encoding="utf-8").splitlines()[1:]
    return {index for index, row in enumerate(csv.DictReader(lines)) if row["label"] != row["prediction"]}


def draw(trained: dict[str, list[Path]], size: int, file: Path) -> None:
    """Draw the mean test accuracy of each group with its interval."""
    rows = []
    for name, run_dirs in trained.items():
        found = compare_runs(run_dirs, "test").groups[0]
        rows.append(IntervalRow(LABELS[name.partition("-")[2]], found.accuracy, found.low, found.high))
    chart = interval_rows(rows, f"test accuracy, {size:,} training images", "accuracy")
    head, _, body = str(chart).partition(">")  # fit for a page; a file needs its namespace and its colours
    style = "svg { background: white; color: black; font-family: sans-serif; --chart-1: #0072b2 }"
    file.write_text(f'{head} xmlns="http://www.w3.org/2000/svg"><style>{style}</style>{body}\n', encoding="utf-8")


def run(command: Sequence[str], stdout: int | None = None) -> str:
    """Run a command that must succeed; its stdout if it is a pipe."""
    done = subprocess.run(command, stdout=stdout, text=True, check=True)  # noqa: S603 -- this program
    return done.stdout or ""


def say(*lines: str) -> None:
    """Print lines at once."""
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
