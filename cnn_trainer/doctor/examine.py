"""What this machine is, as far as training depends on it, and what is wrong with it.

Nothing here needs TensorFlow, NumPy or a whole installation: a part that cannot be looked at is one of the findings.
"""

import fcntl
import os
import re
import shutil
import sys
import tempfile
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from cnn_trainer.doctor.probe import Probe, documented, run_probe
from cnn_trainer.errors import CnnTrainError, DataError, DeviceError, RunDirectoryError
from cnn_trainer.machine import backend, facts
from cnn_trainer.runs import details, store
from cnn_trainer.storage import files

_PYTHON = (3, 11), (3, 14)
_TENSORFLOW = ("tensorflow", "tensorflow-cpu")  # two builds of one package; either will do, both are one too many

# Training the documented network on MNIST took 0.7 GiB at its peak (Linux, two cores, TensorFlow 2.21 for the CPU).
_NEEDED_MEMORY_BYTES = 2**30
_NEEDED_DISK_BYTES = 100 * 2**20  # such a run takes 6 MiB, and writes new files before old ones go

# What the recorded variables do, for those whose value alone does not say it.
_MEANINGS = {
    "CUDA_VISIBLE_DEVICES": "the GPUs that TensorFlow may see",
    "LD_PRELOAD": "libraries put before all others, such as another memory allocator",
    "MALLOC_ARENA_MAX": "memory pools of the C library",
    "OMP_NUM_THREADS": "threads of OpenMP; TensorFlow's own are set by runtime.intra_op_threads",
    "ONEDNN_MAX_CPU_ISA": "the newest processor instructions that oneDNN uses",
    "TF_ENABLE_ONEDNN_OPTS": "0 turns the fast CPU kernels off",
    "TF_NUM_INTEROP_THREADS": "overruled by runtime.inter_op_threads",
    "TF_NUM_INTRAOP_THREADS": "overruled by runtime.intra_op_threads",
    "TF_XLA_FLAGS": "options of the XLA compiler",
    "XLA_FLAGS": "options of the XLA compiler",
}


@dataclass(frozen=True)
class Finding:
    """Something that is wrong."""

    problem: str
    remedy: str
    stops: type[CnnTrainError] | None = None
    """The failure that a training on the CPU would end with; None where it would work."""


@dataclass(frozen=True)
class Diagnosis:
    """All that was found. Sections are mappings of plain values, as ``--json`` prints them."""

    versions: dict[str, str | None]
    """Of Python and of every package that is used; None for what is not installed."""
    device: dict[str, Any]
    processor: dict[str, Any]
    memory: dict[str, int | None]
    """Bytes; None where the system does not say."""
    runs: dict[str, Any]
    data: list[dict[str, Any]]
    environment: dict[str, str]
    findings: list[Finding] = field(default_factory=list)


def examine(runs_dir: Path) -> Diagnosis:
    """Look at everything. This starts TensorFlow in a process of its own, which takes some seconds."""
    findings: list[Finding] = []
    return Diagnosis(
        versions=_examine_versions(findings),
        device=_examine_device(findings),
        processor=_examine_processor(),
        memory=_examine_memory(findings),
        runs=_examine_runs(runs_dir, findings),
        data=_examine_data(findings),
        environment=_examine_environment(findings),
        findings=findings,
    )


def meaning(variable: str) -> str:
    """What a recorded environment variable does, in words."""
    return _MEANINGS[variable]


