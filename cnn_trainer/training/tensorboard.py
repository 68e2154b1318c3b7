"""TensorBoard events of a run: one point an epoch, if the config asks for them.

They hold nothing that metrics.jsonl does not hold, so a resumed run writes them anew from its history, and no epoch is
ever there twice.
"""

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from cnn_trainer.errors import RunDirectoryError, raised_as
from cnn_trainer.runs.records import EpochMetrics
from cnn_trainer.storage import files

TENSORBOARD_DIR = "tensorboard"

WriteEvents = Callable[[EpochMetrics], None]


def is_installed() -> bool:
    """Whether the extra is there; without it TensorFlow writes no scalars."""
    return importlib.util.find_spec("tensorboard") is not None


@contextmanager
def epoch_writer(run_dir: Path, history: Sequence[EpochMetrics], wanted: bool) -> Iterator[WriteEvents]:
    """Give a function that adds an epoch to ``run_dir/tensorboard``, where ``history`` and nothing else stands by then.

    Training and validation are two runs in TensorBoard's words, so that it draws them into one chart. Where nothing is
    ``wanted``, nothing is written.

    Raises:
        RunDirectoryError: if the system refuses, or what is no folder stands in the way, such as a symbolic link.
    """
    if not wanted:
        yield lambda _: None
        return
    folder = run_dir / TENSORBOARD_DIR
    _empty(folder)
    import tensorflow as tf

    with ExitStack() as stack:
        writers = {}

        def write(metrics: EpochMetrics) -> None:
            try:
                for name, scalars in _scalars(metrics).items():
                    if name not in writers:
                        writers[name] = tf.summary.create_file_writer(str(folder / name))
                        stack.callback(writers[name].close)
                    with writers[name].as_default(step=metrics.epoch):
                        for tag, value in scalars.items():
                            tf.summary.scalar(tag, value)
                    writers[name].flush()
            except tf.errors.OpError as error:
                raise RunDirectoryError(f"cannot be written: {error.message}", place=folder) from None

        for metrics in history:
            write(metrics)
        yield write


def _scalars(metrics: EpochMetrics) -> dict[str, dict[str, float]]:
    """Tags and values by TensorBoard's run."""
    names = ("loss", "accuracy")
    values = metrics.model_dump()
    found = {"train": {name: values[f"train_{name}"] for name in names}}
    found["train"] |= {name: values[name] for name in ("learning_rate", "images_per_second")}
    if metrics.validation_loss is not None:
        found["validation"] = {name: values[f"validation_{name}"] for name in names}
    return found


def _empty(folder: Path) -> None:
    for place in (folder, folder / "train", folder / "validation"):
        with raised_as(RunDirectoryError), files.reported(place, "written"):
            place.mkdir(exist_ok=True)
            files.require_folder(place)
            for path in place.glob("events.out.tfevents.*"):
                path.unlink()
