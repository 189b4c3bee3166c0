"""Files to rows beside the last commit without an engine.

The other side is a git worktree of that commit, made for the run and removed after it. Each side is
a process of its own that onboards the same pictures and then scores the same files, in turn with
the other, from a folder and from a bucket.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from jobs.local.s3 import LocalS3
from model.precision import Precision
from tests.bench.material import dump_of, write_pictures
from tests.bench.measure import Ratio

BEFORE = "17681a4"  # the last commit whose backbones PyTorch computed on CPUs
ROOT = Path(__file__).resolve().parents[2]
NUM_GOOD = 40
NUM_SCORED = 128
ROUNDS = 5
BUCKET_SHARE = 0.9  # of a target: from a bucket a tenth less will do
TARGETS: dict[tuple[str, str], float] = {  # images/s, by backbone and precision of today
    ("efficientnet_lite0", "float32"): 1.6,
    ("resnet18", "float32"): 1.2,
    ("resnet18", "int8"): 1.8,
    ("wide_resnet50_2", "int8"): 1.7,
}

# What either side runs, with its own code; a line in, a line out.
SIDE = """\
import json, sys, time
from pathlib import Path
from tests.bench.material import NIGHT, onboard
from pipeline.night.folder import NightFolder
from pipeline.night.listing import list_dump
from pipeline.night.scoring.plan import plan_night
from pipeline.night.scoring.scorer import ShardScorer
backbone, precision, pictures, dump, scratch, out = sys.argv[1:]
fleet = onboard(Path(scratch), Path(pictures), backbone, precision)
folder = NightFolder(out, NIGHT)
tasks = plan_night(list_dump(dump).images, fleet, folder).tasks
scorer = ShardScorer(fleet, folder)
for line in sys.stdin:
    wall, cpu = time.perf_counter(), time.process_time()
    scorer.write(tasks)
    print(json.dumps([time.perf_counter() - wall, time.process_time() - cpu]), flush=True)
"""


@dataclass(frozen=True, kw_only=True)
class Case:
    """What both sides score."""

    backbone: str
    precision: str  # of today's side; the other one has float32
    pictures: Path
    dump: str
    out: str


def before_and_now() -> Iterator[Ratio]:
    """Images/s from files to rows over those of the commit before."""
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        tree = stack.enter_context(worktree(scratch / "before"))
        server = stack.enter_context(LocalS3(scratch / "s3"))
        places = dict(_places(scratch, server))
        for (backbone, precision), target in TARGETS.items():
            if precision not in get_args(Precision):
                continue
            for number, (place, (pictures, dump, out)) in enumerate(places.items()):
                case = Case(
                    backbone=backbone, precision=precision, pictures=pictures, dump=dump, out=out
                )
                own = scratch / f"{backbone}-{precision}-{number}"
                asked = target * (1 if number == 0 else BUCKET_SHARE)
                name = f"before_and_now {backbone} {precision} {place}"
                yield _ratio(name, asked, _compared(case, tree, own, server.environment()))


@contextmanager
def worktree(folder: Path) -> Iterator[Path]:
    """Check out the commit before in a folder, for the block."""
    git = ["git", "-C", str(ROOT), "worktree"]
    subprocess.run([*git, "add", "--quiet", "--detach", str(folder), BEFORE], check=True)
    try:
        yield folder
    finally:
        subprocess.run([*git, "remove", "--force", str(folder)], check=True)


def _places(scratch: Path, server: LocalS3) -> Iterator[tuple[str, tuple[Path, str, str]]]:
    """Yield pictures, a dump of them and where rows go: PNGs in a folder, JPEGs in a bucket."""
    pictures = write_pictures(scratch / "png", NUM_GOOD, "png")
    dump_of(pictures, scratch / "dump", NUM_SCORED)
    yield "png, folder", (pictures, str(scratch / "dump"), str(scratch / "out"))
    pictures = write_pictures(scratch / "jpg", NUM_GOOD, "jpg")
    bucket = server.create_bucket("night")
    environment = {**os.environ, **server.environment()}
    copy = [sys.executable, "-c", COPY, str(pictures), f"{bucket}/dump", str(NUM_SCORED)]
    subprocess.run(copy, env=environment, cwd=ROOT, check=True)
    yield "jpg, bucket", (pictures, f"{bucket}/dump", f"{bucket}/out")


COPY = """\
import sys
from pathlib import Path
from pipeline import storage
files = sorted(Path(sys.argv[1]).iterdir())
for index in range(int(sys.argv[3])):
    file = files[index % len(files)]
    storage.write_bytes(f"{sys.argv[2]}/texture/{index:06d}{file.suffix}", file.read_bytes())
"""


def _compared(
    case: Case, tree: Path, scratch: Path, environment: Mapping[str, str]
) -> list[tuple[float, float]]:
    """Return wall and CPU seconds of a night, before and now: medians over the rounds."""
    with ExitStack() as stack:
        sides = [
            stack.enter_context(_side(case, root, scratch / name, environment))
            for name, root in (("before", tree), ("now", ROOT))
        ]
        rounds = [[_night(side) for side in sides] for _ in range(ROUNDS + 1)][1:]
    return [
        (
            statistics.median(nights[side][0] for nights in rounds),
            statistics.median(nights[side][1] for nights in rounds),
        )
        for side in (0, 1)
    ]


@contextmanager
def _side(
    case: Case, root: Path, scratch: Path, environment: Mapping[str, str]
) -> Iterator[subprocess.Popen[str]]:
    is_now = root == ROOT
    precision = case.precision if is_now else "float32"
    out = f"{case.out}/{case.precision}/{scratch.name}"  # one backbone may be before two precisions
    given = [case.backbone, precision, str(case.pictures), case.dump, str(scratch), out]
    process = subprocess.Popen(
        [sys.executable, "-c", SIDE, *given],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **environment, "PYTHONPATH": str(root)},
        cwd=root,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _night(side: subprocess.Popen[str]) -> tuple[float, float]:
    assert side.stdin is not None
    assert side.stdout is not None
    side.stdin.write("score\n")
    side.stdin.flush()
    answer = side.stdout.readline()
    if not answer:
        raise RuntimeError(f"{side.args} ended before its night did")
    wall_s, cpu_s = json.loads(answer)
    return wall_s, cpu_s


def _ratio(name: str, target: float, costs: list[tuple[float, float]]) -> Ratio:
    (wall, cpu), (wall_now, cpu_now) = costs
    detail = (
        f"{NUM_SCORED / wall:.0f} images/s, now {NUM_SCORED / wall_now:.0f}; CPU ms/image "
        f"{1e3 * cpu / NUM_SCORED:.1f}, now {1e3 * cpu_now / NUM_SCORED:.1f}, "
        f"{cpu / cpu_now:.2f} times"
    )
    return Ratio(name=name, value=wall / wall_now, target=target, detail=detail)
