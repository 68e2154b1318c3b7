"""Compares ``cnn-train search`` with other searches of the same space.

    pip install keras-tuner  # only this script needs it
    python benchmarks/search.py [--space FILE] [--seeds 1 2 3 4 5] [--trials 64] [--last 27] [--only PROGRAM ...]

runs these programs for each seed of the proposals, one after the other, each as a process with one worker:

    random       cnn-train search with method: random, every trial trained to its end
    tpe          cnn-train search with method: tpe and rungs from 1 epoch, with a factor of 3
    optuna       Optuna's TPESampler and HyperbandPruner; cnn-train's functions train, with pruning in between
    keras-tuner  KerasTuner's Hyperband with the Keras model, ``compile`` and ``fit``

All have the same space, images, threads and training seed. KerasTuner proposes about as many trials as the others, and
continues a trial from its weights only, so that a schedule begins again. The table shows after how many epochs of all
trials, seconds in training steps, and seconds since the start of the process the best validation loss that random
search found was first reached, and what the whole search came to. ``random's / this`` divides the seconds in training
steps of the whole random search by those until this program reached its loss. For ``cnn-train search``, the seconds of
the process are those at the end of the job.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search_programs import FACTOR, OTHERS, Point

from cnn_trainer.cli.tables import table
from cnn_trainer.config import strict_yaml
from cnn_trainer.errors import CnnTrainError
from cnn_trainer.machine import child
from cnn_trainer.runs import store
from cnn_trainer.search import journal
from cnn_trainer.search.paths import JOURNAL_FILE, search_dirs

HERE = Path(__file__).resolve().parent
SPACE = HERE.parent / "configs" / "searches" / "mnist-5k.yaml"
LOOK_SECONDS = 0.05  # interval between looks at the journal of a search

HEADING = (
    "program", "reached", "epochs", "s in steps", "s", "random's / this",
    "epochs in all", "s in steps in all", "s in all", "best loss",
)  # fmt: skip

PROGRAMS = ("random", "tpe", *OTHERS)


def compare(space: Path, seeds: Sequence[int], trials: int, last: int, only: Sequence[str]) -> None:
    """Run all programs for each seed, and print a table for the seed; print a table for all seeds at the end."""
    found: dict[str, list[list[Point]]] = defaultdict(list)
    programs = [name for name in PROGRAMS if name == "random" or name in only]
    for seed in seeds:
        turn = seed % len(programs)
        for name in (*programs[turn:], *programs[:turn]):
            with tempfile.TemporaryDirectory(prefix="cnn-train-search-") as folder:
                file = Path(folder) / "space.yaml"
                file.write_text(json.dumps(_space(space, name, seed, trials, last)), encoding="utf-8")
                found[name].append(_measure(name, file))
            say(f"seed {seed}: {name} has ended")
        say(*_report({name: found[name][-1:] for name in programs}))
    sys.stdout.write("\n".join([*_report(found), "medians over the seeds (lowest to highest)\n"]))


def _space(space: Path, program: str, seed: int, trials: int, last: int) -> dict[str, Any]:
    """The space file with these settings. A search needs a final run, which is not counted."""
    tree = strict_yaml.read_file(space, "see configs/searches").value
    if not isinstance(tree, dict):
        raise CnnTrainError("a space file is a mapping of keys", place=space)
    return {
        **tree,
        "experiment": str((space.parent / str(tree["experiment"])).resolve()),
        "seed": seed,
        "method": "random" if program == "random" else "tpe",
        "trials": trials,
        "rungs": {"first": last if program == "random" else 1, "factor": FACTOR, "last": last},
        "goal": "validation_loss",
        "final": {"trials": 1, "seeds": 1},
    }


def _measure(program: str, space: Path) -> list[Point]:
    if program in ("random", "tpe"):
        return _search(space)
    words = (program, str(space), repr(time.time()))
    environment = {"TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": ""}
    ended = child.run_child("search_programs:work", *words, environment=environment, folder=str(HERE))
    if ended.failure:
        raise CnnTrainError("\n".join([*ended.messages[-20:], f"failed ({ended.failure})"]), place=program)
    return [(seconds, trained, loss) for seconds, trained, loss in json.loads(ended.stdout)]


def _search(space: Path) -> list[Point]:
    """Run ``cnn-train search``, and note when a line appears in its journal."""
    command = [sys.executable, "-m", "cnn_trainer", "search", str(space), "--workers", "1", "--quiet"]
    began = time.monotonic()
    ended: list[float] = []
    process = subprocess.Popen([*command, "--searches-dir", str(space.parent)])  # noqa: S603 -- our own arguments
    is_running = True
    while is_running:
        is_running = process.poll() is None
        written = sum(path.read_bytes().count(b"\n") for path in space.parent.glob(f"*/{JOURNAL_FILE}"))
        ended += [time.monotonic() - began] * (written - len(ended))
        time.sleep(LOOK_SECONDS)
    if process.returncode:
        raise CnnTrainError(f"cnn-train search ended with exit code {process.returncode}", place=space)
    opened = journal.open_search(search_dirs(space.parent)[0])
    points: list[Point] = []
    epochs: dict[int, int] = defaultdict(int)
    trained = 0.0
    for result, seconds in zip(journal.read_results(opened.dir), ended, strict=True):
        if result.final is not None:
            continue
        run = store.open_run(journal.trial_dir(opened.dir, opened.search, result))
        for line in store.read_metrics(run)[epochs[result.trial] : result.epochs]:
            trained += opened.search.num_train / line.images_per_second if line.images_per_second else 0.0
            if line.validation_loss is not None:
                points.append((seconds, trained, line.validation_loss))
        epochs[result.trial] = result.epochs
    return points


def _report(found: dict[str, list[list[Point]]]) -> list[str]:
    """The lines of a table with a row for each program, given its points for each seed."""
    targets = [min(loss for *_, loss in points) for points in found["random"]]
    budgets = [points[-1][1] for points in found["random"]]
    rows = []
    for name, curves in found.items():
        reached = [_reached(points, target) for points, target in zip(curves, targets, strict=True)]
        ratios = [budget / this.trained for budget, this in zip(budgets, reached, strict=True)]
        rows.append(
            [
                name,
                f"{sum(math.isfinite(this.epochs) for this in reached)} of {len(reached)}",
                _spread([this.epochs for this in reached], ".0f"),
                _spread([this.trained for this in reached], ".1f"),
                _spread([this.seconds for this in reached], ".1f"),
                _spread(ratios, ".1f"),
                _spread([float(len(points)) for points in curves], ".0f"),
                _spread([points[-1][1] for points in curves], ".1f"),
                _spread([points[-1][0] for points in curves], ".1f"),
                _spread([min(loss for *_, loss in points) for points in curves], ".4f"),
            ]
        )
    return table(HEADING, rows)


@dataclass(frozen=True)
class Reached:
    """What a program needed to reach a loss; infinite if it never did."""

    epochs: float
    trained: float
    """Seconds in training steps."""
    seconds: float
    """Seconds since the process started."""


def _reached(points: Sequence[Point], target: float) -> Reached:
    for epochs, (seconds, trained, loss) in enumerate(points, start=1):
        if loss <= target:
            return Reached(epochs, trained, seconds)
    return Reached(math.inf, math.inf, math.inf)


def _spread(values: Sequence[float], form: str) -> str:
    """The median, and the lowest and highest if there is more than one value."""
    median, low, high = (
        format(value, form) if math.isfinite(value) else "never"
        for value in (statistics.median(values), min(values), max(values))
    )
    return f"{median} ({low} to {high})" if len(values) > 1 else median


def say(*lines: str) -> None:
    """Print progress or a warning on stderr."""
    sys.stderr.writelines(f"{line}\n" for line in lines)
    sys.stderr.flush()


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", type=Path, default=SPACE, help="space file")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3, 4, 5], help="seeds of the proposals")
    parser.add_argument("--trials", type=int, default=64, help="number of trials of each search")
    parser.add_argument("--last", type=int, default=27, help="most epochs of a trial")
    parser.add_argument("--only", nargs="+", choices=PROGRAMS, default=PROGRAMS, help="programs besides random")
    given = parser.parse_args()
    try:
        compare(given.space, given.seeds, given.trials, given.last, given.only)
    except CnnTrainError as error:
        say(f"error: {error}")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
