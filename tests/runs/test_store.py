import errno
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cnn_trainer.config.load import load_config
from cnn_trainer.config.schema import Experiment
from cnn_trainer.errors import RunDirectoryError
from cnn_trainer.runs import details, paths, store
from cnn_trainer.runs.records import DataRecord, EpochMetrics, RunRecord
from cnn_trainer.storage import strict_json

EXPERIMENT = Experiment.model_validate(
    {"name": "digits", "seed": 7, "data": {"source": "mnist"}, "model": {"builder": "cnn"}}
)
DATA = DataRecord(
    source="mnist",
    requested="mnist",
    location="/data/é/mnist.npz",
    image_shape=[28, 28, 1],
    class_names=[str(digit) for digit in range(10)],
    num_train=60_000,
    num_validation=0,
    train_sha256="0" * 64,
)
RECORD = RunRecord(
    status="created",
    name="digits",
    seed=7,
    created_at="2026-11-23T22:46:01Z",
    updated_at="2026-11-23T22:46:01Z",
    data=DATA,
    num_parameters=121_930,
    device="cpu",
    towers=1,
    intra_op_threads=1,
    inter_op_threads=1,
    machine={},
    versions={},
    environment={},
)
HOLD = """
import sys, time
from pathlib import Path
from cnn_trainer.runs import store
with store.lock_run(store.open_run(Path(sys.argv[1]))):
    print("held", flush=True)
    time.sleep(60)
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(100 * 2**20)


def epoch(number: int) -> EpochMetrics:
    return EpochMetrics(
        epoch=number,
        step=469 * number,
        train_loss=0.1 / number,
        train_accuracy=0.9,
        learning_rate=0.001,
        images_per_second=1e5 / 3,
        seconds=0.6,
    )


@pytest.fixture
def run(tmp_path):
    return store.create_run(tmp_path / "runs", "digits", EXPERIMENT, RECORD)


def copy_as(run: store.Run, name: str) -> Path:
    return Path(shutil.copytree(run.dir, run.dir.parent / name))


def only_summary(run: store.Run) -> details.RunSummary:
    (summary,) = details.list_runs(run.dir.parent)
    return summary


class TestCreating:
    def test_a_new_run_has_a_config_a_record_and_a_folder_for_checkpoints(self, run):
        assert re.fullmatch(r"\d{8}-\d{6}-digits", run.dir.name)
        assert names(run.dir) == [".lock", "checkpoints", "config.yaml", "run.json"]
        again = store.open_run(run.dir)
        assert again == run
        assert again.experiment == EXPERIMENT
        assert load_config(run.dir / "config.yaml").experiment == EXPERIMENT
        assert (run.dir / "config.yaml").read_text().startswith(f"# The config of the run {run.dir.name}, ")

    def test_runs_of_the_same_second_get_different_directories(self, tmp_path, monkeypatch):
        class Stopped(store.datetime):
            @classmethod
            def now(cls, zone=None):
                return cls(2026, 11, 23, 22, 46, 1, tzinfo=zone)

        monkeypatch.setattr(store, "datetime", Stopped)
        made = [store.create_run(tmp_path, "digits", EXPERIMENT, RECORD).dir.name for _ in range(11)]
        assert made[:3] == ["20261123-224601-digits", "20261123-224601-digits-2", "20261123-224601-digits-3"]
        assert paths.resolve_run("latest", tmp_path).name == "20261123-224601-digits-11"
        assert paths.run_names(tmp_path) == made[::-1]

    @pytest.mark.parametrize("name", ["", "..", "../up", "a/b", "/a", ".hidden", "a b", "a\n", "a\0", "é", "x" * 129])
    def test_a_name_that_is_not_a_plain_file_name_is_refused(self, tmp_path, name):
        with pytest.raises(RunDirectoryError, match="must have at most 128 letters"):
            store.create_run(tmp_path / "runs", name, EXPERIMENT, RECORD)
        assert names(tmp_path) == []

    @pytest.mark.parametrize("call", ["open", "write", "fsync", "rename", "mkdir"])
    def test_a_failure_at_any_call_leaves_nothing_behind(self, tmp_path, monkeypatch, call):
        real, failures = getattr(os, call), 0
        for wanted in range(1, 30):
            calls = iter(range(1, 100))

            def failing(*arguments, wanted=wanted, calls=calls, **options):
                if next(calls) == wanted:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                return real(*arguments, **options)

            with monkeypatch.context() as patch:
                patch.setattr(os, call, failing)
                try:
                    store.create_run(tmp_path / "a" / "runs", "digits", EXPERIMENT, RECORD)
                except RunDirectoryError:
                    failures += 1
                else:
                    break
            assert names(tmp_path) == []
        assert failures >= {"open": 5, "write": 2, "fsync": 5, "rename": 2, "mkdir": 4}[call]

    def test_a_file_instead_of_the_runs_directory_is_reported(self, tmp_path):
        (tmp_path / "runs").write_bytes(b"")
        with pytest.raises(RunDirectoryError, match=r"runs: cannot be created: File exists"):
            store.create_run(tmp_path / "runs", "digits", EXPERIMENT, RECORD)

    def test_the_runs_directory_may_have_any_name(self, tmp_path):
        for name in ("a b\n# é", os.fsdecode(b"\xff\xfe"), "[bold]"):
            run = store.create_run(tmp_path / name, "digits", EXPERIMENT, RECORD)
            assert store.open_run(run.dir) == run
            assert [summary.status for summary in details.list_runs(tmp_path / name)] == ["created"]


class TestRecord:
    def test_changes_are_written_and_times_kept(self, run):
        store.update_record(run, status="training", epochs_done=3)
        assert run.record.status == "training"
        assert run.record.updated_at != RECORD.updated_at
        assert run.record.created_at == RECORD.created_at
        assert store.read_run_record(run.dir) == run.record
        assert (run.dir / "run.json").read_bytes() == strict_json.to_json(run.record)
        assert json.loads((run.dir / "run.json").read_bytes())["data"]["location"] == "/data/é/mnist.npz"

    def test_what_does_not_fit_the_schema_is_not_written(self, run):
        before = (run.dir / "run.json").read_bytes()
        for change in ({"train_seconds": float("nan")}, {"status": "dancing"}, {"unknown": 1}, {"epochs_done": -1}):
            with pytest.raises(ValueError, match="validation error"):
                store.update_record(run, **change)
        assert (run.dir / "run.json").read_bytes() == before
        assert run.record == RECORD

    def test_a_record_that_could_not_be_written_is_not_kept_in_memory(self, run, monkeypatch):
        def full(file, data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            with pytest.raises(RunDirectoryError, match="what was there before is intact"):
                store.update_record(run, status="finished")
        assert run.record == RECORD
        assert store.open_run(run.dir) == run

    def test_a_link_instead_of_a_file_is_not_written_through(self, run, tmp_path):
        outside = tmp_path / "outside"
        outside.write_bytes(b"mine")
        for name in ("run.json", "metrics.jsonl", ".lock"):
            (run.dir / name).unlink(missing_ok=True)
            (run.dir / name).symlink_to(outside)
        with pytest.raises(RunDirectoryError, match=r"\.lock: .*symbolic link"), store.lock_run(run):
            pytest.fail("locked through a link")
        with pytest.raises(RunDirectoryError, match="symbolic link"):
            store.append_metrics(run, epoch(1))
        store.update_record(run, status="training")
        store.rewrite_metrics(run, [epoch(1)])
        assert outside.read_bytes() == b"mine"
        assert store.open_run(run.dir) == run


BROKEN_RECORDS = {
    "missing": (None, "No such file"),
    "empty": (b"", "not valid JSON"),
    "not UTF-8": (b"\xff\xfe\x00", "not UTF-8"),
    "a list": (b"[]", "not a mapping of the known keys"),
    "NaN": (strict_json.to_json(RECORD).replace(b'"train_seconds": 0.0', b'"train_seconds": NaN'), "NaN"),
    "twice": (strict_json.to_json(RECORD).replace(b'"seed": 7', b'"seed": 7, "seed": 8'), "'seed' occurs twice"),
    "unknown key": (strict_json.to_json(RECORD).replace(b'"seed"', b'"s\\u001beed"'), "s..?eed: |seed: field required"),
    "another version": (strict_json.to_json(RECORD).replace(b'_version": 1', b'_version": 2'), "schema_version"),
    "text for a number": (strict_json.to_json(RECORD).replace(b'"seed": 7', b'"seed": "7"'), "seed: input should be"),
    "half a surrogate": (strict_json.to_json(RECORD).replace(b'"digits"', b'"\\ud800"'), "not UTF-8"),
    "a deep list": (b"[" * 100_000, "nested too deeply"),
}  # fmt: skip


def test_a_run_that_cannot_be_locked_on_a_full_disk_is_not_left_behind(tmp_path, monkeypatch):
    def full(path, **_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "touch", full)
    with pytest.raises(RunDirectoryError, match="No space left on device"):
        store.create_run(tmp_path / "runs", "digits", EXPERIMENT, RECORD)
    assert names(tmp_path) == []


class TestOpening:
    @pytest.mark.parametrize("kind", BROKEN_RECORDS)
    def test_a_broken_record_is_named_with_its_fault(self, run, kind):
        data, problem = BROKEN_RECORDS[kind]
        (run.dir / "run.json").unlink()
        if data is not None:
            assert data != strict_json.to_json(RECORD)
            (run.dir / "run.json").write_bytes(data)
        with pytest.raises(RunDirectoryError, match=problem) as raised:
            store.open_run(run.dir)
        assert str(raised.value).startswith(str(run.dir / "run.json"))
        assert only_summary(run).status == "broken"
        assert only_summary(run).reason == str(raised.value)

    def test_a_broken_config_is_named_with_line_and_fault(self, run):
        text = (run.dir / "config.yaml").read_text()
        (run.dir / "config.yaml").write_text(text.replace("epochs: 10", "epochs: ten"))
        with pytest.raises(RunDirectoryError, match=r"config\.yaml:\d+: training\.epochs: got 'ten'"):
            store.open_run(run.dir)
        assert details.read_details(run.dir).summary.status == "broken"

    def test_files_of_other_kinds_are_refused_at_once(self, run):
        for name in ("run.json", "config.yaml"):
            good = (run.dir / name).read_bytes()
            for make, problem in (
                (os.mkfifo, "a pipe"),
                (os.mkdir, "a folder"),
                (lambda path: path.symlink_to(path), "symbolic link"),
                (lambda path: path.symlink_to("/dev/zero"), "symbolic link"),
                (sparse, "is too large"),
            ):
                path = run.dir / name
                path.rmdir() if path.is_dir() else path.unlink()
                make(path)
                started = time.monotonic()
                with pytest.raises(RunDirectoryError, match=rf"{re.escape(name)}: .*{problem}"):
                    store.open_run(run.dir)
                assert details.read_details(run.dir).summary.status == "broken"
                assert time.monotonic() - started < 1
            (run.dir / name).unlink()
            (run.dir / name).write_bytes(good)
        assert store.open_run(run.dir) == run


class TestLock:
    def test_a_second_process_is_refused_within_a_second_and_a_dead_holder_frees_the_run(self, run):
        command = [sys.executable, "-c", HOLD, str(run.dir)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
            try:
                assert holder.stdout is not None
                assert holder.stdout.readline() == "held\n"
                before = content(run.dir)
                started = time.monotonic()
                refused = pytest.raises(RunDirectoryError, match=f": process {holder.pid} is working on this run")
                with refused, store.lock_run(run):
                    pytest.fail("locked twice")
                assert time.monotonic() - started < 1
                assert content(run.dir) == before
                assert store.is_locked(run.dir)
            finally:
                holder.send_signal(signal.SIGKILL)
        assert not store.is_locked(run.dir)
        with store.lock_run(run):
            assert store.is_locked(run.dir)
        assert not store.is_locked(run.dir)

    def test_the_lock_is_held_against_the_same_process_too_and_is_freed_by_an_error(self, run):
        def fails() -> None:
            with store.lock_run(run):
                refused = pytest.raises(RunDirectoryError, match=f"process {os.getpid()} is working on this run")
                with refused, store.lock_run(run):
                    pytest.fail("locked twice")
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fails()
        assert not store.is_locked(run.dir)

    def test_checking_a_lock_does_not_keep_others_from_taking_it(self, run, monkeypatch):
        with store.lock_run(run):
            pass
        file = os.open(run.dir / ".lock", os.O_RDONLY)
        fcntl.flock(file, fcntl.LOCK_SH)  # as is_locked does
        monkeypatch.setattr(store.time, "sleep", lambda seconds: fcntl.flock(file, fcntl.LOCK_UN))
        with store.lock_run(run):
            assert store.is_locked(run.dir)
        os.close(file)

    def test_the_record_is_read_again_and_stray_files_are_removed(self, run):
        other = store.open_run(run.dir)
        store.update_record(other, status="finished")
        for folder in (run.dir, run.dir / "checkpoints"):
            (folder / ".tmp-run.json-1-0123abcd").write_bytes(b"half")
        with store.lock_run(run):
            assert run.record.status == "finished"
        assert names(run.dir) == [".lock", "checkpoints", "config.yaml", "run.json"]
        assert names(run.dir / "checkpoints") == []

    def test_a_full_disk_does_not_keep_a_run_from_being_locked(self, run, monkeypatch):
        def full(*arguments):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "pwrite", full)
        with store.lock_run(run):
            assert store.is_locked(run.dir)

    def test_a_pipe_or_a_vanished_run_is_reported(self, run):
        (run.dir / ".lock").unlink()
        os.mkfifo(run.dir / ".lock")
        with pytest.raises(RunDirectoryError, match="is not a regular file"), store.lock_run(run):
            pytest.fail("locked a pipe")
        shutil.rmtree(run.dir)
        with pytest.raises(RunDirectoryError, match=r"\.lock: cannot be opened: No such file"), store.lock_run(run):
            pytest.fail("locked nothing")


def no_locks(*_):
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


# Another process tries to lock the run, and reports the outcome: 0 for locked, 6 for refused.
TRY = """
import sys
from pathlib import Path
from cnn_trainer.errors import RunDirectoryError
from cnn_trainer.runs import store
store.files.fcntl.flock = lambda *_: (_ for _ in ()).throw(OSError(38, "Function not implemented"))
try:
    with store.lock_run(store.open_run(Path(sys.argv[1]))):
        sys.exit(0)
