"""Claims of jobs in a database, and what is said of databases and artifact stores that cannot be used."""

import io
import json
import sys
import tarfile
import time
from dataclasses import replace

import pytest
from optuna.artifacts import FileSystemArtifactStore
from postgres import PASSWORD, Server

from cnn_trainer.errors import RunDirectoryError, UsageError
from cnn_trainer.search import artifacts, connect, database, shared
from cnn_trainer.search.database import StudyDatabase, job_key, study_name
from cnn_trainer.search.load import load_search
from cnn_trainer.search.proposals import new_schedule
from cnn_trainer.search.records import SharedFacts

FACTS = SharedFacts(created_at="2026-01-01T00:00:00Z", versions={"numpy": "0.1"}, processor="abacus")


@pytest.fixture
def members(make_search, tmp_path):
    """Two supervisors' views of a search in a database, and its first job."""
    search = make_search()
    storages = [connect.open_storage(f"sqlite:///{tmp_path / 'search.db'}") for _ in range(2)]
    found = [StudyDatabase(storage, "study", search) for storage in storages]
    for one in found:
        one.join(FACTS)
    yield *found, new_schedule(search).plan([]).jobs[0]
    for one in found:
        one.close()


def test_a_job_is_claimed_by_one_supervisor_until_it_gives_it_back(members):
    one, other, job = members
    key = job_key(job)
    assert one.claim(key, job)
    assert one.claim(key, job), "the answer may have been lost"
    assert not other.claim(key, job)
    one.release()
    assert other.claim(key, job)
    assert not one.claim(key, job)


def test_a_job_is_taken_over_from_an_owner_that_gives_no_sign_of_life(members, monkeypatch):
    one, other, job = members
    key, now = job_key(job), [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    assert one.claim(key, job)
    assert not other.claim(key, job)
    now[0] = database.LOST_SECONDS - 1
    one.beat()
    assert not other.claim(key, job)
    now[0] += database.LOST_SECONDS - 1
    assert not other.claim(key, job)
    other.forget_beats()
    now[0] += 2
    assert not other.claim(key, job), "the database was away, so nobody could give a sign of life"
    now[0] += database.LOST_SECONDS + 1
    assert other.claim(key, job)
    assert len(other._storage.get_all_trials(other._study_id)) == 1


def test_results_are_read_back_as_they_were_and_a_second_copy_changes_nothing(members):
    from search_worker import computed

    one, other, job = members
    result = computed(job)
    assert one.claim(job_key(job), job)
    assert other.new_results((), 0) == {}
    one.add(result)
    one.add(result)
    assert other.new_results((), 0) == {job_key(job): result}
    assert not other.claim(job_key(job), job)


def test_a_result_that_was_changed_in_the_database_is_refused(members):
    from search_worker import computed

    one, _, job = members
    assert one.claim(job_key(job), job)
    one.add(computed(job))
    one._storage.set_trial_user_attr(1, job_key(job), {"trial": 1})
    with pytest.raises(RunDirectoryError, match=f"study study, job {job_key(job)}: "):
        one.new_results((), 0)


def test_the_name_of_a_search_does_not_depend_on_paths(write_space, tmp_path):
    space = write_space()
    search, data = load_search(space, pytest.fail, lambda *_: None)
    moved = data.model_copy(update={"location": "elsewhere"})
    assert study_name(search, data) == study_name(search, moved)
    other = replace(search, spec=search.spec.model_copy(update={"seed": 2}))
    assert study_name(other, data) != study_name(search, data)
    assert study_name(search, data.model_copy(update={"train_sha256": "0" * 64})) != study_name(search, data)


def test_a_machine_that_differs_from_the_first_is_told(members, write_space, tmp_path):
    space, warnings = write_space(), []
    search, data = loaded = load_search(space, pytest.fail, lambda *_: None)
    url = f"sqlite:///{tmp_path / 'search.db'}"
    first = StudyDatabase(connect.open_storage(url), study_name(search, data), search)
    first.join(FACTS)
    opened, board = shared.join_board(space, loaded, tmp_path / "searches", url, None, warnings.append)
    board.close()
    first.close()
    assert opened.dir.name == f"20260101-000000-{study_name(search, data)}"
    assert any(line.startswith("numpy was 0.1, is ") for line in warnings)
    assert any("the search began on abacus" in line for line in warnings)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("nonsense", "--storage: is not the URL of a database; give it as postgresql://"),
        ("foo://a/b", "--storage: SQLAlchemy knows no database 'foo'"),
        ("postgresql://me:hidden@127.0.0.1:9/x", "postgresql://me:***@127.0.0.1:9/x: cannot be connected to: "),
        ("sqlite:////none/x.db", "sqlite:////none/x.db: cannot be connected to: unable to open database file"),
        ("mysql+nothing://me:hidden@h/x", "--storage: SQLAlchemy knows no database 'mysql+nothing'"),
        ("postgresql+pg8000://me:hidden@h/x", "needs the package pg8000, which is not installed; install it with: "),
    ],
)
def test_a_database_that_cannot_be_used_is_told_at_once(url, expected):
    began = time.monotonic()
    with pytest.raises(UsageError) as raised:
        connect.open_storage(url)
    assert expected in str(raised.value)
    assert "hidden" not in str(raised.value)
    assert time.monotonic() - began < 8


