"""Compares ``cnn-train search`` with other searches of the same space.

    pip install keras-tuner  # only this script needs it
    python benchmarks/search.py [--space FILE] [--seeds 5] [--trials 64] [--last 27] [--only PROGRAM ...]

runs these programs for each seed of the proposals, one after the other, each as a process with one worker:

    random       cnn-train search with method: random, every trial trained to its end
    tpe          cnn-train search with method: tpe and rungs from 1 epoch, with a factor of 3
    optuna       Optuna's TPESampler and HyperbandPruner; cnn-train's functions train, with pruning in between
    keras-tuner  KerasTuner's Hyperband with the Keras model, ``compile`` and ``fit``

All have the same space, images, threads and training seed. KerasTuner proposes about as many trials as the others, and
continues a trial from its weights only, so that a schedule begins again. For each program, the table says when the
validation loss that random search ended with was first reached after an epoch: after how many seconds in training
steps, and after how many seconds of the whole process. For ``cnn-train search`` that is when the job has ended.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cnn_trainer import data
from cnn_trainer.cli.tables import table
from cnn_trainer.config import strict_yaml
from cnn_trainer.config.load import change_experiment
from cnn_trainer.errors import CnnTrainError, DivergedError
from cnn_trainer.machine import child
from cnn_trainer.runs import store
from cnn_trainer.search import journal
from cnn_trainer.search.load import load_search
from cnn_trainer.search.paths import JOURNAL_FILE, search_dirs
from cnn_trainer.search.spec import Changes, Search
from cnn_trainer.training.display import Display
from cnn_trainer.training.prepare import Feedback
from cnn_trainer.training.run import train_until

HERE = Path(__file__).resolve().parent
SPACE = HERE.parent / "configs" / "searches" / "mnist-5k.yaml"
FACTOR = 3
LOOK_SECONDS = 0.05  # interval between looks at the journal of a search

Point = tuple[float, float, float]
"""After an epoch: seconds since the process started, seconds spent in training steps so far, and validation loss."""


def compare(space: Path, num_seeds: int, trials: int, last: int, only: Sequence[str]) -> None:
    """Run all programs for each seed, and print their figures as they come and then in a table."""
    found: dict[str, list[list[Point]]] = defaultdict(list)
    programs = [name for name in PROGRAMS if name == "random" or name in only]
    for seed in range(1, num_seeds + 1):
        turn = seed % len(programs)
        for name in (*programs[turn:], *programs[:turn]):
            with tempfile.TemporaryDirectory(prefix="cnn-train-search-") as folder:
                file = Path(folder) / "space.yaml"
                file.write_text(json.dumps(_space(space, name, seed, trials, last)), encoding="utf-8")
                points = _measure(name, file)
            found[name].append(points)
            seconds, trained, _ = points[-1]
            losses = [loss for *_, loss in points]
            say(
                f"seed {seed}  {name}  {len(points)} epochs  {trained:.1f} s in steps  {seconds:.1f} s in all  "
                f"best validation loss {min(losses):.4f} in epoch {losses.index(min(losses)) + 1}"
            )
    _show(found)


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
    ended = child.run_child("search:work", *words, environment=environment, folder=str(HERE))
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


def work() -> None:
    """In a process: run the program named first on the command line, and print its points as JSON."""
    program, space, began = sys.argv[1:]
    search, _ = load_search(Path(space), say, data.no_progress)
    child.answer(lambda: list(_OTHERS[program](search, float(began), Path(space).parent)))


def with_optuna(search: Search, began: float, folder: Path) -> list[Point]:
    """TPESampler and HyperbandPruner with Optuna's defaults. A trial is pruned within its training."""
    import optuna

    from cnn_trainer.search.proposals import distributions

    points: list[Point] = []
    last = search.base.experiment.training.epochs
    study = optuna.create_study(
        study_name=f"seed {search.spec.seed}",  # which determines the bracket of each trial
        sampler=optuna.samplers.TPESampler(seed=search.spec.seed),
        pruner=optuna.pruners.HyperbandPruner(min_resource=1, max_resource=last, reduction_factor=FACTOR),
    )

    class Report(Display):
        """Reports each epoch of a trial, and ends its training when it is pruned."""

        def __init__(self, trial: optuna.Trial, run_dir: Path) -> None:
            super().__init__()
            self._trial, self._run_dir = trial, run_dir

        def epoch(self, epoch: int, words: str) -> None:
            line = store.read_metrics(store.open_run(self._run_dir))[-1]
            if line.validation_loss is None or line.images_per_second is None:
                raise AssertionError(words)
            trained = points[-1][1] if points else 0.0
            trained += search.num_train / line.images_per_second
            points.append((time.time() - began, trained, line.validation_loss))
            self._trial.report(line.validation_loss, epoch)
            if epoch < last and self._trial.should_prune():
                raise optuna.TrialPruned

    for number in range(1, search.spec.trials + 1):
        trial = study.ask(distributions(search))
        config = replace(
            search.base, experiment=change_experiment(search.base.experiment, _changes(search, trial.params))
        )
        first, run_dir = len(points), folder / "trials" / f"{number:04}"
        try:
            train_until(config, run_dir, last, Feedback(say, display=Report(trial, run_dir)))
            study.tell(trial, min(loss for *_, loss in points[first:]))
        except optuna.TrialPruned:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        except DivergedError:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
    return points


