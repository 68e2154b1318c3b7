"""The model that is served: chosen from an export, checked, and run so that no request waits long."""

import asyncio
import os
import shlex
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from cnn_trainer.errors import RunDirectoryError, count
from cnn_trainer.export import folder, runtimes
from cnn_trainer.export.manifest import EXPORT_DIR, MANIFEST_FILE, ExportedModel, Format, Manifest
from cnn_trainer.runs.paths import RECORD_FILE, resolve_run
from cnn_trainer.serve.limits import stopping

VERSION: Final = "1"
"""The only version of the model, as in the exported SavedModel."""

_SERVED: Final[tuple[Format, ...]] = ("onnx", "litert", "litert-float16", "litert-int8")
"""In order of preference: the first one that an export holds is served."""

_CHUNK_VALUES = 100_000  # per call of the network: 127 images of MNIST, some 5 ms and 15 MB of activations
_AT_ONCE_VALUES = 8_000  # computed in the event loop: handing ten images of MNIST to the thread takes as long

Worked = TypeVar("Worked")
_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Served:
    """A loaded model. The network is in one thread at a time, and so is all work that takes longer."""

    manifest: Manifest
    exported: ExportedModel
    runtime: str  # name and version
    compute: runtimes.Predict
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _worker: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "predict"))
    _stopped: threading.Event = field(default_factory=threading.Event)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels."""
        height, width, channels = self.manifest.data.image_shape
        return height, width, channels

    @property
    def num_classes(self) -> int:
        """As many as probabilities."""
        return len(self.manifest.data.class_names)

    async def predict(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probabilities (batch, classes) of uint8 images (batch, height, width, channels), a batch of 1 or more."""
        if images.size <= _AT_ONCE_VALUES and self._lock.acquire(blocking=False):
            try:
                return self.compute(images)
            finally:
                self._lock.release()
        return await self.in_worker(self._compute_all, images)

    async def in_worker(self, work: Callable[..., Worked], *arguments: object) -> Worked:
        """Run work of more than a millisecond in the worker thread, so that the event loop is not blocked."""
        return await asyncio.get_running_loop().run_in_executor(self._worker, work, *arguments)

    def while_running(self, items: Iterable[_Item]) -> Iterator[_Item]:
        """Yield the items of long work. Raises RefusedError instead of the next one once the model is closed."""
        for item in items:
            if self._stopped.is_set():
                raise stopping()
            yield item

    def close(self) -> None:
        """Start no further work, and let the worker stop at its next item."""
        self._stopped.set()
        self._worker.shutdown(wait=False, cancel_futures=True)

    def _compute_all(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """In pieces, so that memory is bounded and the lock is never held for long."""
        size = max(1, _CHUNK_VALUES // images[0].size)
        parts = []
        for start in self.while_running(range(0, len(images), size)):
            with self._lock:
                parts.append(self.compute(images[start : start + size]))
        return np.concatenate(parts)


def find_export(text: str, runs_dir: Path) -> Path:
    """The folder of the export that ``text`` means: the folder itself, or a run as ``resolve_run`` takes it.

    Raises RunDirectoryError if there is none, with the command that makes one.
    """
    place = Path(text)
    if os.path.lexists(place / MANIFEST_FILE):
        return place
    if place.is_dir() and not any(os.path.lexists(folder / RECORD_FILE) for folder in (place, runs_dir / text)):
        problem = f"is neither an export (it has no {MANIFEST_FILE}) nor a run (it has no {RECORD_FILE})"
        raise RunDirectoryError(problem, place=place, remedy="see: cnn-train runs list")
    run_dir = resolve_run(text, runs_dir)
    export_dir = run_dir / EXPORT_DIR
    if not os.path.lexists(export_dir / MANIFEST_FILE):
        command = shlex.join(["cnn-train", "export", str(run_dir), "--format", "onnx"])
        raise RunDirectoryError("has no export yet", place=run_dir, remedy=f"make one with: {command}")
    return export_dir


def open_export(export_dir: Path) -> Served:
    """Load the model of an export: ONNX, or else LiteRT. It is tried on one image.

    Raises:
        RunDirectoryError: if there is no such export, or it differs from its manifest.
        DeviceError: if the model's runtime is not installed.
    """
    manifest = folder.read(export_dir)
    name = next((name for name in _SERVED if name in manifest.models), None)
    if name is None:
        problem = f"has none of the formats that can be served: {', '.join(_SERVED)}"
        remedy = f"make one with: cnn-train export {manifest.run} --format onnx"
        raise RunDirectoryError(problem, place=export_dir, remedy=remedy)
    exported = manifest.models[name]
    path = export_dir / exported.path
    compute = runtimes.load(path, name, threads=1, content=folder.read_verified(export_dir, exported))
    served = Served(manifest, exported, runtimes.version(name), compute)
    found = compute(np.zeros((1, *served.image_shape), np.uint8)).shape
    if found != (1, served.num_classes):
        problem = f"gives probabilities of shape {found} for {count(served.num_classes, 'class', 'classes')}"
        raise RunDirectoryError(problem, place=path, remedy="export the run again with: cnn-train export RUN")
    return served
