"""Starts TensorFlow: quietly, on the asked device, with the threads that the config resolves to.

Importing this module does not import TensorFlow; ``start`` does. It may be called again in the same process. What it
sets holds for the whole process, so it refuses a TensorFlow that already runs with other settings.
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
from cnn_trainer.config.schema.training import Runtime
from cnn_trainer.errors import DeviceError
from cnn_trainer.machine import facts, streams

# What makes bfloat16 faster than float32. AVX512_BF16 is no part of it: where it was measured, on a Xeon with
# no AMX at hand, products of bfloat16 took twice as long as those of float32.
FAST_BFLOAT16 = ("amx_bf16", "svebf16")

# Fewer images than this in one tower cost more in bookkeeping than the tower wins.
_MIN_TOWER_IMAGES = 32

_NEW_PROCESS = "train in a new process, or before anything else in this one uses TensorFlow"

# Lines of TensorFlow's log at levels INFO and WARNING, in its two forms, and absl's remark about them.
_CHATTER = re.compile(
    r"WARNING: All log messages before absl|[IW]\d{4} \d\d:|[IW]0000 00:|\d{4}-\d\d-\d\d .*: [IW] |"
    r"To enable the following instructions"
)

# Packages that Keras imports when they are there, for parts of it that this program does not use: 2 s of start-up.
_NOT_NEEDED_BY_KERAS = ("matplotlib", "pandas", "sklearn")


@dataclass(frozen=True)
class Backend:
    """How TensorFlow runs in this process."""

    device: str
    """cpu, or gpu and the name of its model."""
    reason: str
    """Why this device, in words."""
    towers: int
    intra_op_threads: int
    inter_op_threads: int


def start(experiment: Experiment) -> Backend:
    """Import TensorFlow and set it up for ``experiment``.

    Raises:
        DeviceError: if TensorFlow is not installed or does not start; if a GPU is asked for and there is none; if
            TensorFlow already runs in this process with other threads or devices, or does not compile functions.
    """
    with _quiet(), _hidden(_NOT_NEEDED_BY_KERAS):
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
        except RuntimeError:  # it cannot be changed any more
            raise _other_settings(tf, intra, inter) from None
        tf.config.experimental.enable_op_determinism()
        tf.random.set_seed(experiment.seed)
        tf.constant(0) + 1  # starts the devices, so that what they have to say is said here
    return Backend(device, reason, towers, intra, inter)


def _require_compiled_functions(tf: Any) -> None:
    if tf.executing_eagerly() and not tf.config.functions_run_eagerly():
        return
    problem = "TensorFlow does not compile functions in this process: "
    if tf.executing_eagerly():
        problem += "tf.config.run_functions_eagerly is on"
        remedy = f"call tf.config.run_functions_eagerly(False), or {_NEW_PROCESS}"
    else:
        problem += "eager execution is off, as in TensorFlow 1"
        remedy = _NEW_PROCESS
    raise DeviceError(problem, remedy=remedy)


def _other_settings(tf: Any, intra: int, inter: int) -> DeviceError:
    threading = tf.config.threading
    found = threading.get_intra_op_parallelism_threads(), threading.get_inter_op_parallelism_threads()
    if found == (intra, inter):
        difference = "other devices than this run needs"
    else:
        names = "runtime.intra_op_threads and runtime.inter_op_threads"
        difference = (
            f"{found[0]} and {found[1]} for {names} (0: as TensorFlow likes); this run needs {intra} and {inter}"
        )
    return DeviceError(f"TensorFlow is already in use in this process, with {difference}", remedy=_NEW_PROCESS)


def resolve_threads(experiment: Experiment, cores: int) -> tuple[int, int, int]:
    """Towers, threads inside an operation, and operations at the same time, if the config leaves them open.

    Batch normalisation looks across the batch, so a model with it has one tower.
    """
    runtime: Runtime = experiment.runtime
    most = 1 if experiment.model.batch_normalization else max(1, experiment.training.batch_size // _MIN_TOWER_IMAGES)
    towers = runtime.towers or min(cores, most)
    intra = runtime.intra_op_threads or max(1, cores // towers)
    inter = runtime.inter_op_threads or max(towers, cores)
    return towers, intra, inter


def precision_warning(experiment: Experiment, device: str) -> str | None:
    """What a person should know who asks for a precision that is slow here; None if there is nothing to know."""
    precision = experiment.runtime.precision
    found = facts.machine()
    native = "features" in found and not set(FAST_BFLOAT16).isdisjoint(found["features"].split())
    if device != "cpu" or precision in ("float32", "float64") or (precision == "bfloat16" and native):
        return None
    reason = "made for GPUs" if precision == "float16" else "slow on processors without AMX"
    return f"runtime.precision is {precision}, which is {reason}; float32 is likely faster here: cnn-train benchmark"


def _import_tensorflow() -> Any:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        with _without_collection():
            import keras  # noqa: F401 -- which imports TensorFlow
            import tensorflow as tf
    except ImportError as error:
        raise DeviceError(
            f"TensorFlow cannot be imported ({error})",
            remedy="install it with: pip install 'cnn-trainer[cpu]', or [gpu]",
        ) from None
    return tf


def _choose_device(asked: str, gpus: Sequence[str]) -> tuple[str, str]:
    if asked == "cpu":
        return "cpu", "runtime.device is cpu"
    if gpus:
        return f"gpu {gpus[0]}", "TensorFlow finds a GPU" if asked == "auto" else "runtime.device is gpu"
    if asked == "gpu":
        raise DeviceError(
            "runtime.device is gpu, but TensorFlow finds none",
            remedy="see cnn-train doctor, install 'cnn-trainer[gpu]', or use --device auto",
        )
    return "cpu", "TensorFlow finds no GPU"


def gpu_name(tf: Any, gpu: Any) -> str:
    """The name of a GPU's model, for a device that ``list_physical_devices`` gave."""
    details = tf.config.experimental.get_device_details(gpu)
    return str(details["device_name"]) if "device_name" in details else gpu.name


@contextlib.contextmanager
def _hidden(names: Sequence[str]) -> Iterator[None]:
    """Make imports of ``names`` fail inside the block; Keras then does without them."""
    names = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(names))  # type: ignore[arg-type]  # None is how Python marks a blocked import
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]


@contextlib.contextmanager
def _without_collection() -> Iterator[None]:
    """Search for no garbage inside the block, nor later in what it made: 0.5 s of the 2.2 s that the imports took.

    Only the first time: afterwards it would keep what earlier runs of this process have left behind.
    """
    if "keras" in sys.modules or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.freeze()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hold back what is written to file descriptor 2 inside the block, and afterwards show all but chatter.

    TensorFlow writes its first lines before its own log level counts. Whoever sets TF_CPP_MIN_LOG_LEVEL sees them.
    """
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ or sys.stderr is None:
        yield
        return
    try:
        file = tempfile.TemporaryFile()  # noqa: SIM115 -- closed below
    except OSError:  # no folder for temporary files, or no room in it: the chatter is then seen
        yield
        return
    with file as held:
        try:
            with streams.redirected(2, held.fileno()):
                yield
        finally:
            held.seek(0)
            lines = held.read().decode("utf-8", errors="replace").splitlines()
            for line in lines:
                if line.strip() and not _CHATTER.search(line):
                    with contextlib.suppress(OSError):  # a closed pipe: nobody looks
                        sys.stderr.write(f"{line}\n")
