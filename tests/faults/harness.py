"""What the fault tests share: processes to kill, small runs, and the parts of a run that must agree bit for bit."""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path(__file__).parent
PROGRAM = Path(sys.executable).parent / "cnn-train"
FULL = "CNN_TRAIN_SOAK" in os.environ  # the full form: hundreds of faults instead of tens
TIMING = ("images_per_second", "seconds")  # keys of metrics.jsonl that differ between any two runs

# Everything that has state: Dropout, augmentation, moving averages, momenta, early stopping, a best epoch.
EVERYTHING = """
name: faults
seed: 7
data: {source: mnist-5k, validation_fraction: 0.1}
model: {builder: cnn, filters: [4], dense_units: [8], dropout: 0.3}
training:
  epochs: EPOCHS
  batch_size: 100
  learning_rate: 0.01
  ema_decay: 0.9
  schedule: {name: exponential, factor: 0.8}
  augmentation: {shift_pixels: 2, rotation_radians: 0.2}
  early_stopping: {patience: 3, min_delta: 0.02}
runtime: {device: cpu, towers: 1, intra_op_threads: 1, inter_op_threads: 1, checkpoint_seconds: 1}
"""


def quick_or_full(quick: int, full: int) -> int:
    """How many faults to inject."""
    return full if FULL else quick


def write_config(folder: Path, epochs: int = 6, *changes: tuple[str, str]) -> Path:
    """Write an experiment with everything in it, after some changes to its text."""
    text = EVERYTHING.replace("EPOCHS", str(epochs))
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = folder / "faults.yaml"
    path.write_text(text)
    return path


class Child:
    """One process of the zygote."""

    def __init__(self, pid: int, streams: Path) -> None:
        self.pid, self.code = pid, None
        self._streams, self.ended = streams, threading.Event()

    @property
    def stderr(self) -> str:
        return (self._streams / "stderr").read_text(errors="replace")

    @property
    def stdout(self) -> str:
        return (self._streams / "stdout").read_text(errors="replace")

    def signal(self, number: int) -> None:
        if not self.ended.is_set():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def wait(self, seconds: float = 120) -> int:
        """Its exit code, minus the number of the signal that killed it; it is killed after ``seconds``."""
        if not self.ended.wait(seconds):
            self.signal(signal.SIGKILL)
            raise AssertionError(f"still running after {seconds} s:\n{self.stderr}")
        return self.code


class Zygote:
    """Starts processes that have already imported everything; see zygote.py."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp())
        command = ["nice", sys.executable, FOLDER / "zygote.py"]
        environment = {**os.environ, "TMPDIR": str(self._folder)}
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, env=environment)
        self._children: dict[int, Child] = {}
        self._born: list[Child] = []
        self._birth = threading.Semaphore(0)
        self._streams = self._folder
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for line in self._process.stdout:
            answer = json.loads(line)
            if "code" in answer:
                child = self._children[answer["pid"]]
                child.code = answer["code"]
                child.ended.set()
            else:
                child = self._children[answer["pid"]] = Child(answer["pid"], self._streams)
                self._born.append(child)
                self._birth.release()

    def start(self, *argv: object, cwd: Path | str = "/", env: dict[str, str] | None = None, **more: object) -> Child:
        """Start ``cnn-train argv``, or, with ``call``, a function of a Python file."""
        self._streams = Path(tempfile.mkdtemp(dir=self._folder))
        for name in ("stdout", "stderr"):
            (self._streams / name).touch()
        streams = ["/dev/null", *(str(self._streams / name) for name in ("stdout", "stderr"))]
        request = {"argv": [*map(str, argv)], "cwd": str(cwd), "streams": streams, **more}
        request["env"] = {**os.environ, "TMPDIR": str(self._folder)} if env is None else env
        self._process.stdin.write(f"{json.dumps(request)}\n".encode())
        self._process.stdin.flush()
        assert self._birth.acquire(timeout=60), "the zygote does not answer"
        return self._born.pop()

    def run(self, *argv: object, code: int = 0, **more: object) -> Child:
        """Run ``cnn-train argv`` to its end; it must exit with ``code`` and without a traceback."""
        child = self.start(*argv, **more)
        assert child.wait() == code, child.stderr
        assert "Traceback" not in child.stderr
        return child

    def start_call(self, function: str, *arguments: object, file: str = "children.py", **more: object) -> Child:
        """Start a function of a file next to this one, usually children.py, in its own process."""
        return self.start(call=[str(FOLDER / file), function, [*map(str, arguments)]], **more)

    def call(self, function: str, *arguments: object, file: str = "children.py") -> Child:
        """Call such a function; it must succeed."""
        child = self.start_call(function, *arguments, file=file)
        assert child.wait() == 0, child.stderr
        return child

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        shutil.rmtree(self._folder)


def only_run(runs_dir: Path) -> Path:
    """The one run under ``runs_dir``."""
    [run_dir] = [path for path in runs_dir.iterdir() if path.is_dir()]
    return run_dir


def read_json(path: Path) -> dict:
    return json.loads(path.read_text())


def fingerprint(run_dir: Path) -> dict[str, object]:
    """The parts of a finished run that must not depend on when it was cut or how fast it was."""
    record = read_json(run_dir / "run.json")
    evaluation = read_json(run_dir / "evaluation.json")
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return {
        "status": record["status"],
        "weights_sha256": record["weights_sha256"],
        "epochs_done": record["epochs_done"],
        "best_epoch": record["best_epoch"],
        "weights": hashlib.sha256((run_dir / "weights.safetensors").read_bytes()).hexdigest(),
        "predictions": hashlib.sha256((run_dir / "predictions.csv").read_bytes()).hexdigest(),
        "metrics": [{key: value for key, value in line.items() if key not in TIMING} for line in lines],
        "evaluation": {key: value for key, value in evaluation.items() if key != "evaluated_at"},
    }


def assert_nothing_left_over(run_dir: Path) -> None:
    """No temporary file of a killed writer; two checkpoints, or three if the last removal was cut off."""
    assert not list(run_dir.rglob(".tmp-*"))
    assert len([*(run_dir / "checkpoints").iterdir()]) <= 3


def wait_until(condition, seconds: float = 60) -> None:
    """Wait for ``condition()`` to hold."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.002)


@contextlib.contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[Path]:
    """A tmpfs of this many kilobytes at ``folder``; skips the test if this process may not mount."""
    import pytest

    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False) if shutil.which("mount") else None
    if done is None or done.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {done.stderr.strip() if done else 'there is no mount'}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
