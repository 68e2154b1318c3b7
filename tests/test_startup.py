"""What help, config and completion load. (How long they take depends on the machine, so no test asserts that.)"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CONFIG = Path(__file__).parents[1] / "configs" / "mnist.yaml"
HEAVY = {
    "onnxruntime",
    "optuna",
    "tensorflow",
    "keras",
    "numpy",
    "PIL",
    "h5py",
    "mlxtend",
    "safetensors",
    "granian",
    "sqlalchemy",
    "starlette",
}

# Runs the command line as the entry point does, and then prints on the last line what it has loaded.
PROGRAM = """
import sys
from cnn_trainer.__main__ import main
try:
    main()
except SystemExit as end:
    code = end.code
print("\\nLOADED", code, *sorted({name.partition(".")[0] for name in sys.modules}))
"""


def loaded(*words: str, folder: Path, **environment: str) -> tuple[str, set[str]]:
    """Exit code and the packages that were loaded."""
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    marker, code, *packages = run.stdout.splitlines()[-1].split()
    assert marker == "LOADED"
    return code, set(packages)


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["--version"],
        ["config", "--help"],
        ["config", "check", str(CONFIG)],
        ["config", "show", str(CONFIG)],
        ["config", "schema"],
        ["config", "init"],
        ["search", "--help"],
        ["search", "start", "--help"],
        ["search", "list"],
    ],
    ids=" ".join,
)
def test_light_commands_load_nothing_heavy(words: list[str], tmp_path: Path) -> None:
    code, packages = loaded(*words, folder=tmp_path)
    assert code == "0"
    assert "typer" in packages
    assert not packages & HEAVY
    assert "rich" not in packages, "for a pipe nothing is framed or coloured"


@pytest.mark.parametrize("command", ["compare", "rank"])
def test_comparisons_load_no_tensorflow(command: str, finished_run: Path, run_copy: Path, tmp_path: Path) -> None:
    config = run_copy / "config.yaml"
    config.write_text(config.read_text().replace("epochs: 2", "epochs: 3"))
    code, packages = loaded("runs", command, str(finished_run), str(run_copy), folder=tmp_path)
    assert code == "0"
    assert "numpy" in packages
    assert not packages & {"tensorflow", "keras", "PIL", "h5py", "optuna", "sqlalchemy"}


def test_completion_loads_nothing_heavy(tmp_path: Path) -> None:
    code, packages = loaded(
        folder=tmp_path, _CNN_TRAIN_COMPLETE="complete_bash", COMP_WORDS="cnn-train config ", COMP_CWORD="2"
    )
    assert code == "0"
    assert "typer" in packages
    assert not packages & HEAVY


def test_help_does_not_load_the_schema(tmp_path: Path) -> None:
    assert "yaml" not in loaded("--help", folder=tmp_path)[1]
