"""Everything around the program: locks, make targets, the container, the check script."""

import inspect
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement

import cnn_trainer
from cnn_trainer.cli import serve

ROOT = Path(__file__).resolve().parents[1]
LOCKS = ("cpu", "gpu", "serve", "dev")
NOT_SERVING = {"keras", "optuna", "plotille", "tensorflow"}  # the project requires them, but serving does not
LOCKED_LINE = re.compile(
    r"(?P<name>[a-z0-9-]+)==(?P<version>[0-9][0-9a-z.+!]*)"
    r"( ; (?P<marker>[a-z_0-9'.<>=!() ]+))?"
    r"(?P<hashes>( --hash=sha256:[0-9a-f]{64})+)",
    re.IGNORECASE,
)


def locked_lines(lock: str) -> list[str]:
    text = (ROOT / "requirements" / f"{lock}.txt").read_text(encoding="utf-8").replace("\\\n", "")
    lines = (re.sub(r"\s+", " ", line) for line in text.splitlines() if not line.startswith("#"))
    return [line.strip() for line in lines if line.strip()]


def locked_versions(lock: str) -> dict[str, str]:
    matches = (LOCKED_LINE.fullmatch(line) for line in locked_lines(lock))
    return {match["name"]: match["version"] for match in matches if match}


def pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def wanted(lock: str) -> list[str]:
    """The requirements of pyproject.toml that a lock must hold."""
    content = pyproject()
    groups = content["dependency-groups"]
    if lock == "dev":
        return list(groups["dev"])
    project = content["project"]
    extras = project["optional-dependencies"]
    names = [*project["dependencies"], *extras["serve"], *groups["build"]]
    if lock == "serve":
        return [name for name in names if Requirement(name).name not in NOT_SERVING]
    of_device = groups["cpu"] if lock == "cpu" else extras["gpu"]
    return [
        *names,
        *of_device,
        *groups["offline"],
        *extras["onnx"],
        *extras["litert"],
        *extras["report"],
        *extras["storage"],
    ]


def instructions() -> list[str]:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", "")
    return [re.sub(r"\s+", " ", line) for line in text.splitlines() if line.strip() and not line.startswith("#")]


def serving_stage() -> dict[str, str]:
    """The instructions of the stage serve, each once, and the sources of what it copies."""
    lines = instructions()
    start = lines.index("FROM ${BASE_IMAGE} AS serve")
    end = next(place for place in range(start + 1, len(lines)) if lines[place].startswith("FROM "))
    pairs = [line.split(" ", 1) for line in lines[start + 1 : end]]
    copied = [words.split()[0] for name, words in pairs if name == "COPY"]
    return {**dict(pairs), "COPY": " ".join(copied)}


@pytest.mark.parametrize("lock", LOCKS)
def test_every_locked_line_is_one_version_with_hashes_and_nothing_else(lock: str) -> None:
    lines = locked_lines(lock)
    assert len(lines) > 10
    assert [line for line in lines if not LOCKED_LINE.fullmatch(line)] == []


@pytest.mark.parametrize("lock", LOCKS)
def test_no_lock_names_an_address_or_a_path(lock: str) -> None:
    text = (ROOT / "requirements" / f"{lock}.txt").read_text(encoding="utf-8")
    assert [word for word in ("/", "http:", "https:", "--index", "--extra-index", "--find-links") if word in text] == []


@pytest.mark.parametrize("lock", LOCKS)
def test_the_lock_holds_what_the_project_asks_for(lock: str) -> None:
    versions = locked_versions(lock)
    for requirement in map(Requirement, wanted(lock)):
        name = requirement.name.lower().replace("_", "-")
        assert name in versions, f"{name} is not in requirements/{lock}.txt: run make lock"
        assert requirement.specifier.contains(versions[name]), f"{name}: run make lock"


def test_all_locks_agree_on_versions() -> None:
    cpu, *others = map(locked_versions, LOCKS)
    for other in others:
        assert [name for name in cpu.keys() & other.keys() if cpu[name] != other[name]] == []


def test_what_serves_needs_no_tensorflow() -> None:
    assert {"tensorflow", "tensorflow-cpu", "keras", "tf2onnx", "onnx"} & locked_versions("serve").keys() == set()


