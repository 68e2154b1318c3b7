"""What holds for the code as a whole, read from its syntax trees."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import cnn_trainer

PACKAGE = Path(cnn_trainer.__file__).parent
MAX_LINES = 350

# The rooms from bottom to top; a module imports only from earlier lines, or from its own room.
LAYERS = [
    {"errors"},
    {"storage"},
    {"config"},
    {"machine"},
    {"runs", "network"},
    {"data"},
    {"evaluation"},
    {"analysis"},
    {"training"},
    {"benchmark", "doctor", "export", "pictures", "seeds"},
    {"serve"},
    {"search"},
    {"report"},
    {"cli"},
    {"__main__"},
]
LEVELS = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}

# Names that mean the same in every module: its Typer application, and the function that a child process runs.
SAME_EVERYWHERE = {"app", "main"}

# The modules that --help, config, runs list and completion load.
LIGHT = {"__main__", "cli", "config", "errors", "runs", "storage"}
NOT_LIGHT = {"cnn_trainer.runs.checkpoint"}  # only training and evaluation load it
HEAVY = {
    "tensorflow",
    "keras",
    "numpy",
    "PIL",
    "h5py",
    "jinja2",
    "mlxtend",
    "optuna",
    "safetensors",
    "sqlalchemy",
    "vl_convert",
}

FORBIDDEN_IMPORTS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
FORBIDDEN_NAMES = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_ATTRIBUTES = {
    "load_model",  # safe_mode=True does not protect: crafted models still ran functions
    "model_from_json",
    "load_weights",
    "unsafe_load",
    "full_load",
    "allow_pickle",
}
FORBIDDEN_CALLS = {
    *(f"yaml.{name}" for name in ("load", "load_all", "dump_all", "full_load", "unsafe_load", "add_constructor")),
    *(f"{numpy}.{name}" for numpy in ("np", "numpy") for name in ("load", "fromfile", "memmap")),
    "os.system",
    "os.popen",
    "tf.saved_model.load",
}
# The parity check's own process runs the files that this program has just written, as their users will.
ALLOWED_USES = {"cnn_trainer.export.parity_process": {"calls tf.saved_model.load", "keras.saving.load_model"}}


def module_name(path: Path) -> str:
    words = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(words[:-1] if words[-1] == "__init__" else words)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}


def room_of(module: str) -> str:
    words = module.split(".")
    return words[1] if len(words) > 1 else ""


def imported(tree: ast.AST, at_module_level: bool = False) -> Iterator[tuple[str, int]]:
    """Every module that ``tree`` imports, absolute, with the line."""
    for node in _statements(tree) if at_module_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"line {node.lineno}: imports are absolute here"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield (name if name in MODULES else str(node.module)), node.lineno


def _statements(tree: ast.AST) -> Iterator[ast.AST]:
    """The statements that an import runs: not the bodies of functions, not what only type checkers read."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from _statements(child)


def upward_imports(name: str, tree: ast.AST) -> list[str]:
    """The imports of a module that do not point downwards."""
    room = room_of(name)
    return [
        f"{name}:{line}: imports {target}"
        for target, line in imported(tree)
        if target.startswith("cnn_trainer.")
        and room_of(target) != room
        and not (room and LEVELS[room_of(target)] < LEVELS[room])
        and name != "cnn_trainer"  # it offers the library, and loads it only on first use
    ]


def forbidden_uses(name: str, tree: ast.AST) -> list[str]:
    """Calls and imports that could run code from a file."""
    found = [
        f"{name}:{line}: imports {target}"
        for target, line in imported(tree)
        if target.partition(".")[0] in FORBIDDEN_IMPORTS
    ]
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in FORBIDDEN_ATTRIBUTES:
            found.append(f"{name}:{node.lineno}: {ast.unparse(node)}")
        if isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{alias.name}": alias.name for alias in node.names}
            found += [
                f"{name}:{node.lineno}: imports {target}"
                for target, last in names.items()
                if last in FORBIDDEN_ATTRIBUTES or target in FORBIDDEN_CALLS
            ]
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        keywords = {keyword.arg: keyword.value for keyword in node.keywords}
        if called in FORBIDDEN_NAMES | FORBIDDEN_CALLS:
            found.append(f"{name}:{node.lineno}: calls {called}")
        if called == "yaml.dump" and "Dumper" not in keywords:
            found.append(f"{name}:{node.lineno}: calls {called} without a safe Dumper")
        found += [
            f"{name}:{node.lineno}: {called} with {option}"
            for option in ("allow_pickle", "shell")
            if option in keywords and ast.unparse(keywords[option]) != "False"
        ]
    return found


