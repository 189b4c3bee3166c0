"""MLflow in a SQLite file: cut off while it is set up, and in a folder that was moved or copied."""

import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow.db
import pytest
from click.testing import CliRunner
from factory import make_package
from mlflow import MlflowClient
from sqlalchemy import event
from sqlalchemy.engine import Engine

from pipeline.checks import Verdict
from pipeline.doctor.services import check_mlflow
from pipeline.registry import connection, local_database, models
from pipeline.registry.connection import ONBOARDINGS, STUDIES, RegistryUnfit

README = Path(__file__).resolve().parents[1] / "pipeline/README.md"
# Statements of the 1,688 that set a database up, and what SQLite says to whom goes on after them.
FATAL = {"duplicate column": 40, "already exists": 800}
HARMLESS = 300


class Killed(BaseException):
    """Nothing that is caught below."""


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where MLFLOW_TRACKING_URI leads to; nothing is there yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/project/mlflow.db")
    return tmp_path / "project/mlflow.db"


@contextmanager
def killed_at(number: int) -> Iterator[None]:
    """End what is in the block when it comes to its so manieth SQL statement."""
    seen = 0

    def count(*_: object) -> None:
        nonlocal seen
        seen += 1
        if seen == number:
            raise Killed

    event.listen(Engine, "before_cursor_execute", count)
    try:
        with pytest.raises(Killed):
            yield
    finally:
        event.remove(Engine, "before_cursor_execute", count)


def leave_half_done(database: Path, number: int) -> None:
    """What MLflow itself leaves, or its server, when it is killed over a new file."""
    with killed_at(number):
        MlflowClient(tracking_uri=f"sqlite:///{database}").search_experiments()


def execute(database: Path, statements: str) -> None:
    with sqlite3.connect(database) as open_database:
        open_database.executescript(statements)
    open_database.close()


def test_a_set_up_that_is_killed_leaves_nothing_and_the_next_one_works(database: Path) -> None:
    with killed_at(FATAL["already exists"]):
        local_database.make(database)
    assert list(database.parent.iterdir()) == []
    connection.connect()
    assert [path.name for path in database.parent.iterdir()] == ["mlflow.db"]


def test_of_two_that_set_up_at_once_the_first_ones_file_stays(database: Path) -> None:
    database.parent.mkdir()
    database.write_bytes(b"of another process")
    local_database.make(database)
    assert database.read_bytes() == b"of another process"
    assert [path.name for path in database.parent.iterdir()] == ["mlflow.db"]


