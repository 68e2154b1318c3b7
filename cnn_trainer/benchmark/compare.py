"""Runs the plain programs and our own loop in turn, each as a whole process, and compares what they report.

They run in rounds, so that whatever else the machine does affects all of them.
"""

import importlib.util
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

import cnn_trainer
from cnn_trainer import data
from cnn_trainer.config.load import Config, change_experiment, dump_config
from cnn_trainer.config.schema import Experiment
from cnn_trainer.errors import CnnTrainError
from cnn_trainer.machine.child import run_child
from cnn_trainer.runs import store
from cnn_trainer.runs.records import RunRecord
from cnn_trainer.storage.strict_json import Record
from cnn_trainer.training.prepare import with_data_used

PLAIN = "Model.fit"
LOOP = {"float32": "cnn-train, float32", "bfloat16": "cnn-train, bfloat16"}
TORCH = "PyTorch"
TORCH_FOLDER = Path(cnn_trainer.__file__).parents[1] / "benchmarks"  # only in a checkout; it is not installed
KERAS_EVALUATE, LOOP_EVALUATE = "Model.evaluate", "cnn-train evaluate"


class Figure(Record):
    """One measured quantity: its value in each round, and their median, lowest and highest."""

    rounds: list[float]
    median: float
    lowest: float
    highest: float


class Program(Record):
    """The results of one program."""

    name: str
    images_per_second: Figure
    ratio: Figure | None = Field(
        description="Images per second divided by those of the plain program in the same round; null for the latter."
    )
    seconds: Figure | None = Field(description="Seconds that the whole process took; null if it did not train.")
    seconds_ratio: Figure | None = Field(
        description="Seconds that the plain program took in the same round, divided by the seconds of this one."
    )
    share_of_limit: float | None = Field(
        description="Fraction of the speed that matrix products in its precision would allow."
    )


class BenchmarkRecord(Record):
    """The output of ``cnn-train benchmark --json``."""

    experiment: str
    data: str
    num_train: int = Field(description="Number of examples in an epoch.")
    num_test: int = Field(description="Number of examples in an evaluation.")
    batch_size: int
    epochs: int
    num_rounds: int
    device: str
    towers: int
    machine: dict[str, str]
    versions: dict[str, str]
    flop_per_image: int = Field(description="Floating-point operations needed to train on one image.")
    flop_per_image_cropped: int = Field(description="The same, without pixels that no later layer reads.")
    products_per_second: dict[str, Figure] = Field(description="Measured FLOP/s of matrix products, by precision.")
    training: list[Program]
    evaluation: list[Program]


@dataclass(frozen=True)
class _Task:
    """A process to run in each round."""

    name: str
    function: str
    words: tuple[str, ...]


def benchmark(
    loaded: Config, num_rounds: int, epochs: int, say: Callable[[str], None], download: data.DownloadProgress
) -> BenchmarkRecord:
    """Measure ``num_rounds`` rounds of ``epochs`` epochs.

    Args:
        loaded: The config to measure. Its data, network, batch size, optimizer, schedule and device are used. Features
            that the plain programs lack are switched off: augmentation, label smoothing, moving averages, and a
            validation split unless the data has its own.
        num_rounds: Number of rounds. Each runs every program once, starting with a different one.
        epochs: Epochs of each process. The first one compiles; if there are more, it does not count for images/s.
        say: Called with what is running.
        download: Called with the progress of a download.

    Raises:
        CnnTrainError: if a process fails, with its message and exit code.
    """
    training_data = data.load_training(loaded.experiment.data, loaded.experiment.seed, say, download)
    experiment = _measured(with_data_used(loaded.experiment, training_data.record), epochs)
    measured: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory(prefix="cnn-train-benchmark-") as folder:
        tasks = _tasks(experiment, Path(folder))
        for number in range(num_rounds):
            turn = number % len(tasks)
            for task in (*tasks[turn:], *tasks[:turn]):
                say(f"round {number + 1} of {num_rounds}: {task.name}")
                measured.setdefault(task.name, []).append(_measure(task, experiment))
        record = _newest_run(Path(folder))
    return _report(experiment, record, measured)


def _measured(experiment: Experiment, epochs: int) -> Experiment:
    schedule = experiment.training.schedule
    changes = {
        "data.validation_fraction": 0.0,
        "training.epochs": epochs,
        "training.loss": "cross_entropy",
        "training.label_smoothing": 0.0,
        "training.class_weights": None,
        "training.ema_decay": None,
        "training.augmentation": {},
        "training.early_stopping": None,
        "training.schedule": {"name": "constant"} if schedule.name == "plateau" else schedule.model_dump(),
    }
    return change_experiment(experiment, changes)


