"""An inspection's files: beside one another, and in MLflow."""

import hashlib

from pipeline import storage
from pipeline.data_report.inspection import PAGE_FILE, Inspection
from pipeline.registry import connection, runs
from pipeline.registry.runs import RunRecord


def connect() -> None:
    """See that MLflow can be logged to, before the work.

    Raises:
        RegistryError, RegistryUnfit: it cannot.
    """
    connection.connect(connection.INSPECTIONS)


def place_of_dump(out: str, dump: str) -> str:
    """Return where the files of an inspection go, of a dump at an absolute address."""
    name = dump.rstrip("/").rpartition("/")[2]
    return storage.join(
        out, "inspections", f"{name}-{hashlib.sha256(dump.encode()).hexdigest()[:8]}"
    )


def write(done: Inspection, out: str) -> str:
    """Write answer and page below ``out`` and log them; return the page's address.

    Raises:
        StorageError, RegistryError: one of the two is away or refuses.
    """
    files = done.files()
    for name, content in files.items():
        storage.write_bytes(storage.join(out, name), content)
    runs.log_run(
        RunRecord(
            experiment=connection.INSPECTIONS,
            name=f"inspect {done.place.rpartition('/')[2]}",
            key=hashlib.sha256("\n".join([done.place, *done.reports]).encode()).hexdigest(),
            category=next(iter(done.reports)) if len(done.reports) == 1 else "",
            settings={"inspected": done.place, "categories": len(done.reports)},
            metrics=done.metrics,
            files=files,
        )
    )
    return storage.join(out, PAGE_FILE)