@pytest.mark.parametrize("begun", [False, True])
def test_a_slow_set_up_is_waited_for_and_said(
    begun: bool, database: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if begun:
        leave_half_done(database, HARMLESS)
    monkeypatch.setattr(connection, "SET_UP_TIMEOUT_S", 0.1)
    monkeypatch.setattr(connection, "PATIENCE_S", 0.05)
    connection.connect()
    assert [record.getMessage() for record in caplog.records if record.name == connection.__name__]
    assert "MLflow sets up the tables of sqlite:///" in caplog.text


@pytest.mark.parametrize("kind", FATAL)
def test_a_file_that_is_set_up_halfway_is_recognised_and_deleting_it_helps(
    kind: str, database: Path
) -> None:
    leave_half_done(database, FATAL[kind])
    with pytest.raises(RegistryUnfit) as caught:
        connection.connect()
    assert str(caught.value) == (
        f"MLflow was cut off while it set up {database}, and cannot go on. No run is in it: delete "
        f"it, and run this again."
    )
    [check] = check_mlflow()
    assert (check.verdict, check.finding) == (Verdict.FAIL, str(caught.value))
    database.unlink()
    mlflow_forgets(database)
    connection.connect()


def test_a_file_with_runs_is_not_to_be_deleted_and_what_is_said_instead_helps(
    database: Path,
) -> None:
    leave_half_done(database, FATAL["already exists"])
    execute(database, "INSERT INTO runs (run_uuid) VALUES ('precious')")
    with pytest.raises(RegistryUnfit, match="Runs are in it") as caught:
        connection.connect()
    assert "delete" not in str(caught.value)
    [table] = re.findall(r"drop (\w+), run `mlflow db upgrade`", str(caught.value))
    execute(database, f"DROP TABLE {table}")
    done = CliRunner().invoke(mlflow.db.commands, ["upgrade", f"sqlite:///{database}"])
    assert done.exit_code == 0, done.output
    connection.connect()


def mlflow_forgets(database: Path) -> None:
    """A new command is a new process; here MLflow would still have the deleted file open."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    engine = SqlAlchemyStore._engine_map.pop(f"sqlite:///{database}", None)
    if engine is not None:
        engine.dispose()


@pytest.fixture
def project(empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which a version was registered; MLFLOW_TRACKING_URI does not lead there."""
    monkeypatch.chdir(tmp_path)
    old = tmp_path / "old"
    old.mkdir()
    shutil.copy(empty_database, old / "mlflow.db")
    make_package(tmp_path / "package")
    with monkeypatch.context() as there:
        there.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{old}/mlflow.db")
        connection.connect(ONBOARDINGS)
        models.register("steel", "key", tmp_path / "package")
        connection.experiment_id(MlflowClient(), STUDIES)
    return old


def check_all_is_found(folder: Path) -> None:
    """What was registered before is there, and what is registered now goes where the rest is."""
    before = {path.name for path in (folder / "mlartifacts/models").iterdir()}
    for number in range(1, len(before) + 1):
        version = models.find_version("steel", number)
        assert version is not None
        assert models.download(version, folder.parent / f"download-{number}").is_dir()
    models.register("steel", "another key", folder.parent / "package")
    after = {path.name for path in (folder / "mlartifacts/models").iterdir()}
    assert len(after - before) == 1


def use(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")


def test_a_moved_project_is_named_and_a_link_helps(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = project.rename(tmp_path / "new")
    use(new, monkeypatch)
    with pytest.raises(RegistryUnfit) as caught:
        connection.connect()
    assert str(caught.value) == (
        f"the folder of {new}/mlflow.db was moved or copied: the files of its experiment nightshift"
        f" are looked for, and new ones would be written, in {project}/mlartifacts. Move it back, "
        f"link the old place to the new one (ln -s {new} {project}), or correct the paths as "
        f'pipeline/README.md, "In MLflow", says.'
    )
    [check] = check_mlflow()
    assert (check.verdict, check.finding) == (Verdict.FAIL, str(caught.value))
    project.symlink_to(new)
    connection.connect()
    check_all_is_found(new)


def test_a_copy_does_not_write_into_its_original_and_correcting_its_paths_helps(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = shutil.copytree(project, tmp_path / "copy")
    use(copy, monkeypatch)
    with pytest.raises(RegistryUnfit, match=r"mlartifacts\. Work there, or correct the paths"):
        connection.connect()
    correct_paths(project, copy)
    shutil.rmtree(project)
    connection.connect()
    check_all_is_found(copy)
    assert not project.exists()


def test_a_moved_project_that_wrote_into_the_old_place_gets_its_files_back(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As earlier releases did: no word, and a version of steel whose files lie elsewhere."""
    new = project.rename(tmp_path / "new")
    use(new, monkeypatch)
    models.register("steel", "after the move", tmp_path / "package")
    with pytest.raises(RegistryUnfit, match=rf"Bring the files that are there to {new}, and corr"):
        connection.connect()
    shutil.copytree(project / "mlartifacts", new / "mlartifacts", dirs_exist_ok=True)
    shutil.rmtree(project)
    correct_paths(project, new)
    connection.connect()
    check_all_is_found(new)


def correct_paths(old: Path, new: Path) -> None:
    """As the README says."""
    [statements] = re.findall(r"```sql\n(.*?)```", README.read_text(), re.DOTALL)
    execute(new / "mlflow.db", statements.replace("/old", str(old)).replace("/new", str(new)))


def test_each_experiment_is_looked_at(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first was corrected by hand, the one of studies was forgotten."""
    new = project.rename(tmp_path / "new")
    use(new, monkeypatch)
    execute(
        new / "mlflow.db",
        f"UPDATE experiments SET artifact_location = '{new}/mlartifacts' WHERE name = 'nightshift'",
    )
    with pytest.raises(RegistryUnfit, match="of its experiment nightshift-studies are looked for"):
        connection.connect()


# what is there (folders end in a slash) | an experiment's files | where the database was made
PLACES = {
    "made here": ("", "{root}/here/mlartifacts", None),
    "made here, as an address": ("", "file://{root}/here/mlartifacts", None),
    "made here by MLflow": ("here/mlruns/3/", "{root}/here/mlruns/3", None),
    "moved before anything was written": ("", "{root}/old/mlartifacts", "old"),
    "moved": ("here/mlartifacts/", "{root}/old/mlartifacts", "old"),
    "moved, with an address": ("here/mlartifacts/", "file://{root}/old/mlartifacts", "old"),
    "moved into a folder of the old name": (
        "here/mlartifacts/",
        "{root}/a/here/mlartifacts",
        "a/here",
    ),
    "moved, made by MLflow": ("here/mlruns/3/", "{root}/old/mlruns/3", "old"),
    "moved, then used": (*("here/mlartifacts/ old/mlartifacts/", "{root}/old/mlartifacts", "old"),),
    "copied": ("old/mlflow.db old/mlartifacts/", "{root}/old/mlartifacts", "old"),
    "copied, made by MLflow": ("old/mlflow.db old/mlruns/3/", "{root}/old/mlruns/3", "old"),
    "the database alone was moved": ("old/mlartifacts/", "{root}/old/mlartifacts", None),
    "MLflow ran elsewhere": ("here/mlruns/1/", "{root}/old/mlruns/3", None),
    "chosen on purpose": ("", "{root}/data/of-our-own", None),
    "in a bucket": ("", "s3://bucket/mlartifacts", None),
    "behind a server": ("", "mlflow-artifacts:/mlruns/3", None),
}


@pytest.mark.parametrize(("there", "location", "former"), PLACES.values(), ids=PLACES)
def test_where_a_database_was_made(
    there: str, location: str, former: str | None, tmp_path: Path
) -> None:
    for name in ["here/mlflow.db", *there.split()]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if name.endswith("/") else path.touch()
    found = local_database.former_folder(
        location.format(root=tmp_path), tmp_path / "here/mlflow.db"
    )
    assert found == (None if former is None else tmp_path / former)


@pytest.mark.parametrize(
    ("uri", "file"),
    [
        ("sqlite:///mlflow.db", "mlflow.db"),
        ("sqlite:////data/mlflow.db", "/data/mlflow.db"),
        ("sqlite+pysqlite:////data/mlflow.db?timeout=9", "/data/mlflow.db"),
        ("sqlite:///:memory:", None),
        ("sqlite://", None),
        ("postgresql+psycopg2://user:password@host/mlflow", None),
        ("http://host:5000", None),
        ("mlruns", None),
    ],
)
def test_a_local_database_is_told_from_a_server(uri: str, file: str | None) -> None:
    assert local_database.database_file(uri) == (None if file is None else Path(file))
