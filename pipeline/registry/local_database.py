"""MLflow in a local SQLite file: is it set up to its end, and where its experiments think it is?

MLflow sets a file up in some sixty migrations without a transaction around them. One that is cut
off may leave a file that MLflow can never open again.
"""

import re
import sqlite3
import tempfile
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import mlflow
from alembic.script import ScriptDirectory
from mlflow import MlflowClient
from sqlalchemy.engine import make_url

ARTIFACTS = "mlartifacts"  # folder beside the file: where Nightshift has its experiments put files
# Where files lie by default, below the folder that a database was made in: ours, and MLflow's own.
DEFAULT_PLACE = re.compile(rf"(.*)/({ARTIFACTS}|mlruns/\d+)")
BUSY_TIMEOUT_S = 5
# What SQLite says when a migration meets a part of its own work.
MET_ITSELF = re.compile(r"already exists|duplicate column|no such (table|column|index)")


def database_file(uri: str) -> Path | None:
    """Return the file of a tracking address; None for a server and for a database in memory."""
    if not uri.startswith("sqlite"):
        return None
    name = make_url(uri).database
    return None if not name or name.startswith((":memory:", "file:")) else Path(name)


def artifact_folder(file: Path) -> Path:
    """Where a new experiment's files go: beside the database, wherever this is run from."""
    return file.resolve().parent / ARTIFACTS


def is_up_to_date(file: Path) -> bool:
    """Whether MLflow can use the file at once; also true of what is no database at all."""
    if not file.exists():
        return False
    try:
        return _revision(file) == _migrations().get_current_head()
    except sqlite3.Error:  # MLflow will say what is the matter
        return True


def make(file: Path) -> None:
    """Have MLflow set up a new file, which gets its name when it is whole.

    An interruption leaves no file, and of two processes the second uses the first one's.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{file.name}-", dir=file.parent) as folder:
        fresh = Path(folder, file.name)
        MlflowClient(tracking_uri=f"sqlite:///{fresh}").search_experiments()
        try:
            file.hardlink_to(fresh)  # unlike a rename it never replaces
        except FileExistsError:
            pass
        except OSError:  # a file system without links
            fresh.rename(file)


def cut_off(file: Path, error: Exception) -> str | None:
    """Say of a file that it was set up halfway, if that is why MLflow has just failed."""
    if not MET_ITSELF.search(str(error)) or is_up_to_date(file):
        return None
    said = f"MLflow was cut off while it set up {file}, and cannot go on"
    if _is_without_runs(file):
        return f"{said}. No run is in it: delete it, and run this again."
    remedy = "Put back a copy of it from before"
    if copies := [name for name in _tables(file) if name.startswith("_alembic_tmp_")]:
        remedy += f"; or, in a copy, drop {', '.join(copies)}, run `mlflow db upgrade` and use that"
    return f"{said}. Runs are in it. {remedy}."


def misplaced(file: Path, experiment: str, location: str) -> str | None:
    """Say what is wrong and what to do if the database was moved or copied."""
    former, here = former_folder(location, file), file.resolve().parent
    if former is None:
        return None
    if not former.exists():
        remedy = f"Move it back, link the old place to the new one (ln -s {here} {former}), or"
    elif (former / file.name).exists():
        remedy = "Work there, or"
    else:
        remedy = f"Bring the files that are there to {here}, and"
    return (
        f"the folder of {file} was moved or copied: the files of its experiment {experiment} are "
        f"looked for, and new ones would be written, in {location}. {remedy} correct the paths as "
        f'pipeline/README.md, "In MLflow", says.'
    )


def former_folder(location: str, file: Path) -> Path | None:
    """Return the folder in which a database that was moved or copied believes it lies.

    Args:
        location: where an experiment's files are; what is no default place was chosen on purpose.
        file: the database.

    Returns:
        The former folder, or None: the experiment's files are where they should be.
    """
    parts = urlsplit(location)
    place = {"": location, "file": unquote(parts.path)}.get(parts.scheme, "")
    default = DEFAULT_PLACE.fullmatch(place)
    here = file.resolve().parent
    if default is None or Path(place).resolve().is_relative_to(here):
        return None
    former, below = Path(default[1]), default[2]
    came_along, is_copy = (here / below).is_dir(), (former / file.name).exists()
    is_unused = below == ARTIFACTS and not Path(place).is_dir()
    return former if came_along or is_copy or is_unused else None


def _migrations() -> ScriptDirectory:
    return ScriptDirectory(str(Path(mlflow.__file__).parent / "store" / "db_migrations"))


def _revision(file: Path) -> str | None:
    """Return the last migration that ended; None: none did."""
    if "alembic_version" not in _tables(file):
        return None
    return next(
        (str(row[0]) for row in _ask(file, "SELECT version_num FROM alembic_version")), None
    )


def _is_without_runs(file: Path) -> bool:
    counted = {"runs", "registered_models"}.intersection(_tables(file))
    return not any(_ask(file, f"SELECT 1 FROM {name} LIMIT 1") for name in counted)  # noqa: S608


def _tables(file: Path) -> list[str]:
    return [row[0] for row in _ask(file, "SELECT name FROM sqlite_master WHERE type = 'table'")]


def _ask(file: Path, query: str) -> list[tuple[str, ...]]:
    """Read from an existing file; it is opened for writing to undo what a killed process began."""
    connection = sqlite3.connect(
        f"file:{quote(str(file))}?mode=rw", uri=True, timeout=BUSY_TIMEOUT_S
    )
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()