def _examine_versions(findings: list[Finding]) -> dict[str, str | None]:
    version = sys.version_info[:2]
    if not _PYTHON[0] <= version < _PYTHON[1]:
        problem = f"Python {version[0]}.{version[1]} is not one that this program is tested with"
        findings.append(Finding(problem, "use Python 3.11, 3.12 or 3.13"))
    found: dict[str, str | None] = dict(facts.versions())
    try:
        wanted = metadata.requires("cnn-trainer") or []
    except metadata.PackageNotFoundError:
        findings.append(Finding("cnn-trainer is not installed, but run from its folder", "pip install -e '.[cpu]'"))
        return found
    for requirement in wanted:
        name = re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]
        if name in _TENSORFLOW:
            continue
        found[name] = _version(name)
        if found[name] is None and "extra ==" not in requirement:
            findings.append(Finding(f"the package {name} is missing", "pip install --force-reinstall cnn-trainer"))
    builds = [name for name in _TENSORFLOW if _version(name)]
    found |= {name: _version(name) for name in builds or _TENSORFLOW[:1]}
    if len(builds) > 1:
        remedy = f"pip uninstall {' '.join(builds)}, then pip install 'cnn-trainer[cpu]', or [gpu]"
        findings.append(Finding("tensorflow and tensorflow-cpu are both installed, in the same folder", remedy))
    return found


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _examine_device(findings: list[Finding]) -> dict[str, Any]:
    """Whether TensorFlow trains here: with a GPU where it finds one, and if that fails without."""
    cores = facts.available_cores()
    towers, intra, inter = backend.resolve_threads(documented("cpu"), cores)
    probes = [run_probe("auto")]
    if not probes[0].works:
        probes.append(run_probe("cpu"))
    findings += _judge(probes)
    best = probes[-1]
    return {
        "works": best.works,
        "used": best.used,
        "gpus": best.gpus,
        "built_for_gpu": best.built_for_gpu,
        "cores": cores,
        "towers": towers,
        "intra_op_threads": intra,
        "inter_op_threads": inter,
        "messages": best.messages if findings else [],
    }


def _judge(probes: list[Probe]) -> list[Finding]:
    best = probes[-1]
    if not best.works:
        remedy = "install it again: pip install --force-reinstall 'cnn-trainer[cpu]', or [gpu]"
        if _version("tensorflow") is None and _version("tensorflow-cpu") is None:
            remedy = "pip install 'cnn-trainer[cpu]', or 'cnn-trainer[gpu]' for an NVIDIA GPU"
        return [Finding(f"no training works here: {best.failure}", remedy, DeviceError)]
    if len(probes) > 1:
        remedy = "train with --device cpu, or correct the GPU's driver"
        return [Finding(f"training works on the CPU alone: {probes[0].failure}", remedy)]
    if not best.gpus and Path("/proc/driver/nvidia/version").exists():
        if not best.built_for_gpu:
            return [Finding("there is a GPU, but this TensorFlow is built without", "pip install 'cnn-trainer[gpu]'")]
        remedy = "look at CUDA_VISIBLE_DEVICES, and install 'cnn-trainer[gpu]', which brings the CUDA libraries"
        return [Finding("there is a GPU, but TensorFlow does not find it", remedy)]
    return []


def _examine_processor() -> dict[str, Any]:
    machine = facts.machine()
    features = machine["features"].split() if "features" in machine else []
    native = [name for name in backend.FAST_BFLOAT16 if name in features]
    return {
        "name": machine["processor"] if "processor" in machine else None,
        "architecture": machine["architecture"],
        "avx2": "avx2" in features,
        "avx512": "avx512f" in features,
        "avx512_bf16": "avx512_bf16" in features,
        "amx": "amx_tile" in features,
        "bfloat16": native,
    }


def _examine_memory(findings: list[Finding]) -> dict[str, int | None]:
    """Of the machine, or of the control group (version 2) where that allows less."""
    found: dict[str, int | None] = {"total_bytes": None, "available_bytes": None}
    with suppress(OSError):
        text = Path("/proc/meminfo").read_text(encoding="ascii", errors="replace")
        sizes = {name: int(size) * 1024 for name, size in re.findall(r"^(\w+): +([0-9]+) kB$", text, re.MULTILINE)}
        found = {"total_bytes": sizes["MemTotal"], "available_bytes": sizes["MemAvailable"]}
    with suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text(encoding="ascii"))  # the word "max" ends in ValueError: no limit
        left = limit - int((group / "memory.current").read_text(encoding="ascii"))
        total, available = found["total_bytes"], found["available_bytes"]
        found["total_bytes"] = limit if total is None else min(total, limit)
        found["available_bytes"] = left if available is None else min(available, left)
    available = found["available_bytes"]
    if available is not None and available < _NEEDED_MEMORY_BYTES:
        problem = (
            f"{available / 2**30:.1f} GiB of memory are free, of {_NEEDED_MEMORY_BYTES / 2**30:.1f} that MNIST needs"
        )
        findings.append(Finding(problem, "end other programs, or raise the container's limit"))
    return found