def test_a_refused_password_is_told_without_it():
    server = Server()
    try:
        url = server.start().url
        with pytest.raises(UsageError) as raised:
            connect.open_storage(url.replace(PASSWORD, "wr0ng-word"))
    finally:
        server.remove()
    assert 'password authentication failed for user "postgres"' in str(raised.value)
    assert "wr0ng-word" not in str(raised.value)


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("ftp://a/b", "--artifacts: ftp://a/b is not a place for artifacts; give a folder, s3://"),
        ("s3://", "--artifacts: s3:// is not a place for artifacts"),
        (
            "s3://bucket/prefix",
            "s3://bucket/prefix: needs the package boto3, which is not installed",
        ),
        ("gs://bucket", "gs://bucket: needs the package google-cloud-storage, which is not installed"),
        ("/dev/null/x", "--artifacts: /dev/null/x cannot be created"),
    ],
)
def test_a_store_that_cannot_be_used_is_told(place, expected, monkeypatch):
    with pytest.raises(UsageError) as raised:
        artifacts.open_artifacts(place)
    assert expected in str(raised.value)


def packed(folder, *members):
    """A store with an archive ``run.tar`` that holds these members."""
    with tarfile.open(folder / "run.tar", "w") as archive:
        for name, kind in members:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member, io.BytesIO())
    return FileSystemArtifactStore(folder)


@pytest.mark.parametrize(
    "member",
    [
        ("../outside", tarfile.REGTYPE),
        ("/tmp/outside", tarfile.REGTYPE),  # noqa: S108
        ("run.json", tarfile.SYMTYPE),
        ("run.json", tarfile.LNKTYPE),
        ("run.json", tarfile.FIFOTYPE),
    ],
    ids=lambda member: json.dumps([member[0], str(member[1])]),
)
def test_an_archive_with_anything_but_plain_files_is_refused(member, tmp_path, make_experiment):
    run_dir = tmp_path / "trials" / "0001-small"
    run_dir.mkdir(parents=True)
    (run_dir / "run.json").write_text("as before")
    with pytest.raises(RunDirectoryError, match="which is not a plain file of a run"):
        artifacts.fetch_run(packed(tmp_path, member), "run.tar", run_dir, make_experiment().data)
    assert [path.name for path in run_dir.parent.iterdir()] == ["0001-small"]
    assert (run_dir / "run.json").read_text() == "as before"


def test_an_archive_that_is_too_large_is_refused(tmp_path, make_experiment, monkeypatch):
    monkeypatch.setattr(artifacts, "MAX_RUN_FILES", 2)
    store = packed(tmp_path, *[(f"{number}.txt", tarfile.REGTYPE) for number in range(3)])
    with pytest.raises(RunDirectoryError, match="holds more than a run"):
        artifacts.fetch_run(store, "run.tar", tmp_path / "trials" / "run", make_experiment().data)


def test_without_the_extra_its_installation_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    monkeypatch.delitem(sys.modules, "cnn_trainer.search.connect")
    with pytest.raises(UsageError, match=r"needs the package sqlalchemy.*cnn-trainer\[storage\]"):
        import cnn_trainer.search.connect  # noqa: F401