def test_the_lock_for_cpus_has_one_tensorflow_for_each_machine() -> None:
    matches = (LOCKED_LINE.fullmatch(line) for line in locked_lines("cpu"))
    found = {match["name"]: Marker(match["marker"]) for match in matches if match and "tensorflow" in match["name"]}
    assert found.keys() == {"tensorflow", "tensorflow-cpu"}
    for platform, machine in ("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64"):
        here = {"sys_platform": platform, "platform_machine": machine}
        wanted = "tensorflow-cpu" if machine == "x86_64" else "tensorflow"
        assert [name for name, marker in found.items() if marker.evaluate(here)] == [wanted]


def test_packages_that_nothing_imports_stay_out_of_the_locks() -> None:
    excluded = set(pyproject()["tool"]["uv"]["exclude-dependencies"])
    assert {"scipy", "scikit-learn", "pandas", "matplotlib"} <= excluded
    assert [lock for lock in LOCKS if excluded & locked_versions(lock).keys()] == []


def test_the_build_needs_nothing_that_is_not_locked() -> None:
    content = pyproject()
    assert content["dependency-groups"]["build"] == content["build-system"]["requires"]


def test_the_package_and_the_project_state_the_same_version() -> None:
    assert pyproject()["project"]["version"] == cnn_trainer.__version__


def test_the_image_takes_its_base_from_a_build_argument() -> None:
    first, *others = instructions()
    assert re.fullmatch(r"ARG BASE_IMAGE=python:3\.1[123]-slim-\w+", first)
    stages: set[str] = set()
    for line in others:
        if line.startswith("FROM "):
            _, base, *name = line.split()
            assert base == "${BASE_IMAGE}" or base in stages
            stages.update(name[1:])


def test_the_program_is_process_1_of_the_container() -> None:
    # If a shell started it, it would never get the SIGTERM of `docker stop`.
    assert instructions()[-1] == 'ENTRYPOINT ["cnn-train"]'


def test_the_image_that_is_built_unless_another_is_asked_for_is_the_one_that_trains() -> None:
    last = [line for line in instructions() if line.startswith("FROM ")][-1]
    assert last == "FROM ${BASE_IMAGE}"


def test_the_serving_image_has_no_tensorflow_no_root_and_a_health_check() -> None:
    stage = serving_stage()
    assert stage["COPY"] == "--from=serve-dependencies --from=package"
    assert int(stage["USER"].split(":")[0]) > 0
    port = inspect.signature(serve.serve).parameters["port"].default
    assert stage["EXPOSE"] == str(port)
    assert f"http://127.0.0.1:{port}/v2/health/ready" in stage["HEALTHCHECK"]
    assert stage["ENTRYPOINT"] == '["cnn-train", "serve", "--host", "0.0.0.0"]'


def test_what_the_image_copies_is_not_ignored() -> None:
    patterns = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    let_in = {pattern.removeprefix("!") for pattern in patterns if pattern.startswith("!")}
    copies = [line.split()[1:-1] for line in instructions() if line.startswith("COPY ") and "--from" not in line]
    assert {source.split("/")[0] for sources in copies for source in sources} == let_in
    assert [name for name in let_in if not (ROOT / name).exists()] == []


@pytest.mark.skipif(not shutil.which("make"), reason="make is not installed")
def test_make_help_lists_every_target() -> None:
    phony = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert phony is not None
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True, env=plain_env())
    listed = {line.split()[1] for line in shown.stdout.splitlines() if line.startswith("  make ")}
    assert listed == set(phony[1].split()) - {"anew"}  # anew makes nothing; it marks .venv as out of date


def plain_env() -> dict[str, str]:
    """The environment without the variables that an outer make passes to an inner one."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}


@pytest.mark.skipif(not shutil.which("bash"), reason="bash is not installed")
@pytest.mark.parametrize("status", [0, 3])
def test_the_check_script_runs_make_test_and_ends_with_its_exit_code(tmp_path: Path, status: int) -> None:
    make = tmp_path / "make"
    make.write_text(f'#!/bin/sh\necho "make $* in $(pwd -P) CI=$CI"\nexit {status}\n', encoding="utf-8")
    make.chmod(0o755)
    env = plain_env() | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run([ROOT / ".ci" / "run"], cwd=tmp_path, capture_output=True, text=True, check=False, env=env)
    assert done.stdout == f"make test in {ROOT} CI=true\n"
    assert done.returncode == status