def _examine_runs(runs_dir: Path, findings: list[Finding]) -> dict[str, Any]:
    """Free space, and whether runs can be written and locked there; what the runs are doing."""
    found: dict[str, Any] = {"runs_dir": str(runs_dir), "free_bytes": None, "statuses": {}, "locked": []}
    place = runs_dir.absolute()
    while not os.path.lexists(place) and place != place.parent:
        place = place.parent
    try:
        with files.reported(place, "written to"):
            found["free_bytes"] = shutil.disk_usage(place).free
            with tempfile.TemporaryFile(dir=place) as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        summaries = details.list_runs(runs_dir)
    except RunDirectoryError as error:
        findings.append(_finding(error, RunDirectoryError))
        return found
    if found["free_bytes"] < _NEEDED_DISK_BYTES:
        problem = f"{found['free_bytes'] / 2**20:.0f} MiB are free on the disk of {runs_dir}"
        findings.append(Finding(problem, "free some space, or give another folder with --runs-dir"))
    found["statuses"] = dict(Counter(summary.status for summary in summaries))
    found["locked"] = [summary.name for summary in summaries if store.is_locked(summary.dir)]
    broken = [summary.name for summary in summaries if summary.status == "broken"]
    if broken:
        names = ", ".join(broken[:3]) + (", …" if broken[3:] else "")
        findings.append(Finding(f"{len(broken)} of the runs cannot be read: {names}", "see why: cnn-train runs list"))
    return found


def _finding(error: CnnTrainError, stops: type[CnnTrainError] | None) -> Finding:
    """The finding that is told by a message of ours, which ends with its remedy."""
    problem, _, remedy = str(error).partition("; ")
    return Finding(problem, remedy, stops)


def _examine_data(findings: list[Finding]) -> list[dict[str, Any]]:
    try:
        from cnn_trainer import data

        sources = data.list_sources()
    except ImportError as error:
        findings.append(Finding(f"data cannot be read: {error}", "pip install --force-reinstall numpy", DataError))
        return []
    findings += [
        _finding(DataError(status.problem), DataError if status.source == "mnist" else None)
        for status in sources
        if status.problem
    ]
    found = {status.source: status.location for status in sources}
    if not found["mnist"]:
        remedy = "cnn-train data fetch mnist, or set CNN_TRAIN_DATA_DIR to a folder that holds it"
        findings.append(Finding("mnist is not at hand, and will be downloaded by the first training", remedy))
    if not found["mnist-5k"]:
        problem = "mnist-5k is not at hand, and cannot stand in where there is no network"
        findings.append(Finding(problem, "pip install 'cnn-trainer[offline]'"))
    return [
        {
            "source": status.source,
            "location": None if status.location is None else str(status.location),
            "problem": status.problem,
        }
        for status in sources
    ]


def _examine_environment(findings: list[Finding]) -> dict[str, str]:
    found = facts.environment()
    if "TF_ENABLE_ONEDNN_OPTS" in found and found["TF_ENABLE_ONEDNN_OPTS"].lower() in ("0", "false"):
        problem = "TF_ENABLE_ONEDNN_OPTS turns TensorFlow's fast CPU kernels off"
        findings.append(Finding(problem, "unset TF_ENABLE_ONEDNN_OPTS"))
    folder = os.environ["CNN_TRAIN_DATA_DIR"] if "CNN_TRAIN_DATA_DIR" in os.environ else ""
    if folder and not Path(folder).is_dir():
        problem = f"CNN_TRAIN_DATA_DIR names {folder}, which is no folder"
        findings.append(Finding(problem, "set it to the folder that holds mnist.npz, or unset it"))
    return found
