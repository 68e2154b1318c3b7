"""benchmarks/compare_runs.py: the runs that it makes can be compared and listed."""

import importlib.util
import json
from pathlib import Path

from support import invoke

FOLDER = Path(__file__).parents[2] / "benchmarks"


def test_the_runs_of_the_benchmark_are_groups_of_seeds(finished_run, tmp_path):
    spec = importlib.util.spec_from_file_location("compare_runs_benchmark", FOLDER / "compare_runs.py")
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    names = benchmark.make_runs(finished_run, tmp_path, 6, 3)
    code, out, err = invoke("runs", "compare", *names, "--runs-dir", tmp_path, "--json")
    assert code == 0, err
    assert [group["seeds"] for group in json.loads(out)["groups"]] == [[0, 1, 2], [0, 1, 2]]
    code, out, _ = invoke("runs", "list", "--runs-dir", tmp_path, "--json")
    assert [run["status"] for run in json.loads(out)["runs"]] == ["finished"] * 6
