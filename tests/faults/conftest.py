"""The processes that are killed, and one finished run to compare with and to copy."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from .harness import Zygote, fingerprint, only_run, write_config


@pytest.fixture(scope="session")
def zygote():
    started = Zygote()
    yield started
    started.close()


@dataclass(frozen=True)
class Reference:
    """A run of three epochs that nothing has disturbed."""

    dir: Path
    config: Path
    fingerprint: dict

    def copy(self, folder: Path) -> Path:
        """A run directory to spoil."""
        return Path(shutil.copytree(self.dir, folder / self.dir.name, symlinks=True))


@pytest.fixture(scope="session")
def reference(zygote, tmp_path_factory) -> Reference:
    folder = tmp_path_factory.mktemp("reference")
    config = write_config(folder, 3)
    zygote.run("train", config, "--runs-dir", folder / "runs")
    run_dir = only_run(folder / "runs")
    return Reference(run_dir, config, fingerprint(run_dir))
