"""Measures ``runs compare``, ``runs rank`` and ``runs list`` on many runs.

    python benchmarks/compare_runs.py RUN [--repeats 5]

makes 200 runs of 40 configs with 5 seeds each, 200 runs of as many configs, and 500 runs for the list. Each is the
finished run RUN with another seed and learning rate, and with up to 1 % of its predictions changed. The table shows the
median and the longest time of the whole process, in seconds.
"""

import argparse
import hashlib
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from cnn_trainer.cli.tables import table
from cnn_trainer.config.load import change_experiment
from cnn_trainer.evaluation.predictions import Predictions, encode_predictions, read_predictions
from cnn_trainer.runs import paths, store
from cnn_trainer.runs.store import Run
from cnn_trainer.storage import files, strict_json


def main() -> None:
    """Measure with the run named on the command line."""
    parser = argparse.ArgumentParser(description="Measures runs compare, runs rank and runs list on many runs.")
    parser.add_argument("run", type=Path, metavar="RUN", help="a finished run with a score on its test split")
    parser.add_argument("--repeats", type=int, default=5, help="how often each command is run (default: 5)")
    arguments = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, num_runs, seeds_each, commands in (
            ("40 configs x 5 seeds", 200, 5, ("compare", "rank")),
            ("200 configs", 200, 1, ("compare", "rank")),
            ("500 runs", 500, 5, ("list",)),
        ):
            runs_dir = Path(folder, name)
            names = make_runs(arguments.run, runs_dir, num_runs, seeds_each)
            for command in commands:
                words = ["runs", command, "--runs-dir", str(runs_dir), *(names if command == "compare" else [])]
                taken = [seconds_of(words) for _ in range(arguments.repeats)]
                rows.append((f"runs {command}", name, f"{statistics.median(taken):.2f}", f"{max(taken):.2f}"))
    sys.stdout.write("\n".join([*table(("command", "runs", "median", "longest"), rows), ""]))


def make_runs(source: Path, runs_dir: Path, num_runs: int, seeds_each: int) -> list[str]:
    """Make variants of a run under ``runs_dir``, with only the files that are read, and return their names."""
    run, evaluation = store.open_run(source), store.read_evaluation(source)
    if evaluation is None:
        raise SystemExit(f"{source} has no score on its test split")
    known = read_predictions(source, evaluation)
    rng = np.random.default_rng(1)
    names = []
    for index in range(num_runs):
        config, seed = divmod(index, seeds_each)
        changes = {"seed": seed, "training.learning_rate": run.experiment.training.learning_rate * (1 + config / 100)}
        run_dir = runs_dir / f"20261125-{index:06}-{run.record.name}"
        (run_dir / paths.CHECKPOINTS_DIR).mkdir(parents=True)
        (run_dir / paths.LOCK_FILE).touch()
        store.write_config(Run(run_dir, change_experiment(run.experiment, changes), run.record))
        record = strict_json.changed(run.record, seed=seed)
        files.write_atomic(run_dir / paths.RECORD_FILE, strict_json.to_json(record))
        found = changed_predictions(known, rng.random() / 100, rng)
        content = encode_predictions(found)
        files.write_atomic(run_dir / paths.probabilities_file("test"), content)
        scored = strict_json.changed(
            evaluation,
            accuracy=float((found.predictions == found.labels).mean()),
            probabilities_sha256=hashlib.sha256(content).hexdigest(),
        )
        files.write_atomic(run_dir / paths.EVALUATION_FILE, strict_json.to_json(scored))
        names.append(run_dir.name)
    return names


def changed_predictions(known: Predictions, share: float, rng: np.random.Generator) -> Predictions:
    """The predictions with about this share of the rows changed to those of the next class."""
    changed = rng.random(len(known.labels)) < share
    probabilities = known.probabilities.copy()
    probabilities[changed] = np.roll(probabilities[changed], 1, axis=1)
    return replace(known, probabilities=probabilities)


def seconds_of(words: list[str]) -> float:
    """How long ``cnn-train`` takes with these words, from its start to its end."""
    start = time.perf_counter()
    subprocess.run(  # noqa: S603 -- our own program
        [sys.executable, "-m", "cnn_trainer", *words], check=True, capture_output=True
    )
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
