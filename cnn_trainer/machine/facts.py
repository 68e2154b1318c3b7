"""Facts about this machine that a run records."""

import contextlib
import importlib.util
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from cnn_trainer import __version__

# Environment variables that change how TensorFlow works; a run records no others.
RECORDED_ENVIRONMENT = (
    "CUDA_VISIBLE_DEVICES",
    "LD_PRELOAD",
    "MALLOC_ARENA_MAX",
    "OMP_NUM_THREADS",
    "ONEDNN_MAX_CPU_ISA",
    "TF_ENABLE_ONEDNN_OPTS",
    "TF_NUM_INTEROP_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_XLA_FLAGS",
    "XLA_FLAGS",
)


def available_cores() -> int:
    """Number of cores that this process may use, by its affinity mask and the limit of its control group (v2)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        cores = min(cores, max(1, round(int(quota) / int(period))))  # "max", no limit, raises ValueError
    return cores


def versions() -> dict[str, str]:
    """Versions of everything that determines a run's bits."""
    found = {"cnn-trainer": __version__, "python": platform.python_version()}
    for name in ("tensorflow", "tensorflow-cpu", "keras", "numpy"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def machine() -> dict[str, str]:
    """The names by which the processor and the operating system identify themselves."""
    found = {"system": platform.platform(), "architecture": platform.machine(), "cores": str(available_cores())}
    with contextlib.suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
        fields = dict(re.findall(r"^(model name|flags|Features)\s*: (.*)$", text, re.MULTILINE))
        if "model name" in fields:
            found["processor"] = fields["model name"]
        flags = " ".join(fields[name] for name in ("flags", "Features") if name in fields).split()
        wanted = ("avx", "amx", "fma", "sve", "asimd")
        found["features"] = " ".join(sorted(flag for flag in flags if flag.startswith(wanted)))
    return found


def environment() -> dict[str, str]:
    """The recorded environment variables that are set."""
    return {name: os.environ[name] for name in RECORDED_ENVIRONMENT if name in os.environ}


def install_command(*packages: str) -> str:
    """The shell command that installs ``packages`` (and pip's options) for the Python that runs this program."""
    pip = shutil.which("pip")
    if pip is not None and Path(pip).parent == Path(sys.executable).parent:
        words = ["pip", "install"]
    elif importlib.util.find_spec("pip"):
        words = [sys.executable, "-m", "pip", "install"]
    else:  # environments created by uv have no pip
        words = ["uv", "pip", "install", "--python", sys.executable]
    return shlex.join([*words, *packages])


def git_commit() -> str | None:
    """The commit checked out in the working folder, with +dirty if files have changed; None without git."""
    # No hooks or file system monitor of the repository are run. --exclude makes this the commit, never a tag.
    command = ["git", "--no-optional-locks", "-c", "core.fsmonitor=false"]
    command += ["describe", "--always", "--abbrev=64", "--exclude=*", "--dirty=+dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
