"""What an inspection says of one category."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from model.preprocessing import Preprocessing
from pipeline.checks import Verdict, failed, passed, worst
from pipeline.data_report.category_reading import Reading
from pipeline.data_report.setting_comparison import Comparison
from pipeline.inspection.data_checks import examine
from pipeline.inspection.found import Line
from pipeline.inspection.suspects import are_suspects
from pipeline.onboarding.squeeze import Squeeze, in_words

LISTED_SHARE, LEAST_LISTED = 0.2, 20  # of the training images, those that are least usual


@dataclass(frozen=True, kw_only=True)
class CategoryReport:
    """The lines of one category, and its training images from the least usual on."""

    name: str
    num_images: int
    lines: Sequence[Line]
    least_usual: Sequence[dict[str, Any]] = ()  # uri, score, suspected
    preprocessing: Preprocessing | None = None  # how its pictures are read; None: there are none
    error: str | None = None  # why it could not be looked at
    zones_picture: str = ""  # a data: address; none where all of an image counts
    squeeze: Squeeze | None = None
    sizes: Comparison | None = None  # of defects that are found

    @property
    def verdict(self) -> Verdict:
        """The worst of its lines."""
        return worst([line.check for line in self.lines])

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "verdict": self.verdict.value,
            "images": self.num_images,
            "error": self.error,
            "checks": [line.to_json() for line in self.lines],
            "least_usual": list(self.least_usual),
            "squeeze": self.squeeze and asdict(self.squeeze),
            "defect_sizes": self.sizes and self.sizes.to_json(),
        }


def report_on(reading: Reading) -> CategoryReport:
    """Look at a category's images."""
    images = reading.images
    lines = examine(images)
    if reading.findings:
        lines.append(Line(check=passed("layout", "; ".join(reading.findings))))
    lines += [reading.zones] if reading.zones else []
    said = {
        "resolution": in_words(reading.squeeze) if reading.squeeze else "",
        "defect sizes": reading.sizes.sentence if reading.sizes else "",
    }
    lines += [Line(check=passed(name, finding)) for name, finding in said.items() if finding]
    index, scores = images.least_usual
    flags = are_suspects(scores)
    shown = max(LEAST_LISTED, round(LISTED_SHARE * len(index)))
    ranked = zip(index[:shown], scores[:shown], flags[:shown], strict=True)
    return CategoryReport(
        name=images.name,
        num_images=len(images.samples) + len(images.unreadable),
        lines=lines,
        least_usual=[
            {"uri": images.uris[place], "score": round(float(score), 4), "suspected": bool(flag)}
            for place, score, flag in ranked
        ],
        preprocessing=reading.category.preprocessing,
        zones_picture=reading.zones_picture,
        squeeze=reading.squeeze,
        sizes=reading.sizes,
    )


def report_of_error(name: str, error: str) -> CategoryReport:
    """Return the report of a category that cannot be looked at."""
    check = failed("category", error, "Mend that and inspect it again.")
    return CategoryReport(name=name, num_images=0, lines=[Line(check=check)], error=error)
