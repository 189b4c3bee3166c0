"""Settling a night: from rows as the workers left them to the rows that people read."""

from pathlib import Path

import pyarrow.compute as pc
from factory import make_fleet, make_package, write_images

from pipeline.image_statistics import STATISTICS, image_statistics
from pipeline.images import read_image
from pipeline.manifest import build_manifest
from pipeline.plan import plan_night
from pipeline.results import read_night
from pipeline.scoring import ShardScorer

NIGHT = "2026-03-12"


def test_a_scored_image_brings_its_statistics_and_waits_to_be_settled(tmp_path: Path) -> None:
    make_package(tmp_path / "package")
    fleet = make_fleet(str(tmp_path), NIGHT, {"steel": tmp_path / "package"})
    write_images(tmp_path / "dump/steel", range(700, 703))
    (tmp_path / "dump/steel/empty.png").write_bytes(b"")
    plan = plan_night(build_manifest(f"{tmp_path}/dump"), fleet, str(tmp_path), NIGHT)
    ShardScorer(fleet, str(tmp_path), NIGHT).write(plan.tasks)
    rows = read_night(str(tmp_path), NIGHT)
    bad = rows.filter(pc.not_equal(rows["status"], "ok")).to_pylist()
    assert [[row[name] for name in ("flagged_fdr", *STATISTICS)] for row in bad] == [[None] * 4]
    scored = rows.filter(pc.equal(rows["status"], "ok")).to_pylist()
    assert len(scored) == 3
    for row in scored:
        pixels = read_image(row["image_uri"], fleet["steel"].preprocessing).pixels
        assert pixels is not None
        alone = {name: float(v[0]) for name, v in image_statistics(pixels[None]).items()}
        assert {name: row[name] for name in STATISTICS} == alone
        assert row["flagged_fdr"] is False
