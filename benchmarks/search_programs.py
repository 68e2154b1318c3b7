"""The programs of ``search.py`` that are not ``cnn-train search``, each in a process of its own."""

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from cnn_trainer import data
from cnn_trainer.config.load import change_experiment
from cnn_trainer.errors import DivergedError
from cnn_trainer.machine import child
from cnn_trainer.runs import store
from cnn_trainer.search.load import load_search
from cnn_trainer.search.spec import Changes, Search
from cnn_trainer.training.display import Display
from cnn_trainer.training.prepare import Feedback
from cnn_trainer.training.run import train_until

FACTOR = 3  # the best 1 of so many trials continues

Point = tuple[float, float, float]
"""After an epoch: seconds since the process started, seconds spent in training steps so far, and validation loss."""


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
            train_until(config, run_dir, last, Feedback(warn, display=Report(trial, run_dir)))
            study.tell(trial, min(loss for *_, loss in points[first:]))
        except optuna.TrialPruned:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        except DivergedError:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
    return points


def with_keras_tuner(search: Search, began: float, folder: Path) -> list[Point]:
    """Hyperband with KerasTuner's defaults, in as many iterations as come closest to the number of trials."""
    base = search.base.experiment
    loaded = data.load_training(base.data, base.seed, warn)
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
    keras.utils.set_random_seed(base.seed)
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


def _changes(search: Search, found: Any) -> Changes:
    """The changes of a trial, given a number for each key: its value, or the position of its choice."""
    return {
        key: found[key] if dimension.choices is None else dimension.choices[found[key]]
        for key, dimension in search.space.items()
    }


def warn(line: str) -> None:
    """Print a warning on stderr."""
    sys.stderr.write(f"{line}\n")


OTHERS: dict[str, Callable[[Search, float, Path], list[Point]]] = {
    "optuna": with_optuna,
    "keras-tuner": with_keras_tuner,
}


def work() -> None:
    """In a process: run the program named first on the command line, and print its points as JSON."""
    program, space, began = sys.argv[1:]
    search, _ = load_search(Path(space), warn, data.no_progress)
    child.answer(lambda: OTHERS[program](search, float(began), Path(space).parent))
