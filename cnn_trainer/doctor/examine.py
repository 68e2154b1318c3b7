"""What this machine is, as far as training depends on it, and what is wrong with it."""

import os
import re
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from cnn_trainer.data import list_sources
from cnn_trainer.data.places import DATA_DIR_VARIABLE
from cnn_trainer.doctor.probe import run_probe
from cnn_trainer.errors import CnnTrainError, DataError, DeviceError, RunDirectoryError, raised_as
from cnn_trainer.machine import facts
from cnn_trainer.runs import paths
from cnn_trainer.storage import files


@dataclass
class Diagnosis:
    """All that was found."""

    sections: dict[str, dict[str, Any]] = field(default_factory=dict)
    """versions, machine, data, environment: plain values by name, None for what is not there."""
    errors: list[CnnTrainError] = field(default_factory=list)
    """What a training on the CPU would end with."""
    warnings: list[CnnTrainError] = field(default_factory=list)
    """What is wrong besides."""


def examine(runs_dir: Path) -> Diagnosis:
    """Look at everything. This trains three steps in a process of its own, which takes some seconds."""
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
        _try_runs_dir(runs_dir)
    except RunDirectoryError as error:
        found.errors.append(error)
    environment = found.sections["environment"] = facts.environment()
    if environment.get("TF_ENABLE_ONEDNN_OPTS") in ("0", "false"):
        problem = "it turns TensorFlow's fast CPU kernels off"
        found.warnings.append(CnnTrainError(problem, place="TF_ENABLE_ONEDNN_OPTS", remedy="unset it"))
    return found


def _examine_versions(found: Diagnosis) -> dict[str, str | None]:
    versions: dict[str, str | None] = dict(facts.versions())
    if {"tensorflow", "tensorflow-cpu"} <= versions.keys():
        problem = "tensorflow and tensorflow-cpu are both installed, in the same folder"
        remedy = "pip uninstall tensorflow tensorflow-cpu, then pip install 'cnn-trainer[cpu]', or [gpu]"
        found.warnings.append(CnnTrainError(problem, remedy=remedy))
    requirements: list[str] = []
    with suppress(metadata.PackageNotFoundError):  # a checkout that is not installed
        requirements = metadata.requires("cnn-trainer") or []
    for requirement in requirements:
        name = re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]
        if not name.startswith("tensorflow"):  # of whose builds one is enough, and that is above
            versions[name] = _version(name)
            if versions[name] is None and "extra ==" not in requirement:
                remedy = "pip install --force-reinstall cnn-trainer"
                found.warnings.append(CnnTrainError(f"the package {name} is missing", remedy=remedy))
    return versions


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _examine_training(found: Diagnosis) -> dict[str, Any]:
    """Whether TensorFlow trains here: on a GPU if it finds one; if that fails, on the CPU."""
    try:
        training = run_probe("auto")
    except DeviceError as first:
        try:
            training = run_probe("cpu")
        except DeviceError as error:
            found.errors.append(error)
            return {"trains_on": None}
        remedy = "train with --device cpu, or correct the GPU's driver"
        found.warnings.append(DeviceError(f"{first.problem}, except on the CPU", remedy=remedy))
    if not training["gpus"] and Path("/proc/driver/nvidia/version").exists():
        remedy = "pip install 'cnn-trainer[gpu]', and look at CUDA_VISIBLE_DEVICES"
        found.warnings.append(DeviceError("there is a GPU, but TensorFlow does not find it", remedy=remedy))
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
        found.warnings.append(DataError("not at hand; a training will download it", place="mnist", remedy=remedy))
    if sources["mnist-5k"].location is None:
        problem = "not at hand, so without a network there is nothing to train on"
        found.warnings.append(DataError(problem, place="mnist-5k", remedy="pip install 'cnn-trainer[offline]'"))
    return {source: str(status.location) if status.location else None for source, status in sources.items()}


@raised_as(RunDirectoryError)
def _try_runs_dir(runs_dir: Path) -> None:
    """Refuse a folder in which no run can be written and locked. Raises RunDirectoryError."""
    paths.require_writable(runs_dir)
    place = next(folder for folder in (runs_dir, *runs_dir.absolute().parents) if folder.is_dir())
    with files.reported(place, "written to"), tempfile.TemporaryFile(dir=place) as file:
        files.try_lock(file.fileno())