@pytest.mark.parametrize("name", MODULES)
def test_every_module_has_a_room(name: str) -> None:
    assert room_of(name) in {"", *LEVELS}, "give it a line in LAYERS, and in the design"


def public_names(tree: ast.Module) -> Iterator[str]:
    """The functions, classes, constants and aliases that a module defines for others."""
    for node in tree.body:
        names: list[str] = []
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names = [node.name]
        elif isinstance(node, ast.Assign):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names = [node.target.id]
        yield from (name for name in names if not name.startswith("_"))


def named_twice(trees: dict[str, ast.Module]) -> dict[str, list[str]]:
    """Every public name that more than one module defines, with the modules."""
    found: dict[str, list[str]] = {}
    for module, tree in trees.items():
        for name in public_names(tree):
            found.setdefault(name, []).append(module)
    return {name: modules for name, modules in found.items() if len(modules) > 1 and name not in SAME_EVERYWHERE}


def test_one_name_is_one_thing() -> None:
    assert not named_twice(TREES)


def test_a_name_that_stands_for_two_things_is_found() -> None:
    trees = {"a": ast.parse("class Progress: ..."), "b": ast.parse("Progress = float"), "c": ast.parse("_Progress = 1")}
    assert named_twice(trees) == {"Progress": ["a", "b"]}


def test_an_experiment_is_changed_only_by_the_function_that_checks_it() -> None:
    """pydantic's model_copy(update=...) checks nothing."""
    found = [
        f"{name}:{node.lineno}"
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "model_copy"
    ]
    assert not found


def test_every_room_in_the_list_is_there() -> None:
    assert {room_of(name) for name in MODULES} >= LEVELS.keys()


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_downwards(name: str) -> None:
    assert not upward_imports(name, TREES[name])


@pytest.mark.parametrize("source", ["from cnn_trainer import training", "def f():\n    import cnn_trainer.cli.config"])
def test_an_upward_import_is_found(source: str) -> None:
    assert upward_imports("cnn_trainer.network.rewrite", ast.parse(source))


def loaded_by(start: list[str]) -> dict[str, str]:
    """Every module of the package that importing ``start`` loads, with the module that imports it first."""
    reached = dict.fromkeys(start, "")
    waiting = list(start)
    while waiting:
        name = waiting.pop()
        for target, _ in imported(TREES[name], at_module_level=True):
            words = target.split(".")
            for module in (".".join(words[:length]) for length in range(1, len(words) + 1)):
                if module in MODULES and module not in reached:
                    reached[module] = name
                    waiting.append(module)
    return reached


def test_what_help_and_config_and_runs_list_load_imports_nothing_heavy() -> None:
    light = [name for name in MODULES if room_of(name) in LIGHT and name not in NOT_LIGHT]
    heavy = [
        f"{name}:{line} (loaded by {loader or 'the command line'}): imports {target}"
        for name, loader in loaded_by(light).items()
        for target, line in imported(TREES[name], at_module_level=True)
        if target.partition(".")[0] in HEAVY
    ]
    assert not heavy


def test_a_heavy_import_would_be_found_through_the_modules_between() -> None:
    """The same search from the training room does find TensorFlow, so an empty result means something."""
    reached = loaded_by(["cnn_trainer.network.build"])
    assert "cnn_trainer.config.schema.section" in reached
    assert any(target == "keras" for name in reached for target, _ in imported(TREES[name], at_module_level=True))


@pytest.mark.parametrize("name", MODULES)
def test_a_file_can_be_read_in_one_sitting(name: str) -> None:
    assert len(MODULES[name].read_text(encoding="utf-8").splitlines()) <= MAX_LINES


@pytest.mark.parametrize("name", MODULES)
def test_nothing_is_called_that_could_run_what_a_file_brings(name: str) -> None:
    found = {use.partition(": ")[2] for use in forbidden_uses(name, TREES[name])}
    assert found == (ALLOWED_USES[name] if name in ALLOWED_USES else set())


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "def f():\n    import joblib.numpy_pickle",
        "import yaml\nyaml.load('a', yaml.Loader)",
        "import yaml\nyaml.dump([1])",
        "from yaml import load",
        "import numpy as np\nnp.load('a.npz')",
        "from numpy import load",
        "np.lib.format.read_array(file, allow_pickle=True)",
        "keras.models.load_model('model.keras', safe_mode=True)",
        "from keras.models import load_model",
        "load = keras.saving.load_model",
        "model.load_weights('a.weights.h5')",
        "eval('1')",
        "exec('a = 1')",
        "subprocess.run('ls', shell=True)",
    ],
)
def test_a_forbidden_use_is_found(source: str) -> None:
    assert forbidden_uses("cnn_trainer.example", ast.parse(source))
