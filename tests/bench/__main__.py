"""``make bench``: every speed and memory promise as a ratio of two measurements of one run."""

import argparse
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from jobs.cluster.join import WORKER_ENVIRONMENT
from tests.bench.before import before_and_now
from tests.bench.cache import onboarding_memory
from tests.bench.calibration import realised_false_alarms
from tests.bench.engine import engine
from tests.bench.feeding import feeding
from tests.bench.measure import Ratio
from tests.bench.night import (
    corrupt_images,
    many_categories,
    mixed_batch,
    nothing_new,
    resident_heads,
)
from tests.bench.reference import inference_vs_reference, training_vs_reference
from tests.bench.scoring import (
    features_once,
    scoring_memory,
    scoring_precision,
    scoring_throughput,
    tiles_as_images,
)
from tests.bench.settling import settling
from tests.bench.study import study_vs_processes
from tests.bench.whole_night import night_from_s3, night_memory, scaled_decoding

BENCHMARKS: dict[str, Callable[[], Iterator[Ratio]]] = {
    benchmark.__name__: benchmark
    for benchmark in (
        *(before_and_now, engine, feeding),
        *(features_once, scoring_throughput, scoring_precision, scoring_memory),
        tiles_as_images,
        *(inference_vs_reference, training_vs_reference, onboarding_memory),
        *(realised_false_alarms, settling, study_vs_processes),
        *(mixed_batch, many_categories, resident_heads, corrupt_images, nothing_new),
        *(night_from_s3, scaled_decoding, night_memory),
    )
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--only", choices=BENCHMARKS, action="append", help="may be given twice")
    parser.add_argument("--json", type=Path, help="also write the ratios to this file")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was made for a run is removed
    os.environ.update(WORKER_ENVIRONMENT)  # what is timed runs in processes started from here
    console = Console(highlight=False, soft_wrap=True)
    ratios = []
    for name in arguments.only or BENCHMARKS:
        for ratio in BENCHMARKS[name]():
            console.print(ratio.line)
            ratios.append(ratio)
    console.rule("ratios")
    for ratio in ratios:
        console.print(ratio.line.split("  target")[0], "" if ratio.met else "[red]missed[/red]")
    if arguments.json:
        measured = [asdict(ratio) | {"met": ratio.met} for ratio in ratios]
        arguments.json.write_text(json.dumps(measured, indent=2))


if __name__ == "__main__":
    main()
