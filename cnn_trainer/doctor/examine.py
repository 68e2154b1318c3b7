"""Examines this machine, as far as training depends on it, and finds what is wrong with it.

Training is tried in a separate process, because TensorFlow may be missing, broken or built for another processor.
"""

import json
import os
import re
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from cnn_trainer.config.load import documented_config
from cnn_trainer.data import list_sources, named
from cnn_trainer.data.places import DATA_DIR_VARIABLE
from cnn_trainer.errors import CnnTrainError, DataError, DeviceError, RunDirectoryError, raised_as
from cnn_trainer.machine import backend, child, facts
from cnn_trainer.runs import paths
from cnn_trainer.storage import files

# From this gain on, bfloat16 is worth a hint: products are only a part of a whole run.
_WORTH_A_HINT = 1.2
PROBE_SECONDS = 180.0  # a first start from a slow disk can take a minute


@dataclass
class Diagnosis:
    """Everything that was found."""

    sections: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Sections versions, machine, data and environment: plain values by name, None for missing ones."""
    errors: list[CnnTrainError] = field(default_factory=list)
    """Errors with which training on the CPU would end."""
    warnings: list[CnnTrainError] = field(default_factory=list)
    """Other things that are wrong."""
    hints: list[str] = field(default_factory=list)
    """Possible improvements although nothing is wrong, one sentence each."""


def examine(runs_dir: Path) -> Diagnosis:
    """Examine everything. This trains three steps in a separate process, which takes a few seconds."""
    found = Diagnosis()
    found.sections["versions"] = _examine_versions(found)
    machine = facts.machine()
    found.sections["machine"] = {
        "processor": machine["processor"] if "processor" in machine else machine["architecture"],
        "features": machine["features"].split() if "features" in machine else [],
        "cores": facts.available_cores(),
        **_examine_training(found),
    }
    found.sections["data"] = _examine_data(found)
    try:
        _try_runs_dir(runs_dir, found)
    except RunDirectoryError as error:
        found.errors.append(error)
    environment = found.sections["environment"] = facts.environment()
    if environment.get("TF_ENABLE_ONEDNN_OPTS", "").lower() in ("0", "false"):
        problem = "turns off TensorFlow's fast CPU kernels"
        found.warnings.append(CnnTrainError(problem, place="TF_ENABLE_ONEDNN_OPTS", remedy="unset it"))
    return found


def _examine_versions(found: Diagnosis) -> dict[str, str | None]:
    versions: dict[str, str | None] = dict(facts.versions())
    if {"tensorflow", "tensorflow-cpu"} <= versions.keys():
        problem = "tensorflow and tensorflow-cpu are both installed, and overwrite each other's files"
        remedy = f"pip uninstall tensorflow tensorflow-cpu, then {facts.install_command('tensorflow')}"
        found.warnings.append(CnnTrainError(problem, remedy=remedy))
    requirements: list[str] = []
    with suppress(metadata.PackageNotFoundError):  # a checkout that is not installed
        requirements = metadata.requires("cnn-trainer") or []
    for requirement in requirements:
        name = re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]
        if not name.startswith("tensorflow"):  # one of its builds is enough; see above
            versions[name] = _version(name)
            if versions[name] is None and "extra ==" not in requirement:
                remedy = facts.install_command(requirement)
                found.warnings.append(CnnTrainError(f"the package {name} is missing", remedy=remedy))
    return versions


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _examine_training(found: Diagnosis) -> dict[str, Any]:
    """Try to train with TensorFlow, on a GPU if it finds one; if that fails, on the CPU."""
    try:
        training = run_probe("auto")
    except DeviceError as first:
        try:
            training = run_probe("cpu")
        except DeviceError as error:
            found.errors.append(DeviceError(f"training does not work here: {error.problem}", remedy=error.remedy))
            return {"trains_on": None}
        remedy = "train with --device cpu, or fix the GPU's driver"
        found.warnings.append(DeviceError(f"training works only on the CPU: {first.problem}", remedy=remedy))
    if not training["gpus"] and Path("/proc/driver/nvidia/version").exists():
        remedy = f"{facts.install_command('tensorflow[and-cuda]')}, and check CUDA_VISIBLE_DEVICES"
        found.warnings.append(DeviceError("there is a GPU, but TensorFlow does not find it", remedy=remedy))
    if (gain := training["bfloat16_gain"]) is not None and gain >= _WORTH_A_HINT:
        measured = f"the products of the documented network are {gain:.1f} times as fast in bfloat16 as in float32"
        found.hints.append(f"{measured}; try: --set runtime.precision=bfloat16")
    return training


def _examine_data(found: Diagnosis) -> dict[str, str | None]:
    sources = {status.source: status for status in list_sources()}
    for source, status in sources.items():
        if status.problem:
            (found.errors if source == "mnist" else found.warnings).append(status.problem)
    remedy = f"cnn-train data fetch mnist, or set {DATA_DIR_VARIABLE} to a folder that holds it"
    folder = os.environ.get(DATA_DIR_VARIABLE)
    if folder and not Path(folder).is_dir():
        problem = f"names {folder}, which is not a folder"
        found.warnings.append(DataError(problem, place=DATA_DIR_VARIABLE, remedy=remedy))
    elif sources["mnist"].location is None:
        found.warnings.append(DataError("not on this machine; training will download it", place="mnist", remedy=remedy))
    if sources["mnist-5k"].location is None:
        problem = "not on this machine, so there is nothing to train on offline"
        found.warnings.append(DataError(problem, place="mnist-5k", remedy=named.install_mnist_5k()))
    return {source: str(status.location) if status.location else None for source, status in sources.items()}


@raised_as(RunDirectoryError)
def _try_runs_dir(runs_dir: Path, found: Diagnosis) -> None:
    """Refuse a folder in which runs cannot be written, and warn if they cannot be locked. Raises RunDirectoryError."""
    paths.require_writable(runs_dir)
    place = next(folder for folder in (runs_dir, *runs_dir.absolute().parents) if folder.is_dir())
    with files.reported(place, "written to"), tempfile.TemporaryFile(dir=place) as file:
        try:
            files.try_lock(file.fileno())
        except OSError as error:
            problem = (
                f"the file system cannot lock files ({error.strerror}), so two processes could work on the same run"
            )
            remedy = "use only one process for each run, or choose another folder with --runs-dir"
            found.warnings.append(RunDirectoryError(problem, place=runs_dir, remedy=remedy))


def run_probe(device: str) -> dict[str, Any]:
    """Train in a new process, which takes a few seconds.

    Args:
        device: auto or cpu.

    Returns:
        ``trains_on`` (cpu, or gpu and the name of its model), ``gpus`` (the names of the GPUs that TensorFlow finds),
        ``towers``, ``intra_op_threads``, ``inter_op_threads``, ``bfloat16_gain`` (how many times as fast as float32
        bfloat16 computes the products of the documented network, measured; None on a GPU), and ``messages`` (the
        lines that TensorFlow wrote to stderr).

    Raises:
        DeviceError: if training does not work on the device.
    """
    ended = child.run_child("cnn_trainer.doctor.examine:main", device, timeout_seconds=PROBE_SECONDS)
    build = "tensorflow-cpu" if "tensorflow-cpu" in facts.versions() else "tensorflow"
    remedy = f"install it again: {facts.install_command('--force-reinstall', build)}"
    if ended.signal_name == "SIGILL":
        remedy = "install a build of TensorFlow for this processor"
    if ended.failure:
        raise DeviceError(ended.failure, remedy=remedy)
    found = json.loads(ended.stdout)
    if "problem" in found:
        raise DeviceError(found["problem"], remedy=found["remedy"] or remedy)
    return {**found, "messages": ended.messages[-20:]}


def main() -> None:
    """Train on the device named on the command line, and print what was found, or what is wrong."""
    child.answer(_probe)


def _probe() -> dict[str, Any]:
    try:
        return _train(sys.argv[1])
    except CnnTrainError as error:
        place = "" if error.place is None else f"{error.place}: "
        return {"problem": f"{place}{error.problem}", "remedy": error.remedy}
    except OSError as error:
        remedy = "set TMPDIR to another folder for temporary files"
        return {"problem": f"{tempfile.gettempdir()}: {error.strerror or error}", "remedy": remedy}


def _train(device: str) -> dict[str, Any]:
    import numpy as np

    from cnn_trainer.training.prepare import Feedback, Prepared
    from cnn_trainer.training.run import train_config

    images = np.random.default_rng(0).integers(0, 256, (3 * 128, 28, 28), np.uint8)
    trained: list[Prepared] = []
    with tempfile.TemporaryDirectory(prefix="cnn-train-doctor-") as folder:
        path = Path(folder, "images.npz")
        np.savez(path, x_train=images, y_train=np.arange(len(images)) % 10)
        changes = {"data": {"source": "npz", "path": str(path)}, "training.epochs": 1, "runtime.device": device}
        train_config(
            documented_config(changes), Path(folder, "runs"), Feedback(prepared=trained.append), evaluate=False
        )
    import tensorflow as tf

    from cnn_trainer.network.precision import measure_gain

    [prepared] = trained
    started = prepared.backend
    gain = measure_gain(prepared.session.model, "bfloat16", prepared.tower_images) if started.device == "cpu" else None
    return {
        "trains_on": started.device,
        "gpus": [backend.gpu_name(tf, gpu) for gpu in tf.config.list_physical_devices("GPU")],
        **{name: getattr(started, name) for name in ("towers", "intra_op_threads", "inter_op_threads")},
        "bfloat16_gain": gain and round(gain, 2),
    }
