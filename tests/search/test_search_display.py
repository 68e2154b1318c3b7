"""What a person sees while a search runs."""

import io
import re

from search_worker import computed

from cnn_trainer.search.display import SearchDisplay
from cnn_trainer.search.proposals import new_schedule
from cnn_trainer.search.results import epochs_spent


class Terminal(io.StringIO):
    def isatty(self):
        return True


def carry_out(search, display, results=()):
    schedule, found = new_schedule(search), list(results)
    display.begin(found)
    while not (now := schedule.plan(found)).is_done:
        display.start(now.jobs[0])
        display.draw()
        found.append(computed(now.jobs[0], lambda changes: changes["training.learning_rate"] > 0.05))
        display.finish(found[-1])
    display.end()
    return found


def test_each_job_is_said_with_how_far_the_search_is(make_search):
    search, lines = make_search(), []
    found = carry_out(search, SearchDisplay(search, lines.append))
    assert len(lines) == len(found)
    assert all(line.isprintable() for line in lines)
    first, last = lines[0], lines[-1]
    assert f"trial {found[0].trial}  1 epoch  validation loss {found[0].validation_loss:.4f}" in first
    assert re.search(r"  1 of about \d+ epochs  ", first)
    assert "fresh seed 5" in last
    assert "15 retrained" in last
    assert any("  diverged  " in line for line in lines)


def test_the_total_of_epochs_is_exact_once_the_trials_have_ended(make_search):
    search, lines = make_search(), []
    found = carry_out(search, SearchDisplay(search, lines.append))
    totals = [int(re.search(r"of about (\d+) epochs", line)[1]) for line in lines]
    retrained = [total for total, result in zip(totals, found, strict=True) if result.final]
    assert set(retrained) == {epochs_spent(found)}
    assert abs(totals[0] - totals[-1]) < 0.2 * totals[-1]


def test_a_search_that_goes_on_counts_what_was_done_before(make_search):
    search, lines = make_search(), []
    found = carry_out(search, SearchDisplay(search))
    carry_out(search, SearchDisplay(search, lines.append), found[:10])
    assert len(lines) == len(found) - 10
    assert "of about" in lines[0]


def test_a_terminal_gets_a_table_that_goes_away(make_search, monkeypatch):
    monkeypatch.setattr("cnn_trainer.search.display._DRAW_SECONDS", 0.0)
    search, stream, lines = make_search(goal="validation_accuracy"), Terminal(), []
    found = carry_out(search, SearchDisplay(search, lines.append, stream))
    shown = stream.getvalue()
    for words in ("of 24 trials", "best validation accuracy", "to epoch"):
        assert words in shown
    assert len(lines) == len(found)
    assert not any("epochs  about" in line for line in lines)  # the table says how far the search is
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")


def test_a_terminal_that_is_gone_does_not_stop_a_search(make_search):
    class Closed(Terminal):
        def write(self, text):
            raise OSError(5, "Input/output error")

    search = make_search(trials=3, final={"trials": 1})
    assert carry_out(search, SearchDisplay(search, drawn_on=Closed()))
