"""Opens the database that --storage names, or says what is wrong with it before any work is done."""

import random
import time
import warnings

from cnn_trainer.errors import UsageError
from cnn_trainer.machine.facts import install_command

try:
    from optuna.exceptions import StorageInternalError
    from optuna.storages import RDBStorage
    from sqlalchemy import create_engine, make_url
    from sqlalchemy.engine import URL
    from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
    from sqlalchemy.pool import NullPool

    from cnn_trainer.search.database import TABLES
except ModuleNotFoundError as error:
    raise UsageError(
        f"needs the package {error.name}, which is not installed",
        place="--storage",
        remedy=f"install what it needs with: {install_command('cnn-trainer[storage]')}",
    ) from error

CONNECT_SECONDS = 5
OUTAGES = (SQLAlchemyError, StorageInternalError)
"""What an operation raises if the database does not answer."""

_EXAMPLE = "postgresql://USER:PASSWORD@HOST/DATABASE"
# For URLs that name no driver: the one that SQLAlchemy would take, if it is installed, or else this one.
_DRIVERS = {"postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg", "mysql": "mysql+pymysql"}
_PACKAGES = {"psycopg": "psycopg[binary]", "psycopg2": "psycopg[binary]", "pymysql": "pymysql", "MySQLdb": "pymysql"}
# A connection whose other end has vanished is given up after about 25 seconds.
_TCP = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 25_000}
_ATTEMPTS = 6  # to create the tables, while other supervisors do the same


def reach(text: str) -> tuple[URL, dict[str, object]]:
    """Connect to the database at a URL once. Returns the URL with its driver, and what to connect with.

    Raises:
        UsageError: within seconds if the URL is wrong, its driver is missing, or the database refuses the connection.
    """
    url = _url(text)
    shown = _shown_url(url)
    connect_args: dict[str, object] = {}
    driver = url.get_dialect().driver
    if driver in ("psycopg", "psycopg2"):
        # A database with the encoding SQL_ASCII, which a server with the locale C creates, would give bytes.
        connect_args = {"connect_timeout": CONNECT_SECONDS, "client_encoding": "utf8", **_TCP}
    elif driver == "pymysql":
        connect_args = {"connect_timeout": CONNECT_SECONDS, "read_timeout": 30, "write_timeout": 30}
    remedy = "check the URL, that the database is there, and that its server runs and lets this machine in"
    try:
        create_engine(url, connect_args=connect_args, poolclass=NullPool).connect().close()
    except ModuleNotFoundError as error:
        package = _PACKAGES.get(str(error.name), str(error.name))
        install = f"install it with: {install_command(package)}"
        raise UsageError(f"needs the package {package}, which is not installed", place=shown, remedy=install) from None
    except (SQLAlchemyError, ValueError, TypeError) as error:
        raise UsageError(f"cannot be connected to: {reason_of(error, url)}", place=shown, remedy=remedy) from None
    return url, connect_args


def open_storage(text: str) -> RDBStorage:
    """The database at a URL, with all tables. Raises UsageError as ``reach`` does, or if it has no right to tables."""
    url, connect_args = reach(text)
    options = {"connect_args": connect_args, "pool_pre_ping": True}
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                storage = RDBStorage(url.render_as_string(hide_password=False), engine_kwargs=options)
            TABLES.create_all(storage.engine)
        except (*OUTAGES, RuntimeError) as error:
            if attempt == _ATTEMPTS:
                problem = f"its tables cannot be created or read: {reason_of(error, url)}"
                remedy = "check the rights of this user, and that the database is not of another version of Optuna"
                raise UsageError(problem, place=_shown_url(url), remedy=remedy) from None
            time.sleep(random.uniform(0.1, 0.5))  # noqa: S311 -- others create them at the same time
        else:
            return storage
    raise AssertionError("the last attempt returns or raises")


def _shown_url(url: URL) -> str:
    """The URL without its password and its query, in which there may be another."""
    return url.set(query={}).render_as_string(hide_password=True)


def _url(text: str) -> URL:
    remedy = f"give it as {_EXAMPLE}"
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise UsageError("is not the URL of a database", place="--storage", remedy=remedy) from None
    if url.drivername in _DRIVERS and not _has_driver(url):
        url = url.set(drivername=_DRIVERS[url.drivername])
    try:
        url.get_dialect()
    except NoSuchModuleError:
        problem = f"SQLAlchemy knows no database {url.drivername!r}"
        raise UsageError(problem, place="--storage", remedy=remedy) from None
    return url


def _has_driver(url: URL) -> bool:
    try:
        url.get_dialect().import_dbapi()
    except (NoSuchModuleError, ImportError):
        return False
    return True


def reason_of(error: BaseException, url: URL) -> str:
    """The first line of what the database or its driver said, without the password."""
    while isinstance(error, StorageInternalError) and error.__cause__ is not None:
        error = error.__cause__
    words = str(getattr(error, "orig", None) or error).strip() or type(error).__name__
    line = " ".join(words.splitlines()[-1 if words.startswith("connection is bad") else 0].split())[:300]
    return line.replace(str(url.password), "***") if url.password else line
