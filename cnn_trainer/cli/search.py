"""``cnn-train search``: finds the settings that generalise best from a space file, and lists and shows searches."""

import shlex
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from cnn_trainer.cli.commands import PlainGroup
from cnn_trainer.cli.options import AsJson
from cnn_trainer.cli.output import next_step, print_json, print_lines, say, shown_download, warn
from cnn_trainer.cli.tables import stdout_width, table
from cnn_trainer.errors import CheckFailedError, CnnTrainError, RunDirectoryError, StoppedError, UsageError
from cnn_trainer.machine.terminal import printable

if TYPE_CHECKING:
    from cnn_trainer.search.journal import OpenSearch
    from cnn_trainer.search.records import SearchSummary
    from cnn_trainer.search.shared import SharedBoard

_SAME_COMMAND = "continue with the same command"


class _StartIsMeant(PlainGroup):
    """Treats ``search FILE`` and ``search --resume latest`` as ``search start …``."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["start", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_StartIsMeant,
    no_args_is_help=True,
    subcommand_metavar="FILE | COMMAND [ARGS]...",
    help="Find the settings that generalise best: cnn-train search FILE.",
    epilog="An example of FILE is configs/searches/mnist.yaml. For its options, see: cnn-train search start --help",
)

DEFAULT_SEARCHES_DIR = Path("searches")

SearchesDir: TypeAlias = Annotated[
    Path,
    typer.Option(
        "--searches-dir",
        metavar="DIR",
        envvar="CNN_TRAIN_SEARCHES_DIR",
        help="The folder that holds the searches.",
    ),
]
SearchArgument: TypeAlias = Annotated[
    str, typer.Argument(metavar="SEARCH", help="A search's folder, a name under the searches directory, or latest.")
]


@app.command("start")
def search_start(
    file: Annotated[Path | None, typer.Argument(metavar="FILE", help="The space file (YAML).")] = None,
    resume: Annotated[
        str | None,
        typer.Option(metavar="SEARCH", help="Continue a search that was stopped: its folder, its name, or latest."),
    ] = None,
    searches_dir: SearchesDir = DEFAULT_SEARCHES_DIR,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=1024,
            metavar="N",
            help="Number of trials to train at a time, by default one per core. It does not change the result.",
        ),
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="A database for the search, such as postgresql://USER@HOST/DATABASE. "
            "Every machine that runs the same command joins the search.",
        ),
    ] = None,
    artifacts: Annotated[
        str | None,
        typer.Option(
            metavar="PLACE",
            help="With --storage: where machines without a shared folder find each other's trials. "
            "A folder, s3://BUCKET/PREFIX or gs://BUCKET/PREFIX.",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, then stop.")] = False,
    as_json: AsJson = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Show only warnings and errors.")] = False,
) -> None:
    """Search the space in FILE, retrain the best trials on fresh seeds, and score the winner on the test split.

    The same file gives the same trials and the same weights. Stop with Ctrl-C; continue with --resume.
    """
    from cnn_trainer.machine import stopping
    from cnn_trainer.search import paths

    if (file is None) == (resume is None):
        raise UsageError("give either a space file, or --resume SEARCH")
    if resume is not None and dry_run:
        raise UsageError("--dry-run checks a space file and cannot be combined with --resume")
    if resume is not None and storage is not None:
        raise UsageError("to continue a search in a database, give its space file instead of --resume")
    if artifacts is not None and storage is None:
        raise UsageError("--artifacts is for searches on several machines, and needs --storage")
    board = None
    if file is not None:
        created = _created(file, searches_dir, storage, artifacts, dry_run, quiet)
        if created is None:
            return
        search_dir, board = created
    else:
        search_dir = paths.resolve_search(str(resume), searches_dir)
    with stopping.leaving_at_once(printable(f"the search was stopped; {_go_on(search_dir, board)}")):
        _search(search_dir, board, file is None, workers, quiet, as_json)


def _created(
    file: Path, searches_dir: Path, storage: str | None, artifacts: str | None, dry_run: bool, quiet: bool
) -> "tuple[Path, SharedBoard | None] | None":
    """The folder of a search that was created or joined, and its board in a database; None for a dry run."""
    from cnn_trainer.machine import stopping

    go_on = "nothing was written" if storage is None else _SAME_COMMAND
    with stopping.leaving_at_once(f"the search was stopped; {go_on}"):
        from cnn_trainer.cli import search_words
        from cnn_trainer.runs.paths import require_writable
        from cnn_trainer.search import journal
        from cnn_trainer.search.load import load_search

        require_writable(searches_dir, "--searches-dir")
        with shown_download(quiet) as progress:
            search, data = load_search(file, warn, progress)
        if not quiet:
            say(*search_words.search_preparation(search))
        if dry_run and storage is not None:
            from cnn_trainer.search import connect

            connect.reach(storage)
        if storage is not None and not dry_run:
            from cnn_trainer.search.shared import join_board

            opened, board = join_board(file, (search, data), searches_dir, storage, artifacts, warn)
            return opened.dir, board
    if not dry_run:
        return journal.create_search(searches_dir, file, search, data).dir, None
    if not quiet:
        say("dry run: nothing was written")
        next_step("search", file)
    return None


def _go_on(search_dir: Path, board: "SharedBoard | None") -> str:
    if board is not None:
        return _SAME_COMMAND
    return f"continue with: cnn-train search --resume {shlex.quote(str(search_dir))}"


def _check_resumed(opened: "OpenSearch", quiet: bool) -> None:
    from cnn_trainer.cli import search_words
    from cnn_trainer.search import journal, run

    if opened.record.study is not None:
        remedy = "continue it with the command that began it: cnn-train search FILE --storage URL"
        raise UsageError("this search is in a database", place=opened.dir, remedy=remedy)
    for difference in journal.version_differences(opened.record):
        warn(f"{difference}; results may differ from those of an uninterrupted search")
    with shown_download(quiet) as progress:
        run.require_same_data(opened, warn, progress)
    if not quiet:
        say(*search_words.search_preparation(opened.search))


def _search(
    search_dir: Path, board: "SharedBoard | None", is_resumed: bool, workers: int | None, quiet: bool, as_json: bool
) -> None:
    from cnn_trainer.cli import search_words
    from cnn_trainer.machine import facts, terminal
    from cnn_trainer.search import journal, run
    from cnn_trainer.search.display import SearchDisplay
    from cnn_trainer.search.supervise import supervise

    opened = journal.open_search(search_dir)
    if is_resumed:
        _check_resumed(opened, quiet)
    if not quiet:
        say(f"search: {opened.dir}")
        if opened.record.status == "finished":
            say("the search is finished; nothing to do")
    is_drawn = terminal.can_draw(sys.stderr) and not quiet
    display = SearchDisplay(opened.search, (lambda _: None) if quiet else say, sys.stderr if is_drawn else None)
    spec = opened.search.spec
    num_workers = workers or min(spec.lanes, max(1, facts.available_cores() // spec.trial_towers))
    carry_out = partial(supervise, num_workers=num_workers)
    go_on = _go_on(opened.dir, board)
    try:
        summary = run.run_search(opened, run.SearchFeedback(warn, display), carry_out, board)
    except StoppedError as error:
        raise StoppedError("the search was stopped", error.exit_code - 128, remedy=go_on) from None
    except CheckFailedError:  # resuming would end the same way
        raise
    except CnnTrainError:
        say(f"nothing is lost; {go_on}")
        raise
    if not quiet:
        say(*search_words.search_outcome(summary))
    if as_json:
        print_json(summary.model_dump(mode="json"))
    if not quiet:
        next_step("search", "show", opened.dir)


@app.command("list")
def search_list(searches_dir: SearchesDir = DEFAULT_SEARCHES_DIR, as_json: AsJson = False) -> None:
    """List searches with their status and best trial."""
    from cnn_trainer.cli import search_words
    from cnn_trainer.search import paths

    found, broken = [], []
    for search_dir in paths.search_dirs(searches_dir):
        try:
            found.append(_summary(search_dir))
        except RunDirectoryError as error:
            broken.append((search_dir, str(error)))
    if as_json:
        searches = [summary.model_dump(mode="json") for summary in found]
        broken_ones = [{"search": str(path), "fault": fault} for path, fault in broken]
        print_json({"searches_dir": str(searches_dir), "searches": searches, "broken": broken_ones})
    elif found:
        print_lines(table(search_words.LIST_HEADING, [search_words.list_row(one) for one in found], stdout_width()))
    for path, fault in broken:
        say(f"{path.name} is broken: {fault}")
    if found:
        next_step("search", "show", found[0].search)
    elif not broken:
        say(f"no searches in {searches_dir}")
        next_step("search", "configs/searches/mnist.yaml")


def _summary(search_dir: Path) -> "SearchSummary":
    from cnn_trainer.search import journal
    from cnn_trainer.search.results import summarize_search

    opened = journal.open_search(search_dir)
    return summarize_search(opened, journal.read_results(search_dir))


@app.command("show")
def search_show(
    search: SearchArgument, searches_dir: SearchesDir = DEFAULT_SEARCHES_DIR, as_json: AsJson = False
) -> None:
    """Show a search: its trials, the best ones on fresh seeds, and which keys mattered."""
    from cnn_trainer.cli import search_words
    from cnn_trainer.search import journal, paths
    from cnn_trainer.search.results import summarize_search

    opened = journal.open_search(paths.resolve_search(search, searches_dir))
    results = journal.read_results(opened.dir)
    summary = summarize_search(opened, results)
    if as_json:
        print_json({**summary.model_dump(mode="json"), "results": [one.model_dump(mode="json") for one in results]})
    else:
        print_lines(search_words.details(opened, results, summary))
    if summary.status == "finished":
        next_step("train", opened.dir / paths.BEST_FILE)
    else:
        next_step("search", "--resume", opened.dir)
