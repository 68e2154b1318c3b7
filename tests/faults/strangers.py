"""Run directories made by a stranger: each function spoils one copy of a finished run, and its name says how."""

import io
import json
import os
import shutil
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cnn_trainer.runs import checkpoint
from cnn_trainer.runs.checkpoint import Checkpoint
from cnn_trainer.storage import strict_json

CANARY = "canary"  # a file that is created if any code of the stranger runs


class Payload:
    """An object that creates a file when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / CANARY

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


def pickled(folder: Path) -> bytes:
    import pickle

    return pickle.dumps(Payload(folder))


def change_record(run_dir: Path, **changes: object) -> None:
    path = run_dir / "run.json"
    record = json.loads(path.read_text())
    data = {key: changes.pop(key) for key in [*changes] if key in record["data"]}
    path.write_text(json.dumps({**record, **changes, "data": {**record["data"], **data}}))


def change_config(run_dir: Path, old: str, new: str) -> None:
    path = run_dir / "config.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def change_state(run_dir: Path, **changes: object) -> None:
    """Write the newest checkpoint again, with another state and the right digest."""
    for path in checkpoint.checkpoint_paths(run_dir / "checkpoints"):
        data = path.read_bytes()
        header = strict_json.parse_json(data[8 : 8 + int.from_bytes(data[:8], "little")])
        metadata = json.loads(header.pop("__metadata__")["checkpoint"])
        types = {"F32": np.float32, "I32": np.int32, "I64": np.int64, "U32": np.uint32}
        expected = {name: (np.dtype(types[it["dtype"]]), tuple(it["shape"])) for name, it in header.items()}
        arrays = checkpoint.decode(data, expected).arrays
        path.write_bytes(checkpoint.encode(Checkpoint(arrays, {**metadata["state"], **changes})))


def lambda_layer(run_dir: Path, outside: Path) -> None:
    code = f"__import__('os').mkdir({str(outside / CANARY)!r})"
    layer = {"class_name": "Lambda", "config": {"name": "x", "function": code}}
    with zipfile.ZipFile(run_dir / "model.keras", "w") as file:
        file.writestr("config.json", json.dumps({"class_name": "Sequential", "config": {"layers": [layer]}}))


def pickles(run_dir: Path, outside: Path) -> None:
    for path in [run_dir / "weights.safetensors", run_dir / "model.keras", *(run_dir / "checkpoints").iterdir()]:
        path.write_bytes(pickled(outside))


def pickled_arrays_as_data(run_dir: Path, outside: Path) -> None:
    payload = np.array([Payload(outside)], object)
    file = io.BytesIO()
    np.savez(file, x_train=payload, y_train=payload, x_test=payload, y_test=payload)
    (run_dir / "data.npz").write_bytes(file.getvalue())
    change_config(run_dir, "source: mnist-5k", f"source: npz\n  path: {run_dir / 'data.npz'}")


def link(name: str) -> Callable[[Path, Path], None]:
    def spoil(run_dir: Path, outside: Path) -> None:
        path = run_dir / name
        if path.exists():
            shutil.move(path, outside / "linked")
        else:
            (outside / "linked").write_text("precious")
        path.symlink_to(outside / "linked")

    return spoil


def hard_linked_lock(run_dir: Path, outside: Path) -> None:
    (outside / "precious").write_text("precious")
    (run_dir / ".lock").unlink(missing_ok=True)
    (run_dir / ".lock").hardlink_to(outside / "precious")


def climbing_names(run_dir: Path, outside: Path) -> None:
    change_record(run_dir, name="../../outside/x", error="\x1b[2J../../outside")
    data = checkpoint.encode(Checkpoint({"../../../outside/x": np.zeros(3, np.float32)}, {}))
    for path in (run_dir / "checkpoints").iterdir():
        path.write_bytes(data)
    (run_dir / "weights.safetensors").write_bytes(data)


def huge_header(run_dir: Path, outside: Path) -> None:
    header = {"faults/conv_1/kernel": {"dtype": "F32", "shape": [2**40, 2**20], "data_offsets": [0, 2**62]}}
    text = json.dumps({**header, "__metadata__": {"checkpoint": "{}"}}).encode()
    for path in [run_dir / "weights.safetensors", *(run_dir / "checkpoints").iterdir()]:
        path.write_bytes(len(text).to_bytes(8, "little") + text)


def sparse(name: str) -> Callable[[Path, Path], None]:
    def spoil(run_dir: Path, outside: Path) -> None:
        for path in run_dir.glob(name):
            os.truncate(path, 2**36)

    return spoil


def pipe(name: str) -> Callable[[Path, Path], None]:
    def spoil(run_dir: Path, outside: Path) -> None:
        (run_dir / name).unlink(missing_ok=True)
        os.mkfifo(run_dir / name)

    return spoil


def config_of(old: str, new: str) -> Callable[[Path, Path], None]:
    return lambda run_dir, outside: change_config(run_dir, old, new)


def record_of(**changes: object) -> Callable[[Path, Path], None]:
    return lambda run_dir, outside: change_record(run_dir, **changes)


def state_of(**changes: object) -> Callable[[Path, Path], None]:
    return lambda run_dir, outside: change_state(run_dir, **changes)


def evaluation_of(text: str) -> Callable[[Path, Path], None]:
    return lambda run_dir, outside: (run_dir / "evaluation.json").write_text(text) and None


DENSE = "dense_units:\n  - 8"
STRANGERS: dict[str, Callable[[Path, Path], None]] = {
    "a model.keras with a lambda layer": lambda_layer,
    "pickles in place of every file of arrays": pickles,
    "data of pickled arrays": pickled_arrays_as_data,
    "a config with another path, of a device": config_of("source: mnist-5k", "source: npz\n  path: /dev/zero"),
    "a config with another path, of this program": config_of("source: mnist-5k", f"source: npz\n  path: {__file__}"),
    **{
        f"a link for {name}": link(name)
        for name in ("weights.safetensors", "model.keras", "checkpoints", "config.yaml")
    },
    **{f"a link for {name}": link(name) for name in ("metrics.jsonl", "run.json", "evaluation.json", ".lock")},
    **{
        f"a link for {name}": link(name)
        for name in ("predictions.csv", "probabilities.safetensors", ".tmp-run.json-1-00000000")
    },
    "a lock that is another name of a file": hard_linked_lock,
    "names that climb": climbing_names,
    "headers of huge shapes": huge_header,
    "a huge dense layer": config_of(DENSE, "dense_units:\n  - 65536\n  - 65536"),
    "sixteen huge dense layers": config_of(DENSE, "dense_units:\n" + "  - 65536\n" * 15 + "  - 65536"),
    "a huge convolution": config_of("filters:\n  - 4", "filters:\n  - 65536"),
    "a wide network": config_of(DENSE, "dense_units:\n  - 65536\n  - 3000"),
    "huge images": record_of(image_shape=[60000, 60000, 3]),
    "images of no size": record_of(image_shape=[0, 28, 1]),
    "a hundred thousand classes": record_of(class_names=["a"] * 100_000),
    "a million classes": record_of(class_names=[""] * 1_000_000),
    "more classes than there are": record_of(class_names=[str(number) for number in range(900)]),
    "a digest that is none": record_of(weights_sha256="../../x"),
    "a deep evaluation": evaluation_of("[" * 100_000),
    "an evaluation of nonsense": evaluation_of('{"split": "test", "accuracy": [1e999]}'),
    **{f"a sparse file of 64 GB for {name}": sparse(name) for name in ("run.json", "config.yaml", "metrics.jsonl")},
    **{f"a sparse file of 64 GB for {name}": sparse(name) for name in ("weights.safetensors", "checkpoints/*")},
    **{f"a pipe for {name}": pipe(name) for name in ("run.json", "config.yaml", ".lock", "weights.safetensors")},
}
STATES: dict[str, dict[str, object]] = {
    "a negative epoch": {"epoch": -1},
    "an epoch beyond the last": {"epoch": 100},
    "an epoch without history": {"epoch": 1},
    "a negative step": {"step": -5},
    "a step beyond the epoch": {"step": 37},
    "a step without sums": {"step": 3},
    "a step of 10**19": {"step": 10**19},
    "lists for numbers": {"epoch": [1], "step": []},
    "true for a number": {"epoch": True},
    "a fraction of a step": {"step": 0.5},
    "a text for a sum": {"sums": {"loss": "x", "correct": 0, "examples": 0}},
    "sums of other names": {"sums": {"loss": 0.0, "correct": 0, "examples": 0, "more": 1}},
    "no sums": {"sums": None},
    "an epoch that was not, as the best": {"best_epoch": 99},
    "a best loss that was not": {"best_loss": -1e300},
    "no best epoch": {"best_epoch": None, "best_loss": None},
    "a lowest epoch of 0": {"lowest_epoch": 0},
    "a history of nonsense": {"history": [{}]},
    "a history of numbers": {"history": [1, 2]},
    "a key of its own": {"__class__": "x"},
}
for name, changes in STATES.items():
    STRANGERS[f"a state with {name}"] = state_of(**changes)


COMMANDS = ["runs", "show"], ["evaluate"], ["resume"]


def meet(reference: str, place: str) -> None:
    """Show, evaluate and resume every stranger's run in this one process; report how each ended, and the memory."""
    import resource

    from cnn_trainer.__main__ import _exit_code

    report, sane = {}, None
    for name, spoil in {"nothing wrong": lambda *_: None, **STRANGERS}.items():
        folder = Path(place, name.replace("/", " ").replace("*", "all"))
        run_dir, outside = folder / "run", folder / "outside"
        shutil.copytree(reference, run_dir)
        outside.mkdir()
        change_record(run_dir, status="interrupted")
        if name.startswith(("nothing", "a link", "a state")):  # so that something is left to train and to write
            change_config(run_dir, "epochs: 3\n", "epochs: 4\n")
        spoil(run_dir, outside)
        before = snapshot(outside)
        codes, began = [], time.monotonic()
        for command in COMMANDS[2:] if name.startswith("a state") else COMMANDS:
            sys.argv = ["cnn-train", *command, str(run_dir)]
            try:
                codes.append(_exit_code())
            except SystemExit as left:
                codes.append(left.code or 0)
        kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        sane = sane or kilobytes
        untouched = snapshot(outside) == before
        sys.stderr.write(f"--- {name}: {codes}, {time.monotonic() - began:.1f} s\n")
        report[name] = {"codes": codes, "untouched": untouched, "more_megabytes": (kilobytes - sane) // 1024}
    sys.stdout.write(json.dumps(report))


def snapshot(folder: Path) -> dict[Path, object]:
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}
