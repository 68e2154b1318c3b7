"""The folder of a search: what a kill leaves of it, and what a stranger may have put into it."""

import json

import pytest
from search_worker import computed
from support import read_json

from cnn_trainer.errors import CnnTrainError, RunDirectoryError, StoppedError
from cnn_trainer.search import journal, paths
from cnn_trainer.search.proposals import new_schedule
from cnn_trainer.search.spec import identity


def carry_out(opened, num_jobs=None):
    """Do some jobs of a search, or all."""
    schedule, results = new_schedule(opened.search), journal.read_results(opened.dir)
    while not (found := schedule.plan(results)).is_done and num_jobs != 0:
        results.append(computed(found.jobs[0]))
        journal.add_result(opened.dir, results[-1])
        num_jobs = None if num_jobs is None else num_jobs - 1
    return results


def test_a_search_that_is_opened_again_goes_on_to_the_same_results(make_opened):
    whole = identity(carry_out(make_opened()))
    opened = make_opened()
    for _ in range(6):
        carry_out(journal.open_search(opened.dir), num_jobs=9)
    results = carry_out(journal.open_search(opened.dir))
    assert identity(results) == identity(journal.read_results(opened.dir)) == whole


def test_a_journal_torn_at_any_byte_of_its_last_line_loses_that_line_only(make_opened):
    opened = make_opened(trials=4, final={"trials": 1})
    whole = carry_out(opened)
    path = opened.dir / "journal.jsonl"
    data = path.read_bytes()
    start = data[:-1].rindex(b"\n") + 1
    for end in range(start, len(data)):
        path.write_bytes(data[:end])
        assert journal.read_results(opened.dir) == whole[:-1]
        carry_out(opened)
        assert path.read_bytes() == data


def test_results_survive_the_journal_to_the_bit(make_opened):
    opened = make_opened()
    assert journal.read_results(opened.dir) == []
    assert journal.read_results(opened.dir) == [] != carry_out(opened) == journal.read_results(opened.dir)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("[]", "not a mapping of the known keys"),
        ("{", "not valid JSON"),
        ('{"trial": 1}', "field required"),
        ("SAME", "this job already has a result in an earlier line"),
    ],
)
def test_a_broken_line_is_named(make_opened, line, words):
    opened = make_opened()
    carry_out(opened, num_jobs=2)
    path = opened.dir / "journal.jsonl"
    with path.open("a") as file:
        file.write(f"{path.read_text().splitlines()[0] if line == 'SAME' else line}\n")
    with pytest.raises(RunDirectoryError, match=r"journal\.jsonl:3: ") as caught:
        journal.read_results(opened.dir)
    assert words in str(caught.value)


def test_one_process_at_a_time(make_opened):
    opened = make_opened()
    with journal.lock_search(opened):
        assert journal.read_search_record(opened.dir).status == "searching"
        with (
            pytest.raises(RunDirectoryError, match="another process works on this search"),
            journal.lock_search(journal.open_search(opened.dir)),
        ):
            pytest.fail("locked twice")
        journal.update_search_record(opened, status="finished")
    assert journal.read_search_record(opened.dir).status == "finished"


def test_a_search_whose_process_was_killed_is_interrupted(make_opened):
    opened = make_opened()
    journal.update_search_record(opened, status="searching")
    assert journal.read_search_record(opened.dir).status == "interrupted"
    assert read_json(opened.dir / "search.json")["status"] == "searching"


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (StoppedError("stopped", 15), "interrupted", None),
        (KeyboardInterrupt(), "interrupted", None),
        (CnnTrainError("no disk", place="here"), "failed", "here: no disk"),
        (ZeroDivisionError("odd"), "failed", "ZeroDivisionError: odd"),
    ],
)
def test_how_a_search_ended_is_recorded(make_opened, error, status, words):
    opened = make_opened()
    with pytest.raises(type(error)), journal.lock_search(opened):
        raise error
    record = journal.read_search_record(opened.dir)
    assert (record.status, record.error) == (status, words)


def test_a_folder_that_cannot_be_written_leaves_nothing_behind(make_opened, monkeypatch, tmp_path):
    def full(path, data):
        if path.name == "search.json":
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("cnn_trainer.search.journal.files.write_atomic", full)
    with pytest.raises(OSError, match="No space"):
        make_opened()
    assert list((tmp_path / "searches").iterdir()) == []


def test_searches_are_found_by_name_by_path_and_as_the_latest(make_opened, tmp_path):
    first, second = make_opened(), make_opened()
    searches = tmp_path / "searches"
    (searches / "20990101-000000-empty").mkdir()
    (searches / "20990101-000000-link").symlink_to(first.dir)
    assert second.dir.name == f"{first.dir.name}-2" or second.dir.name > first.dir.name
    assert paths.search_dirs(searches) == [second.dir, first.dir]
    assert paths.resolve_search("latest", searches) == second.dir
    assert paths.resolve_search(first.dir.name, searches) == first.dir
    assert paths.resolve_search(str(first.dir), tmp_path / "elsewhere") == first.dir
    with pytest.raises(RunDirectoryError, match=f"did you mean .*{first.dir.name}"):
        paths.resolve_search(first.dir.name[:-1], searches)
    with pytest.raises(RunDirectoryError, match=r"is not a search, because it has no search\.json"):
        paths.resolve_search(str(tmp_path), searches)
    with pytest.raises(RunDirectoryError, match="there is no search under"):
        paths.resolve_search("latest", tmp_path / "elsewhere")


def test_the_space_file_is_kept_as_it_was_given(make_opened, tmp_path):
    opened = make_opened()
    assert (opened.dir / "search.yaml").read_bytes() == (tmp_path / "space.yaml").read_bytes()
    (tmp_path / "space.yaml").unlink()
    (tmp_path / "base.yaml").unlink()
    assert journal.open_search(opened.dir).search.spec == opened.search.spec


def test_a_search_of_other_versions_says_so(make_opened):
    opened = make_opened()
    assert journal.version_differences(opened.record) == []
    record = opened.record.model_dump()
    record["versions"]["optuna"] = "4.0.0"
    del record["versions"]["numpy"]
    (opened.dir / "search.json").write_text(json.dumps(record))
    found = journal.version_differences(journal.open_search(opened.dir).record)
    assert [line.partition(" ")[0] for line in found] == ["numpy", "optuna"]
    assert found[1].startswith("optuna was 4.0.0, is 5.")


def test_a_journal_that_is_a_link_is_not_followed(make_opened, tmp_path):
    opened = make_opened()
    (opened.dir / "journal.jsonl").symlink_to(tmp_path / "base.yaml")
    with pytest.raises(RunDirectoryError, match="symbolic link"):
        journal.read_results(opened.dir)
