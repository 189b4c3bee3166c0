"""What the selections of RealNet are worth: each against none, on the same features and pairs.

python -m tests.bench.realnet_ablation CATALOGUE [--only NAME] [--seeds 3]
"""

import argparse
from collections.abc import Iterator

from rich.console import Console

from pipeline.catalogue.catalogue import Category, load_catalogue, select
from pipeline.evaluation.protocol import CategoryResult, Protocol

VARIANTS = {
    "afs, ranked": {},
    "random channels": {"selection": "random"},
    "all residuals": {"residuals": "all"},
}
METRICS = {
    "image_auroc": "image AUROC",
    "pixel_auroc": "pixel AUROC",
    "pixel_average_precision": "pixel AP",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench.realnet_ablation", description=__doc__
    )
    parser.add_argument("catalogue", help="its categories have `detector: realnet`")
    parser.add_argument("--only", action="append", default=[])
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    console = Console(highlight=False, soft_wrap=True)
    for category in select(load_catalogue(arguments.catalogue), arguments.only):
        for name, result in measure(category, arguments.seeds):
            console.print(f"{category.name}, {name}: {in_words(result)}")


def measure(category: Category, num_seeds: int) -> Iterator[tuple[str, CategoryResult]]:
    """Yield what each variant comes to; the backbone sees every image once."""
    protocol = Protocol(num_seeds=num_seeds, progress=lambda *_: None)
    for name, changes in VARIANTS.items():
        settings = category.realnet.model_copy(update=changes)
        yield name, protocol.measure(category.model_copy(update={"realnet": settings}))


def in_words(result: CategoryResult) -> str:
    summary = result.summary()
    figures = [
        f"{label} {100 * summary[metric][0]:.1f} ± {100 * (summary[metric][1] or 0):.1f}"
        for metric, label in METRICS.items()
        if metric in summary
    ]
    return ", ".join(figures)


if __name__ == "__main__":
    main()
