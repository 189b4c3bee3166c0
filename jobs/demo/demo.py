"""The whole story on real solar cells: onboard two categories, score two nights, write the reports.

Needs no server and no download: images and backbone weights come from installed packages, the
object store is a local one that lives as long as the demo, MLflow writes to SQLite. Afterwards
``open_shell`` starts the object store again, with the same images under the same addresses.
"""

import os
import subprocess
import sysconfig
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from jobs.cluster.join import cluster
from jobs.demo import guide, material
from jobs.local.s3 import LocalS3
from jobs.night.score import score
from jobs.onboard.onboard import OnboardingOptions, onboard
from jobs.terminal.progress import Display
from pipeline import storage
from pipeline.catalogue.catalogue import load_catalogue
from pipeline.images.prefetch import read_ahead
from pipeline.night.folder import NightFolder

BUCKET = "nightshift-demo"
UPLOADS_AT_ONCE = 16


def run_demo(
    out: Path,
    cells: Sequence[material.Cell] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> bool:
    """Run the demo under ``out`` and print what came of it; return whether it went well.

    ``settings`` are defaults of the catalogue that are not the demo's own.
    """
    console, started = Console(stderr=True), time.monotonic()
    cells = cells or material.read_cells()
    catalogue = load_catalogue(str(material.write_onboarding(cells, out / "onboarding", settings)))
    material.write_nights(cells, out / "dumps")
    console.print("Starting a local object store and a local Ray cluster")
    with servers(out), cluster():
        options = OnboardingOptions(runs=str(out / "runs"))
        failed = [outcome for outcome in onboard(catalogue, options) if outcome.error]
        for outcome in failed:
            console.print(f"[red]{outcome.category}: {outcome.error}")
        if failed:
            return False
        nights = {
            night: score(f"s3://{BUCKET}/{night}", NightFolder(str(out / "results"), night))
            for night in (material.FIRST_NIGHT, material.SECOND_NIGHT)
        }
    guide.print_guide(out, cells, nights, time.monotonic() - started)
    return True


def open_shell(out: Path) -> int:
    """Run a shell in ``out`` in which the demo's addresses work; return its exit code.

    Raises:
        DemoMaterialError: no demo was run there.
    """
    if not (out / "dumps").is_dir():
        raise material.DemoMaterialError(
            f"{out} holds no demo. Run `nightshift demo` first, or name its folder with --out."
        )
    path = f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    with servers(out), _environment({"PATH": path}):
        Console(stderr=True).print(f"Ready: s3://{BUCKET}; `exit` ends this shell and its servers")
        shell = os.environ.get("SHELL", "/bin/sh")
        return subprocess.run([shell], cwd=out, check=False).returncode  # noqa: S603  the user's


@contextmanager
def servers(out: Path) -> Iterator[None]:
    """Have the dumps in a local object store and MLflow in a file for the block."""
    tracking = {"MLFLOW_TRACKING_URI": f"sqlite:///{out}/mlflow.db"}
    with LocalS3(out / "s3") as server, _environment(server.environment() | tracking):
        upload(out / "dumps", server.create_bucket(BUCKET))
        yield


def upload(folder: Path, prefix: str) -> None:
    """Copy all files of a folder below a prefix; the first that cannot be written ends it."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]

    def copy(path: Path) -> None:
        uri = storage.join(prefix, path.relative_to(folder).as_posix())
        storage.write_bytes(uri, path.read_bytes())

    with Display("uploading").shown() as display:
        for num_written, _ in enumerate(read_ahead(copy, files, UPLOADS_AT_ONCE), start=1):
            display.update({"the nights' dumps": ("upload", num_written, len(files))})


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for the block: workers of a local cluster inherit them."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