def _tasks(experiment: Experiment, folder: Path) -> list[_Task]:
    files = {}
    for precision in LOOP:
        files[precision] = folder / f"{precision}.yaml"
        changed = change_experiment(experiment, {"runtime.precision": precision})
        files[precision].write_text(dump_config(changed), encoding="utf-8")

    def worker(name: str, deed: str) -> _Task:
        return _Task(name, "cnn_trainer.benchmark.worker:main", (deed, str(files["float32"])))

    tasks = [worker(PLAIN, "keras-train")]
    for precision, name in LOOP.items():
        words = ("train", "--runs-dir", str(folder / "runs"), "--json", str(files[precision]))
        tasks.append(_Task(name, "cnn_trainer.__main__:main", words))
    if importlib.util.find_spec("torch") and (TORCH_FOLDER / "torch_program.py").is_file():
        tasks.append(_Task(TORCH, "torch_program:main", (str(files["float32"]),)))
    tasks += [worker(KERAS_EVALUATE, "keras-evaluate"), worker(LOOP_EVALUATE, "loop-evaluate")]
    return [*tasks, worker("matrix products", "limit")]


def _measure(task: _Task, experiment: Experiment) -> dict[str, Any]:
    """Run a process. Returns its report, with ``images_per_second`` as a list and ``seconds`` of the whole process."""
    environment = {"TF_CPP_MIN_LOG_LEVEL": "2"}
    if experiment.runtime.device == "cpu":  # the plain programs use a GPU if there is one
        environment["CUDA_VISIBLE_DEVICES"] = ""
    began = time.perf_counter()
    ended = run_child(task.function, *task.words, environment=environment, folder=str(TORCH_FOLDER))
    seconds = time.perf_counter() - began
    if ended.failure:
        error = CnnTrainError(f"failed ({ended.failure})", place=task.name)
        error.exit_code = ended.exit_code if ended.exit_code and ended.exit_code < 128 else 1
        raise error
    found = json.loads(ended.stdout)
    if task.name not in LOOP.values():
        return {**found, "seconds": seconds}
    history = store.read_metrics(store.open_run(Path(found["run"])))
    return {"images_per_second": [metrics.images_per_second for metrics in history], "seconds": seconds}


def _newest_run(folder: Path) -> RunRecord:
    return store.open_run(max((folder / "runs").iterdir())).record


def _figure(values: Sequence[float]) -> Figure:
    return Figure(rounds=list(values), median=statistics.median(values), lowest=min(values), highest=max(values))


def _report(experiment: Experiment, record: RunRecord, measured: dict[str, list[dict[str, Any]]]) -> BenchmarkRecord:
    limits = measured["matrix products"]
    products = {precision: _figure([found[precision] for found in limits]) for precision in LOOP}
    cropped = limits[0]["flop_per_image_cropped"]
    precisions = {PLAIN: "float32", **{name: precision for precision, name in LOOP.items()}, TORCH: "float32"}

    def program(name: str, plain: str) -> Program:
        rates, plain_rates = ([_steady(found) for found in measured[which]] for which in (name, plain))
        seconds, plain_seconds = ([found["seconds"] for found in measured[which]] for which in (name, plain))
        faster = [rate / base for rate, base in zip(rates, plain_rates, strict=True)]
        sooner = [base / spent for spent, base in zip(seconds, plain_seconds, strict=True)]
        trains = name in precisions
        return Program(
            name=name,
            images_per_second=_figure(rates),
            ratio=None if name == plain else _figure(faster),
            seconds=_figure(seconds) if trains else None,
            seconds_ratio=_figure(sooner) if trains and name != plain else None,
            share_of_limit=statistics.median(rates) * cropped / products[precisions[name]].median if trains else None,
        )

    return BenchmarkRecord(
        experiment=experiment.name,
        data=record.data.source,
        num_train=record.data.num_train,
        num_test=measured[LOOP_EVALUATE][0]["num_examples"],
        batch_size=experiment.training.batch_size,
        epochs=experiment.training.epochs,
        num_rounds=len(limits),
        device=record.device,
        towers=record.towers,
        machine=record.machine,
        versions=record.versions,
        flop_per_image=limits[0]["flop_per_image"],
        flop_per_image_cropped=cropped,
        products_per_second=products,
        training=[program(name, PLAIN) for name in precisions if name in measured],
        evaluation=[program(name, KERAS_EVALUATE) for name in (KERAS_EVALUATE, LOOP_EVALUATE)],
    )


def _steady(found: dict[str, Any]) -> float:
    """Images per second over all epochs or evaluations except the first, which compiles, unless it is the only one.

    Not a median: ``Model.fit`` has epochs of two speeds, and a program's speed is that of all its epochs together.
    """
    rates = found["images_per_second"]
    return statistics.harmonic_mean(rates[1:] or rates)
