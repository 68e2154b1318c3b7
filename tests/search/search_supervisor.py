"""A supervisor of a search in a database, as a process of its own, with workers of search_worker.

    python search_supervisor.py SPACE SEARCHES_DIR URL FUNCTION SETTINGS

SETTINGS are constants of the modules ``shared`` and ``database`` as JSON. The line on stdout is the identity of
the results, and whether this supervisor scored the winner.
"""

import json
import sys
from contextlib import closing
from pathlib import Path

from cnn_trainer.errors import CnnTrainError
from cnn_trainer.search import database, shared, supervise
from cnn_trainer.search.display import SearchDisplay
from cnn_trainer.search.load import load_search
from cnn_trainer.search.records import WinnerScore
from cnn_trainer.search.results import winning_final
from cnn_trainer.search.run import SearchFeedback
from cnn_trainer.search.spec import identity

SCORE = WinnerScore(accuracy=0.5, accuracy_interval=[0.4, 0.6], num_examples=100)


def main(space, searches_dir, url, function, settings):
    """Carry out the search, and score the winner if no other supervisor does."""
    sys.path.insert(0, str(Path(__file__).parent))  # for the workers
    supervise._FUNCTION = f"search_worker:{function}"
    for name, value in json.loads(settings).items():
        for module in (shared, database):
            if hasattr(module, name):
                setattr(module, name, value)
    scored = []

    def score():
        scored.append(1)
        return SCORE

    loaded = load_search(Path(space), say, lambda *_: None)
    opened, board = shared.join_board(Path(space), loaded, Path(searches_dir), url, None, say)
    with closing(board):
        supervise.supervise(opened, SearchFeedback(say, SearchDisplay(opened.search)), board, 2)
        results = board.results()
        assert board.score_once(winning_final(opened.search, results), score) == SCORE
    sys.stdout.write(json.dumps({"identity": identity(results), "scored": len(scored), "search": str(opened.dir)}))


def say(line):
    """Write a line to stderr."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except CnnTrainError as error:
        say(str(error))
        sys.exit(error.exit_code)
