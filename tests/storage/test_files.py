import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnn_trainer.errors import StorageError
from cnn_trainer.machine import terminal
from cnn_trainer.storage import files, strict_json

CALLS = ["open", "write", "fsync", "rename"]
# Does half of the wanted call, then dies as from kill -9.
DIE = """
import os, sys
from pathlib import Path
from cnn_trainer.storage import files
call, wanted, path, deed = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
real, made = getattr(os, call), 0
def dying(*arguments, **options):
    global made
    made += 1
    if made == wanted:
        if call == "write":
            real(arguments[0], bytes(arguments[1])[:3])
        os._exit(137)
    return real(*arguments, **options)
setattr(os, call, dying)
files.write_atomic(path, b"new content") if deed == "replace" else files.append_line(path, "new content")
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fail_at(monkeypatch, call: str, wanted: int, error: int, part: int = 0) -> list[int]:
    """Make the ``wanted``-th call of ``os.<call>`` fail, a write after ``part`` bytes. Returns the number of calls."""
    real, made = getattr(os, call), [0]

    def failing(*arguments, **options):
        made[0] += 1
        if made[0] == wanted:
            if call == "write" and part:
                real(arguments[0], bytes(arguments[1])[:part])
            raise OSError(error, os.strerror(error))
        return real(*arguments, **options)

    monkeypatch.setattr(os, call, failing)
    return made


@pytest.mark.parametrize("before", [None, b"old content"])
@pytest.mark.parametrize("call", CALLS)
def test_a_failure_at_any_call_leaves_old_or_new_content_and_no_temporary_file(tmp_path, monkeypatch, call, before):
    path = tmp_path / "run.json"
    messages = []
    for wanted in range(1, 20):
        path.unlink(missing_ok=True)
        if before is not None:
            path.write_bytes(before)
        with monkeypatch.context() as patch:
            made = fail_at(patch, call, wanted, errno.ENOSPC, part=3)
            try:
                files.write_atomic(path, b"new content")
            except StorageError as error:
                messages.append(str(error))
        content = path.read_bytes() if path.exists() else None
        assert content in (before, b"new content")
        assert names(tmp_path) == (["run.json"] if content is not None else [])
        if made[0] < wanted:
            assert content == b"new content"
            break
    assert len(messages) == {"open": 2, "write": 1, "fsync": 2, "rename": 1}[call]  # every call was made to fail once
    for message in messages:
        assert message.startswith(f"{path}: cannot be ")
        assert "No space left on device; free some space" in message


def test_an_interruption_leaves_no_temporary_file(tmp_path, monkeypatch):
    def interrupted(file):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        files.write_atomic(tmp_path / "run.json", b"new")
    assert names(tmp_path) == []


@pytest.mark.parametrize(("call", "wanted"), [("open", 2), ("write", 1), ("fsync", 1), ("rename", 1), ("fsync", 2)])
def test_a_kill_at_any_call_leaves_old_or_new_content_and_a_stray_file_that_is_removed(tmp_path, call, wanted):
    path = tmp_path / "run.json"
    path.write_bytes(b"old content")
    died = subprocess.run([sys.executable, "-c", DIE, call, str(wanted), str(path), "replace"], check=False)
    assert died.returncode == 137
    assert path.read_bytes() == (b"new content" if (call, wanted) == ("fsync", 2) else b"old content")
    files.remove_stray(tmp_path)
    assert names(tmp_path) == ["run.json"]


def test_writing_replaces_a_symbolic_link_and_leaves_its_target_alone(tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"mine")
    link.symlink_to(target)
    files.write_atomic(link, b"new")
    assert target.read_bytes() == b"mine"
    assert not link.is_symlink()
    assert link.read_bytes() == b"new"


@pytest.mark.parametrize(
    ("error", "remedy"),
    [(errno.EROFS, "use a writable place"), (errno.EACCES, "permissions"), (errno.EXDEV, "try again")],
)
def test_a_failure_to_write_names_path_cause_and_remedy(tmp_path, monkeypatch, error, remedy):
    fail_at(monkeypatch, "open", 2, error)
    with pytest.raises(StorageError) as raised:
        files.write_atomic(tmp_path / "run.json", b"new")
    message = str(raised.value)
    assert message.startswith(f"{tmp_path / 'run.json'}: cannot be written: {os.strerror(error)}; ")
    assert remedy in message
    assert message.endswith("what was there before is intact")


def test_writing_into_a_vanished_folder_or_over_a_folder_is_refused(tmp_path):
    with pytest.raises(StorageError, match=r"gone/run\.json: cannot be written: No such file.*moved or removed"):
        files.write_atomic(tmp_path / "gone" / "run.json", b"new")
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError, match="it is a folder; move it away"):
        files.write_atomic(tmp_path / "folder", b"new")
    assert names(tmp_path) == ["folder"]


def test_a_folder_that_cannot_be_synced_at_all_is_not_a_failure(tmp_path, monkeypatch):
    fail_at(monkeypatch, "fsync", 2, errno.EINVAL)
    files.write_atomic(tmp_path / "run.json", b"new")
    assert (tmp_path / "run.json").read_bytes() == b"new"


@pytest.fixture
def refuse(monkeypatch):
    """A function that makes these calls of fcntl fail, as if a file system did not support them."""

    def make(error, *calls):
        def refused(file, operation):
            raise OSError(error, os.strerror(error))

        for call in calls:
            monkeypatch.setattr(files.fcntl, call, refused)

    return make


@pytest.mark.parametrize("calls", [["flock"], ["flock", "lockf"]], ids=str)
@pytest.mark.parametrize("error", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL], ids=errno.errorcode.get)
def test_a_file_system_without_locks_can_be_written_to(tmp_path, refuse, calls, error):
    refuse(error, *calls)
    files.write_atomic(tmp_path / "run.json", b"new")
    assert names(tmp_path) == ["run.json"]
    with (tmp_path / "run.json").open("r+b") as file:
        if calls == ["flock"]:
            assert files.try_lock(file.fileno())
        else:
            with pytest.raises(OSError, match=re.escape(os.strerror(error))):
                files.try_lock(file.fileno())


@pytest.mark.parametrize("error", [errno.EACCES, errno.EAGAIN])
def test_a_posix_lock_held_by_another_process_is_distinguished_from_none(tmp_path, refuse, error):
    refuse(errno.ENOLCK, "flock")
    refuse(error, "lockf")
    with (tmp_path / "file").open("wb") as file:
        assert not files.try_lock(file.fileno())


def test_files_with_long_and_odd_names_can_be_written(tmp_path):
    for name in ("n" * 255, "é" * 120, "new\nline", os.fsdecode(b"\xff\xfe")):
        files.write_atomic(tmp_path / name, b"new")
        assert (tmp_path / name).read_bytes() == b"new"


def test_stray_files_of_living_writers_and_files_of_others_stay(tmp_path):
    for name in (".tmp-notes", "run.json", ".tmp-x-1-0123456789"):
        (tmp_path / name).write_bytes(b"mine")
    (tmp_path / ".tmp-a-1-00000000").write_bytes(b"a dead process 1 wrote this")
    (tmp_path / ".tmp-b-1-00000000").symlink_to(tmp_path / "run.json")
    os.mkfifo(tmp_path / ".tmp-c-1-00000000")
    folder = os.open(tmp_path, os.O_RDONLY)
    file, living = files._create_temporary(folder, "run.json")
    before = set(names(tmp_path))
    files.remove_stray(tmp_path)
    assert before - set(names(tmp_path)) == {".tmp-a-1-00000000"}
    os.close(file)
    os.close(folder)
    files.remove_stray(tmp_path)
    assert not (tmp_path / living).exists()
    files.remove_stray(tmp_path / "missing")


def test_a_temporary_file_removed_before_it_was_locked_is_created_anew(tmp_path, monkeypatch):
    real, calls = files.fcntl.flock, []

    def late(file, operation):
        calls.append(file)
        if len(calls) == 1:
            (stray,) = tmp_path.iterdir()
            stray.unlink()
        real(file, operation)

    monkeypatch.setattr(files.fcntl, "flock", late)
    files.write_atomic(tmp_path / "run.json", b"new")
    assert names(tmp_path) == ["run.json"]
    assert len(calls) == 2


def test_lines_are_appended_after_an_incomplete_line_is_cut_off(tmp_path):
    path = tmp_path / "metrics.jsonl"
    files.append_line(path, "one")
    files.append_line(path, "two")
    assert path.read_bytes() == b"one\ntwo\n"
    path.write_bytes(b"one\n" + b"x" * 200_000)
    files.append_line(path, "two")
    assert path.read_bytes() == b"one\ntwo\n"
    path.write_bytes(b"half")
    files.append_line(path, "one")
    assert path.read_bytes() == b"one\n"


@pytest.mark.parametrize("call", ["open", "write", "fsync"])
def test_a_failure_to_append_a_line_leaves_the_earlier_lines(tmp_path, monkeypatch, call):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"one\n")
    fail_at(monkeypatch, call, 1, errno.ENOSPC, part=3)
    with pytest.raises(StorageError, match=r"No space left on device.*its earlier lines are intact"):
        files.append_line(path, "two")
    assert path.read_bytes() == b"one\n"


def test_a_kill_while_a_line_is_appended_loses_no_earlier_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"one\n")
    died = subprocess.run([sys.executable, "-c", DIE, "write", "1", str(path), "append"], check=False)
    assert died.returncode == 137
    assert path.read_bytes() == b"one\nnew"
    files.append_line(path, "two")
    assert path.read_bytes() == b"one\ntwo\n"


def test_a_line_is_not_appended_through_a_symbolic_link(tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"mine\n")
    link.symlink_to(target)
    with pytest.raises(StorageError, match="symbolic link"):
        files.append_line(link, "line")
    assert target.read_bytes() == b"mine\n"


def test_only_regular_files_up_to_the_limit_are_read(tmp_path):
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    assert files.read_bounded(tmp_path / "file", 5) == b"12345"
    for name, problem in {
        "file": "is too large: 5 bytes; at most 4 are allowed",
        "link": "symbolic link, which is not followed",
        "loop": "symbolic link, which is not followed",
        "pipe": "is a pipe, a socket or a device",
        ".": "is a folder",
        "missing": "No such file",
    }.items():
        with pytest.raises(StorageError, match=problem) as raised:
            files.read_bounded(tmp_path / name, 4)
        assert str(tmp_path / name) in str(raised.value)
    with pytest.raises(StorageError, match="device"):
        files.read_bounded(Path("/dev/zero"), 4)


def test_the_limit_also_holds_for_a_file_that_grows_while_it_is_read(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    real = os.fstat

    def grow(file):
        status = real(file)
        path.write_bytes(b"1" * 1000)
        return status

    monkeypatch.setattr(os, "fstat", grow)
    with pytest.raises(StorageError, match="is too large"):
        files.read_bounded(path, 5)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b'{"a": NaN}', "NaN is not a number"),
        (b"[-Infinity]", "-Infinity is not a number"),
        (b"[1e999]", "too large for 64-bit"),
        (b"[123456789012345678901]", "more than 20 digits"),
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', "the key 'c' occurs twice"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"a":' * 200_000, "nested too deeply"),
        (b"[" + b"[]," * 300_000 + b"1]", "more than 250000 lists"),
        (b"\xff", "not UTF-8"),
        (b'"\\ud800"', "not UTF-8"),
        (b"\xef\xbb\xbf{}", "BOM"),
        (b"", "Expecting value"),
        (b"{} {}", "Extra data"),
    ],
    ids=range(13),
)
def test_json_that_is_not_strict_is_refused(text, problem):
    with pytest.raises(StorageError, match=f"not valid JSON: .*{re.escape(problem)}"):
        strict_json.parse_json(text)


@given(st.binary(max_size=60) | st.text('[]{}:,"\\u0123456789eE+-.truefalsnNaIity\ud800', max_size=40))
def test_whatever_is_read_as_json_can_be_written_and_read_again(text):
    try:
        value = strict_json.parse_json(text)
    except StorageError:
        return
    assert strict_json.parse_json(strict_json.format_json(value)) == value


def test_json_is_not_written_with_nan_or_half_a_surrogate_pair():
    for value in (float("nan"), [float("inf")], "\ud800"):
        with pytest.raises(ValueError, match=r"JSON compliant|surrogates"):
            strict_json.format_json(value)
    assert strict_json.format_json({"é": [1, 0.1, None]}) == '{"é": [1, 0.1, null]}'


def test_printable_text_has_neither_control_characters_nor_undecodable_bytes():
    assert terminal.printable("é a\x1b[2J\n" + os.fsdecode(b"\xff")) == "é a\\x1b[2J\\n\\udcff"
