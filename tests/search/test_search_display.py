"""What a person sees while a search runs."""

import io

import pytest
from search_worker import computed

from cnn_trainer.search.display import SearchDisplay, expected_epochs
from cnn_trainer.search.proposals import new_schedule


class Terminal(io.StringIO):
    def isatty(self):
        return True


def carry_out(search, display, results=()):
    schedule, found = new_schedule(search), list(results)
    display.begin(found)
    while not (now := schedule.plan(found)).is_done:
        display.start(now.jobs[0])
        found.append(computed(now.jobs[0], lambda changes: changes["training.learning_rate"] > 0.05))
        display.finish(found[-1])
    display.end()
    return found


def test_a_pipe_gets_a_plain_line_a_job(make_search):
    search, stream = make_search(), io.StringIO()
    found = carry_out(search, SearchDisplay(search, stream, "lines"))
    lines = stream.getvalue().splitlines()
    assert len(lines) == len(found)
    assert all(line.isprintable() for line in lines)
    first, last = lines[0], lines[-1]
    assert f"trial {found[0].trial}  1 epoch  validation loss {found[0].validation_loss:.4f}" in first
    assert f"1 of about {expected_epochs(search)} epochs" in first
    assert "fresh seed 5" in last
    assert "15 retrained" in last
    assert any("  diverged  " in line for line in lines)


def test_a_search_that_goes_on_counts_what_was_done_before(make_search):
    search, stream = make_search(), io.StringIO()
    found = carry_out(search, SearchDisplay(search))
    display = SearchDisplay(search, stream, "lines")
    carry_out(search, display, found[:10])
    assert len(stream.getvalue().splitlines()) == len(found) - 10
    assert "of about" in stream.getvalue().splitlines()[0]


def test_a_terminal_gets_a_table_that_goes_away(make_search):
    search, stream = make_search(goal="validation_accuracy"), Terminal()
    carry_out(search, SearchDisplay(search, stream, "live"))
    shown = stream.getvalue()
    assert "of 24 trials" in shown
    assert "best validation accuracy" in shown
    assert "to epoch" in shown


@pytest.mark.parametrize("mode", ["lines", "live"])
def test_a_closed_pipe_does_not_stop_a_search(make_search, mode):
    class Closed(Terminal):
        def write(self, text):
            raise OSError(5, "Input/output error")

    search = make_search(trials=3, final={"trials": 1})
    assert carry_out(search, SearchDisplay(search, Closed(), mode))


def test_quiet_says_nothing(make_search):
    search, stream = make_search(), io.StringIO()
    carry_out(search, SearchDisplay(search, stream, "quiet"))
    assert stream.getvalue() == ""


def test_the_expected_epochs_are_those_of_a_search_that_promotes_its_share(make_search):
    search = make_search(trials=9, lanes=1, final={"trials": 1, "seeds": 2})
    assert expected_epochs(search) == 9 * 1 + 3 * 2 + 1 * 6 + 2 * 9
