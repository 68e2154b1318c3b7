"""TensorBoard events of a run: one point per epoch, if the config asks for them.

They contain nothing that is not in metrics.jsonl, so a resumed run writes them anew from its history, and no epoch
appears twice.
"""

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from cnn_trainer.errors import RunDirectoryError, raised_as
from cnn_trainer.runs.records import EpochMetrics
from cnn_trainer.storage import files

WriteEvents = Callable[[EpochMetrics], None]


def is_installed() -> bool:
    """Whether the extra is installed; without it TensorFlow cannot write scalars."""
    return importlib.util.find_spec("tensorboard") is not None


@contextmanager
def epoch_writer(run_dir: Path, history: Sequence[EpochMetrics], wanted: bool) -> Iterator[WriteEvents]:
    """Replace ``run_dir/tensorboard`` with the events of ``history``, and yield a function that adds an epoch.

    Training and validation are two runs in TensorBoard's terms, so that it draws them in the same chart. Unless
    ``wanted``, nothing is written. Raises RunDirectoryError if the system refuses, or if something other than a folder,
    such as a symbolic link, has that name.
    """
    if not wanted:
        yield lambda _: None
        return
    folder = run_dir / "tensorboard"
    for place in (folder, folder / "train", folder / "validation"):
        with raised_as(RunDirectoryError), files.reported(place, "written"):
            place.mkdir(exist_ok=True)
            files.require_folder(place)
            for path in place.glob("events.out.tfevents.*"):
                path.unlink()
    import tensorflow as tf

    with ExitStack() as stack:
        writers = {}

        def write(metrics: EpochMetrics) -> None:
            try:
                for name in ["train"] if metrics.validation_loss is None else ["train", "validation"]:
                    if name not in writers:
                        writers[name] = tf.summary.create_file_writer(str(folder / name))
                        stack.callback(writers[name].close)
                    with writers[name].as_default(step=metrics.epoch):
                        for tag in ("loss", "accuracy"):
                            tf.summary.scalar(tag, getattr(metrics, f"{name}_{tag}"))
                        for tag in ("learning_rate", "images_per_second") if name == "train" else ():
                            tf.summary.scalar(tag, getattr(metrics, tag))
                    writers[name].flush()
            except tf.errors.OpError as error:
                raise RunDirectoryError(f"cannot be written: {error.message}", place=folder) from None

        for metrics in history:
            write(metrics)
        yield write
