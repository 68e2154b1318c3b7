"""benchmarks/search.py: the searches that it compares, and its table."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from cnn_trainer.search.load import load_search
from cnn_trainer.search.spec import num_proposals, rung_epochs

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(FOLDER)
    spec = importlib.util.spec_from_file_location("search_benchmark", FOLDER / "search.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("program", "epochs"), [("random", (9,)), ("tpe", (1, 3, 9)), ("optuna", (1, 3, 9))])
def test_all_programs_search_the_same_space_for_the_same_number_of_epochs(benchmark, tmp_path, program, epochs):
    path = tmp_path / "space.yaml"
    path.write_text(json.dumps(benchmark._space(benchmark.SPACE, program, seed=5, trials=7, last=9)))
    search, _ = load_search(path, pytest.fail, lambda *_: None)
    shipped, _ = load_search(benchmark.SPACE, pytest.fail, lambda *_: None)
    assert search.space == shipped.space
    assert search.base.experiment == shipped.base.experiment
    assert (search.spec.seed, num_proposals(search), rung_epochs(search)) == (5, 7, epochs)
    assert search.spec.method == ("random" if program == "random" else "tpe")


def test_the_table_says_when_the_best_loss_of_random_search_was_reached(benchmark):
    found = {
        "random": [[(2.0, 1.0, 0.5), (9.0, 6.0, 0.2), (12.0, 8.0, 0.3)], [(4.0, 2.0, 0.4)]],
        "tpe": [[(1.0, 0.5, 0.6), (3.0, 2.0, 0.1)], [(1.5, 1.0, 0.4), (2.0, 1.5, 0.3)]],
        "optuna": [[(1.0, 0.5, 0.6)], [(1.0, 0.5, 0.5)]],
    }
    rows = {line.split()[0]: line for line in benchmark._report(found)[1:]}
    for words in ("2 of 2", "1.5 (1.0 to 2.0)", "2.2 (1.5 to 3.0)", "3.0 (2.0 to 4.0)", "0.2000 (0.1000 to 0.3000)"):
        assert words in rows["tpe"]
    assert "0 of 2" in rows["optuna"]
    assert "never (never to never)" in rows["optuna"]
