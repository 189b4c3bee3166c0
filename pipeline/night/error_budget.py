"""How many images may fail before a night is no good."""

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.images.decode import ImageStatus
from pipeline.night.summary import CategorySummary, Summary

FEW = 3  # images: so few fail somewhere every night, and in a small dump they are a large share


@dataclass(frozen=True, kw_only=True)
class ErrorBudget:
    """Shares of images that have a model but no score and are still accepted, each in [0, 1].

    Up to FEW images are accepted whatever their share, unless the budget is 0. Unrouted images
    are not errors of the night: somebody has yet to onboard their category.
    """

    night: float = 0.01  # of all images
    category: float = 0.1  # of one category's

    def __post_init__(self) -> None:
        for name, share in vars(self).items():
            if not 0 <= share <= 1:
                raise ValueError(f"the error budget of a {name} must lie in [0, 1], got {share:g}")

    def overruns(self, summary: Summary) -> list[str]:
        """Say, a sentence each, why the night is no good; the worst categories first."""
        if summary["images"] and not summary["totals"].get(ImageStatus.OK):
            return [f"none of {summary['images']} images has a score"]
        failed = {name: num_failed(entry) for name, entry in summary["categories"].items()}
        sentences = []
        if _exceeds(sum(failed.values()), self.night, summary["images"]):
            sentences.append(_sentence("the night", sum(failed.values()), summary["images"]))
        worst = sorted(self._overrun_categories(summary), key=lambda entry: -entry[1] / entry[2])
        return sentences + [_sentence(*entry) for entry in worst]

    def _overrun_categories(self, summary: Summary) -> Iterator[tuple[str, int, int]]:
        for name, entry in summary["categories"].items():
            if _exceeds(num_failed(entry), self.category, entry["images"]):
                yield f"category {name}", num_failed(entry), entry["images"]


def num_failed(category: CategorySummary) -> int:
    """Images of a category that have a model but no score."""
    return sum(category["failed"].values())


def _exceeds(failed: int, share: float, images: int) -> bool:
    return failed > max(share * images, FEW if share else 0)


def _sentence(what: str, failed: int, images: int) -> str:
    return f"{what}: {failed} of {images} images failed, more than the error budget allows"