except RunDirectoryError as error:
    print(error)
    sys.exit(error.exit_code)
"""


class TestWithoutFlock:
    """As on NFS or Lustre, depending on how they are mounted."""

    @pytest.fixture
    def posix(self, monkeypatch):
        monkeypatch.setattr(fcntl, "flock", no_locks)

    @staticmethod
    def tried_elsewhere(run):
        words = [sys.executable, "-c", TRY, str(run.dir)]
        return subprocess.run(words, capture_output=True, text=True, check=False)

    @pytest.mark.filterwarnings("error")
    def test_a_posix_lock_keeps_others_out_until_the_end_of_the_block(self, run, posix):
        with store.lock_run(run):
            for _ in range(2):  # checking the lock must not release it
                assert store.is_locked(run.dir)
                assert only_summary(run).status == "created"
                refused = self.tried_elsewhere(run)
                assert (refused.returncode, refused.stderr) == (6, "")
                assert f"process {os.getpid()} is working on this run" in refused.stdout
        assert self.tried_elsewhere(run).returncode == 0
        assert store.is_locked(run.dir) is False

    def test_the_same_process_cannot_hold_a_run_twice_either(self, run, posix):
        with store.lock_run(run):
            refused = pytest.raises(RunDirectoryError, match=f"process {os.getpid()} is working on this run")
            with refused, store.lock_run(run):
                pytest.fail("locked twice")
            assert self.tried_elsewhere(run).returncode == 6, "and the attempt has not ended the lock"
        with store.lock_run(run):
            pass

    def test_a_lock_that_another_process_holds_is_seen(self, run, posix):
        hold = f"import fcntl\nfcntl.flock = fcntl.lockf\n{HOLD}"
        with subprocess.Popen([sys.executable, "-c", hold, str(run.dir)], stdout=subprocess.PIPE, text=True) as holder:
            assert holder.stdout.readline() == "held\n"
            assert store.is_locked(run.dir)
            refused = pytest.raises(RunDirectoryError, match=f"process {holder.pid} is working on this run")
            with refused, store.lock_run(run):
                pytest.fail("locked twice")
            holder.kill()
        assert store.is_locked(run.dir) is False

    def test_without_any_lock_there_is_a_warning_and_work_continues(self, run, posix, monkeypatch):
        monkeypatch.setattr(fcntl, "lockf", no_locks)
        told = []
        with store.lock_run(run, told.append):
            assert run.record == RECORD
        problem = "the file system cannot lock files (No locks available)"
        remedy = "make sure that no other process works on this run at the same time"
        assert told == [f"{run.dir}: {problem}; {remedy}"]
        with pytest.warns(UserWarning, match="cannot lock files"), store.lock_run(run):
            pass

    def test_without_any_lock_a_run_that_may_still_train_is_not_called_interrupted(self, run, posix, monkeypatch):
        monkeypatch.setattr(fcntl, "lockf", no_locks)
        store.update_record(run, status="training")
        assert store.is_locked(run.dir) is None
        assert only_summary(run).status == "training"
        assert "may have been interrupted" in only_summary(run).reason


class TestMetrics:
    def test_epochs_are_read_as_they_were_appended(self, run):
        assert store.read_metrics(run) == []
        history = [epoch(number) for number in (1, 2, 3)]
        for metrics in history:
            store.append_metrics(run, metrics)
        assert store.read_metrics(run) == history
        assert (run.dir / "metrics.jsonl").read_text().count("\n") == 3
        store.rewrite_metrics(run, history[:2])
        assert store.read_metrics(run) == history[:2]

    def test_a_half_written_last_line_is_dropped_at_every_length(self, run):
        store.rewrite_metrics(run, [epoch(1), epoch(2)])
        path = run.dir / "metrics.jsonl"
        whole = path.read_bytes()
        first = whole.index(b"\n") + 1
        for length in range(first, len(whole)):
            path.write_bytes(whole[:length])
            assert store.read_metrics(run) == [epoch(1)]
        path.write_bytes(whole[:first] + bytes(100))
        store.append_metrics(run, epoch(2))
        assert path.read_bytes() == whole

    @pytest.mark.parametrize("line", [b"", b"{}", b"\xff", b'{"epoch": NaN}', b"[" * 100_000])
    def test_a_wrong_line_is_named(self, run, line):
        store.append_metrics(run, epoch(1))
        with (run.dir / "metrics.jsonl").open("ab") as file:
            file.write(line + b"\n")
        with pytest.raises(RunDirectoryError, match=r"metrics\.jsonl:2: "):
            store.read_metrics(run)

    def test_a_file_beyond_the_bound_is_not_read(self, run):
        with (run.dir / "metrics.jsonl").open("wb") as file:
            file.truncate(store.MAX_METRICS_BYTES + 1)
        with pytest.raises(RunDirectoryError, match="is too large"):
            store.read_metrics(run)


class TestListing:
    def test_a_missing_runs_directory_is_an_empty_list_and_an_unreadable_one_an_error(self, tmp_path):
        assert details.list_runs(tmp_path / "missing") == []
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(RunDirectoryError, match="file: cannot be read: Not a directory"):
            details.list_runs(tmp_path / "file")

    def test_runs_are_listed_newest_first_and_other_things_left_out(self, run):
        for name in ("20200101-000000-old", "99991231-235959-new", "mine"):
            copy_as(run, name)
        (run.dir.parent / "notes").mkdir()
        (run.dir.parent / "20200101-000000-file").write_bytes(b"")
        (run.dir.parent / "20200101-000000-empty").mkdir()
        (run.dir.parent / "20200101-000000-loop").symlink_to("20200101-000000-loop")
        (run.dir.parent / "20200101-000000-link").symlink_to(run.dir)
        shown = {summary.name: summary.status for summary in details.list_runs(run.dir.parent)}
        assert shown == {
            "99991231-235959-new": "created",
            run.dir.name: "created",
            "20200101-000000-empty": "broken",
            "20200101-000000-loop": "broken",
            "20200101-000000-link": "broken",
            "20200101-000000-old": "created",
            "mine": "created",
        }
        assert list(shown)[:2] == ["99991231-235959-new", run.dir.name]
        assert list(shown)[-1] == "mine"

    def test_a_run_whose_process_died_is_interrupted(self, run):
        with store.lock_run(run):
            store.update_record(run, status="training")
            assert only_summary(run).status == "training"
            assert only_summary(run).reason is None
        summary = only_summary(run)
        assert summary.status == "interrupted"
        assert summary.reason is not None
        assert summary.reason.endswith(f"cnn-train resume {run.dir.name}")

    def test_a_run_that_finishes_while_it_is_read_is_finished(self, run, monkeypatch):
        store.update_record(run, status="training")

        def finishes(run_dir):
            store.update_record(run, status="finished")
            return False

        monkeypatch.setattr(store, "is_locked", finishes)
        assert only_summary(run).status == "finished"

    def test_a_failure_shows_its_reason(self, run):
        store.update_record(run, status="failed", error="disk full")
        assert only_summary(run).reason == "disk full"

    @pytest.mark.parametrize(
        ("text", "accuracy"),
        [
            ('{"split": "test", "accuracy": 0.9903, "loss": 0.03}', 0.9903),
            ('{"split": "test", "accuracy": 1}', 1.0),
            ('{"split": "validation", "accuracy": 0.9}', None),
            ('{"split": "test", "accuracy": true}', None),
            ('{"split": "test", "accuracy": 1.5}', None),
            ('{"split": "test", "accuracy": "0.9"}', None),
            ('{"split": "test", "accuracy": NaN}', None),
            ('{"accuracy": 0.9}', None),
            ("[]", None),
            ("", None),
        ],
    )
    def test_test_accuracy_comes_from_a_valid_evaluation_on_the_test_split(self, run, text, accuracy):
        assert only_summary(run).test_accuracy is None
        (run.dir / "evaluation.json").write_text(text)
        assert only_summary(run).test_accuracy == accuracy
        assert only_summary(run).status == "created"

    @settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        name=st.sampled_from(["run.json", "config.yaml", "evaluation.json", "metrics.jsonl", ".lock"]),
        junk=st.binary(max_size=40),
        share=st.floats(0, 1),
        whole=st.booleans(),
    )
    def test_a_run_is_listed_whatever_bytes_its_files_contain(self, run, name, junk, share, whole):
        path = run.dir / name
        good = path.read_bytes() if path.exists() else b""
        cut = int(share * len(good))
        path.write_bytes(junk if whole else good[:cut] + junk + good[cut + len(junk) :])
        try:
            summary = only_summary(run)
            assert summary.status in ("created", "broken")
            assert (summary.status == "broken") == (summary.record is None) == (summary.reason is not None)
            assert paths.run_dirs(run.dir.parent) == [run.dir]
        finally:
            path.write_bytes(good)

    def test_a_run_in_a_folder_of_odd_name_is_listed(self, run):
        name = os.fsdecode(b"20261123-224601-\x1b[2J\xff")
        run.dir.rename(run.dir.parent / name)
        summary = only_summary(run)
        assert (summary.status, summary.name) == ("created", name)


def test_neither_numpy_nor_tensorflow_is_loaded():
    script = "import sys, cnn_trainer.runs.store; print({'numpy', 'tensorflow', 'keras'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", script], text=True) == "set()\n"


def test_text_is_read_as_it_was_written(run):
    assert strict_json.parse_json(strict_json.to_json(RECORD)) == RECORD.model_dump()
    assert strict_json.to_json(RECORD).endswith(b"}\n")