def with_keras_tuner(search: Search, began: float, folder: Path) -> list[Point]:
    """Hyperband with KerasTuner's defaults, in as many iterations as come closest to the number of trials."""
    base = search.base.experiment
    loaded = data.load_training(base.data, base.seed, say)
    train, validation = loaded.train, loaded.validation
    import keras
    import keras_tuner
    import tensorflow as tf

    from cnn_trainer.network.build import build_model
    from cnn_trainer.training.optimizer import build_optimizer

    if validation is None:
        raise AssertionError("a search always has a validation split")
    tf.config.threading.set_intra_op_parallelism_threads(base.runtime.intra_op_threads)
    tf.config.threading.set_inter_op_parallelism_threads(base.runtime.inter_op_threads)
    points: list[Point] = []

    def point(parameters: Any) -> Changes:
        """The changes of a trial; a choice is asked for by its position, because it may be a list."""
        found: dict[str, int | float] = {}
        for key, dimension in search.space.items():
            if dimension.choices is not None:
                found[key] = parameters.Choice(key, list(range(len(dimension.choices))))
                continue
            low, high = dimension.bounds()
            sampling = "log" if dimension.log else "linear"
            if key in search.whole_keys:
                found[key] = parameters.Int(key, int(low), int(high), sampling=sampling)
            else:
                found[key] = parameters.Float(key, low, high, sampling=sampling)
        return _changes(search, found)

    class Model(keras_tuner.HyperModel):
        def build(self, hp: Any) -> Any:
            experiment = change_experiment(base, point(hp))
            model = build_model(experiment, train.images.shape[1:], len(loaded.record.class_names))
            steps_per_epoch = -(-len(train.labels) // experiment.training.batch_size)
            optimizer = build_optimizer(experiment, model, steps_per_epoch, keras.optimizers.Adam)
            model.compile(optimizer, "sparse_categorical_crossentropy")
            return model

        def fit(self, hp: Any, model: Any, *words: Any, **keys: Any) -> Any:
            batch_size = change_experiment(base, point(hp)).training.batch_size
            return model.fit(*words, batch_size=batch_size, **keys)

    class Clock(keras.callbacks.Callback):
        """Notes each epoch. Its training ends where its validation begins."""

        def on_epoch_begin(self, *_: Any) -> None:
            self._epoch_began = time.monotonic()

        def on_test_begin(self, *_: Any) -> None:
            self._trained = time.monotonic() - self._epoch_began

        def on_epoch_end(self, _: int, logs: Any = None) -> None:
            before = points[-1][1] if points else 0.0
            points.append((time.time() - began, before + self._trained, float(logs["val_loss"])))

    def tuner(iterations: int) -> Any:
        return keras_tuner.Hyperband(
            Model(),
            keras_tuner.Objective("val_loss", "min"),
            max_epochs=base.training.epochs,
            factor=FACTOR,
            hyperband_iterations=iterations,
            seed=search.spec.seed,
            directory=str(folder / f"tuner-{iterations}"),
        )

    oracle = tuner(1).oracle
    brackets = oracle._get_num_brackets()
    trials = sum(oracle._get_size(bracket, 0) for bracket in range(brackets))
    arrays = {"validation_data": (validation.images, validation.labels), "verbose": 0, "callbacks": [Clock()]}
    tuner(max(1, round(search.spec.trials / trials))).search(train.images, train.labels, **arrays)
    return points


_OTHERS = {"optuna": with_optuna, "keras-tuner": with_keras_tuner}
PROGRAMS = ("random", "tpe", *_OTHERS)


def _changes(search: Search, found: Any) -> Changes:
    """The changes of a trial, given a number for each key: its value, or the position of its choice."""
    return {
        key: found[key] if dimension.choices is None else dimension.choices[found[key]]
        for key, dimension in search.space.items()
    }


def _show(found: dict[str, list[list[Point]]]) -> None:
    targets = [min(loss for *_, loss in points) for points in found["random"]]
    rows = []
    for name, curves in found.items():
        reached = [_reached(points, target) for points, target in zip(curves, targets, strict=True)]
        rows.append(
            [
                name,
                f"{sum(point is not None for point in reached)} of {len(reached)}",
                _spread([point[1] if point else float("inf") for point in reached], ".1f"),
                _spread([point[0] if point else float("inf") for point in reached], ".1f"),
                _spread([points[-1][1] for points in curves], ".1f"),
                _spread([points[-1][0] for points in curves], ".1f"),
                _spread([min(loss for *_, loss in points) for points in curves], ".4f"),
            ]
        )
    heading = ["program", "reached", "training s", "process s", "training s in all", "process s in all", "best loss"]
    for line in table(heading, rows):
        sys.stdout.write(f"{line}\n")
    sys.stdout.write("Medians over the seeds, with the lowest and the highest.\n")


def _reached(points: Sequence[Point], target: float) -> Point | None:
    return next((point for point in points if point[2] <= target), None)


def _spread(values: Sequence[float], form: str) -> str:
    median, low, high = (
        "never" if value == float("inf") else format(value, form)
        for value in (statistics.median(values), min(values), max(values))
    )
    return f"{median} ({low} to {high})"


def say(line: str) -> None:
    """Print a line of progress or a warning on stderr."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", type=Path, default=SPACE, help="space file")
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds of the proposals")
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
