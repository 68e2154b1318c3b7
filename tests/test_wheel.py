"""The wheel that a user installs: its requirements, its content, and that it works outside the checkout."""

import os
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from email.parser import HeaderParser
from importlib.util import find_spec
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = {
    path.relative_to(ROOT / "configs").as_posix(): path.read_bytes()
    for path in (ROOT / "configs").rglob("*")
    if path.is_file()
}


def python(*words: str | Path, cwd: Path = ROOT, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """A Python process, without a network."""
    proxies = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")
    environment = {**os.environ, **proxies, **(env or {})}
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def built_wheel(source: Path, folder: Path) -> Path:
    """The wheel of a checkout or of an sdist, built with the packages of the lock."""
    done = python("-m", "pip", "wheel", "--no-deps", "--no-index", "--no-build-isolation", "-w", folder, source)
    assert done.returncode == 0, done.stderr
    [wheel] = folder.glob("*.whl")
    return wheel


@dataclass(frozen=True)
class Installation:
    """The wheel in its own folder; everything else comes from the environment of the tests."""

    site: Path
    empty: Path

    def __call__(self, *words: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command line in an empty folder, with neither MNIST nor a network."""
        home = str(self.empty.parent)
        paths = {"PYTHONPATH": str(self.site), "HOME": home, "KERAS_HOME": home, "CNN_TRAIN_DATA_DIR": ""}
        return python(self.site / "bin" / "cnn-train", *words, cwd=self.empty, env=paths | (env or {}))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built_wheel(ROOT, tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installation:
    folder = tmp_path_factory.mktemp("installed")
    site, empty = folder / "site", folder / "empty"
    empty.mkdir()
    done = python("-m", "pip", "install", "--no-deps", "--no-index", "--target", site, wheel)
    assert done.returncode == 0, done.stderr
    return Installation(site, empty)


def test_it_asks_for_tensorflow_and_for_nothing_that_only_mlxtend_needs(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        fields = HeaderParser().parsestr(archive.read(name).decode())
    requirements = list(map(Requirement, fields.get_all("Requires-Dist") or []))
    always = {requirement.name: requirement for requirement in requirements if requirement.marker is None}
    assert always["tensorflow"].specifier.contains("2.21.0")
    assert {"keras", "numpy", "pyyaml", "typer"} < always.keys()
    unwanted = {"mlxtend", "scipy", "pandas", "scikit-learn", "matplotlib"}
    assert not unwanted & {requirement.name for requirement in requirements}


def test_it_holds_the_shipped_configs_as_the_checkout_has_them(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        prefix = "cnn_trainer/configs/"
        held = {name.removeprefix(prefix): archive.read(name) for name in archive.namelist() if name.startswith(prefix)}
    assert held == CONFIGS


def test_the_source_distribution_builds_the_same_wheel(wheel: Path, tmp_path: Path) -> None:
    done = python("-m", "hatchling", "build", "-t", "sdist", "-d", tmp_path)
    assert done.returncode == 0, done.stderr
    [sdist] = tmp_path.glob("*.tar.gz")
    assert built_wheel(sdist, tmp_path / "again").read_bytes() == wheel.read_bytes()


@pytest.mark.skipif(find_spec("mlxtend") is None, reason="mlxtend, which brings the images, is not installed")
def test_it_prepares_a_training_by_a_config_s_name_in_an_empty_folder(installed: Installation) -> None:
    done = installed("train", "mnist", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "model: cnn, 121,930 parameters" in done.stderr
    assert done.stderr.endswith("next: cnn-train train mnist\n")
    assert list(installed.empty.iterdir()) == []


def test_a_fault_in_a_shipped_config_names_the_installed_file(installed: Installation) -> None:
    done = installed("config", "check", "mnist", "--set", "model.pool_size=10")
    assert done.returncode == 3
    assert f"{installed.site}/cnn_trainer/configs/mnist.yaml:" in done.stderr


def test_a_name_that_is_wrong_is_told_with_those_that_there_are(installed: Installation) -> None:
    done = installed("train", "mnits")
    assert done.returncode == 3
    assert "the shipped configs are fashion-mnist, folder, mnist, " in done.stderr
    assert done.stderr.endswith("; did you mean mnist?\n")


def test_without_network_and_images_the_remedy_says_how_to_install_them(
    installed: Installation, tmp_path: Path
) -> None:
    # A module instead of the package, as if that were not installed: it is not a folder with data.
    (tmp_path / "mlxtend.py").touch()
    done = installed("train", "mnist", "--dry-run", env={"PYTHONPATH": f"{tmp_path}{os.pathsep}{installed.site}"})
    assert done.returncode == 4
    [line] = done.stderr.splitlines()
    assert line.startswith("error: mnist is not at hand; ")
    assert line.endswith("pip install --no-deps mlxtend")
