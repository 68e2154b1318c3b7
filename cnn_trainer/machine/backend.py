"""Starts TensorFlow quietly, on the requested device, with the threads that the config resolves to.

Importing this module does not import TensorFlow; ``start`` does. It may be called again in the same process. Its
settings hold for the whole process, so it refuses a TensorFlow that already runs with other settings.
"""

import contextlib
import gc
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from cnn_trainer.config.schema import Experiment
from cnn_trainer.errors import DeviceError
from cnn_trainer.machine import facts, streams

_MIN_TOWER_IMAGES = 32  # with fewer, another tower costs more in bookkeeping than it gains
_NEW_PROCESS = "train in a new process, or before anything else in this one uses TensorFlow"

# TensorFlow's log at levels INFO and WARNING, in both of its formats, and absl's remark about it. With CUDA, TensorFlow
# also logs a missing NVIDIA driver (303) or GPU as an ERROR; our own line about the device already says so.
_CHATTER = re.compile(
    r"WARNING: All log messages before absl|[IW]\d{4} \d\d:|[IW]0000 00:|\d{4}-\d\d-\d\d .*: [IW] |"
    r"To enable the following instructions|failed call to cuInit: .*(\(303\)|CUDA_ERROR_NO_DEVICE)"
)

# Packages that Keras imports if they are installed, for parts that this program does not use: 2 s of start-up.
_NOT_NEEDED_BY_KERAS = ("matplotlib", "pandas", "sklearn")


@dataclass(frozen=True)
class Backend:
    """How TensorFlow runs in this process."""

    device: str
    """``cpu``, or ``gpu`` followed by the name of its model."""
    reason: str
    """Why this device was chosen, in words."""
    towers: int
    intra_op_threads: int
    inter_op_threads: int


def start(experiment: Experiment) -> Backend:
    """Import TensorFlow and set it up for ``experiment``.

    Raises:
        DeviceError: if TensorFlow is not installed or does not start, if a GPU is requested and there is none, or if
            TensorFlow already runs in this process with other threads or devices, or does not compile functions.
    """
    with _quiet():
        tf = _import_tensorflow()
        _require_compiled_functions(tf)
        gpus = tf.config.list_physical_devices("GPU")
        device, reason = _choose_device(experiment.runtime.device, [gpu_name(tf, gpu) for gpu in gpus])
        towers, intra, inter = resolve_threads(experiment, 1 if device != "cpu" else facts.available_cores())
        try:
            tf.config.threading.set_intra_op_parallelism_threads(intra)
            tf.config.threading.set_inter_op_parallelism_threads(inter)
            if device == "cpu":
                tf.config.set_visible_devices([], "GPU")
            for gpu in gpus if device != "cpu" else []:
                tf.config.experimental.set_memory_growth(gpu, True)
        except RuntimeError:  # the settings can no longer be changed
            raise _other_settings(tf, intra, inter) from None
        tf.config.experimental.enable_op_determinism()
        tf.random.set_seed(experiment.seed)
        tf.constant(0) + 1  # starts the devices, so that they log their messages here
    return Backend(device, reason, towers, intra, inter)


def _require_compiled_functions(tf: Any) -> None:
    problem = "TensorFlow does not compile functions in this process"
    if not tf.executing_eagerly():
        raise DeviceError(f"{problem}: eager execution is off, as in TensorFlow 1", remedy=_NEW_PROCESS)
    if tf.config.functions_run_eagerly():
        remedy = f"call tf.config.run_functions_eagerly(False), or {_NEW_PROCESS}"
        raise DeviceError(f"{problem}: tf.config.run_functions_eagerly is on", remedy=remedy)


def _other_settings(tf: Any, intra: int, inter: int) -> DeviceError:
    threading = tf.config.threading
    found = threading.get_intra_op_parallelism_threads(), threading.get_inter_op_parallelism_threads()
    difference = "other devices than this run needs"
    if found != (intra, inter):
        names = "runtime.intra_op_threads and runtime.inter_op_threads (0: TensorFlow chooses)"
        difference = f"{found[0]} and {found[1]} for {names}; this run needs {intra} and {inter}"
    return DeviceError(f"TensorFlow is already in use in this process, with {difference}", remedy=_NEW_PROCESS)


def resolve_threads(experiment: Experiment, cores: int) -> tuple[int, int, int]:
    """Towers, threads within an operation, and operations at a time: from the config, or chosen if it leaves them."""
    runtime = experiment.runtime
    # Batch normalisation needs the whole batch in one tower.
    most = 1 if experiment.model.batch_normalization else max(1, experiment.training.batch_size // _MIN_TOWER_IMAGES)
    towers = runtime.towers or min(cores, most)
    intra = runtime.intra_op_threads or max(1, cores // towers)
    return towers, intra, runtime.inter_op_threads or max(towers, cores)


def _import_tensorflow() -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    hidden = [name for name in _NOT_NEEDED_BY_KERAS if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None is how Python marks a blocked import
    # The objects that the imports create are never garbage-collected: that would take 0.5 s of the 2.2 s. Only the
    # first time, because freezing later would also keep what earlier runs of this process left behind.
    collects = gc.isenabled() and "keras" not in sys.modules
    if collects:
        gc.disable()
    try:
        import keras  # noqa: F401 -- it imports TensorFlow
        import tensorflow as tf
    except ImportError as error:
        remedy = f"install it with: {facts.install_command('tensorflow')}"
        raise DeviceError(f"TensorFlow cannot be imported ({error})", remedy=remedy) from None
    finally:
        if collects:
            gc.enable()
            gc.freeze()
        for name in hidden:
            del sys.modules[name]
    return tf


def _choose_device(asked: str, gpus: Sequence[str]) -> tuple[str, str]:
    if asked == "cpu":
        return "cpu", "runtime.device is cpu"
    if gpus:
        return f"gpu {gpus[0]}", "TensorFlow finds a GPU" if asked == "auto" else "runtime.device is gpu"
    if asked == "gpu":
        remedy = "see cnn-train doctor, install the extra cnn-trainer[gpu], or use --device auto"
        raise DeviceError("runtime.device is gpu, but TensorFlow finds none", remedy=remedy)
    return "cpu", "TensorFlow finds no GPU"


def gpu_name(tf: Any, gpu: Any) -> str:
    """The name of a GPU's model, for a device from ``list_physical_devices``."""
    details = tf.config.experimental.get_device_details(gpu)
    return str(details["device_name"]) if "device_name" in details else gpu.name


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hold back what is written to file descriptor 2 in the block, and afterwards show everything but chatter.

    TensorFlow writes its first lines before its own log level takes effect. Set TF_CPP_MIN_LOG_LEVEL to see them.
    """
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ or sys.stderr is None:
        yield
        return
    try:
        file = tempfile.TemporaryFile()  # noqa: SIM115 -- closed below
    except OSError:  # no folder for temporary files, or no room in it: show the chatter
        yield
        return
    with file:
        try:
            with streams.redirected(2, file.fileno()):
                yield
        finally:
            file.seek(0)
            for line in file.read().decode("utf-8", errors="replace").splitlines():
                if line.strip() and not _CHATTER.search(line):
                    with contextlib.suppress(OSError):  # a closed pipe: nobody reads it
                        sys.stderr.write(f"{line}\n")
