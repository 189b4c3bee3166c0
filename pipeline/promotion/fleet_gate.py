"""The gate for all categories with a challenger at once, with one promise for all of them.

Who asks about a thousand challengers at 5 % each promotes fifty that are no better. So together
they are promoted by the rule of Benjamini and Hochberg: of those that one call promotes, at most
``level`` are no better on average. Each by itself still has to pass its own gate, with all its
looks; a call can only promote fewer than as many calls for one category would, and asking again
about the same evidence promotes no more.

A challenger without a label of an image on which the two differ cannot pass, whatever is true of
it, and does not count among those that are judged. Nor does one whose champion is gone, which needs
no evidence.

Source: Benjamini and Hochberg 1995, Journal of the Royal Statistical Society B 57, theorem 1, for
independent tests: categories share no image.
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from model.errors import NightshiftError, ServiceAway
from pipeline import storage
from pipeline.backbones import LoadedBackbone
from pipeline.pages.environment import render_page
from pipeline.promotion.gate import Compared, GateOptions, compared, conclude
from pipeline.promotion.gate_answer import GateAnswer
from pipeline.promotion.gate_verdict import GateVerdict, Judgement
from pipeline.registry import models
from pipeline.registry.aliases import CHALLENGER

TEMPLATE = "promotion/static/fleet_gate.html.j2"


@dataclass(frozen=True, kw_only=True)
class FleetAnswer:
    """What the gate said of every challenger."""

    answers: Sequence[GateAnswer]
    failed: dict[str, str]  # categories that could not be asked about, and why
    num_judged: int  # challengers that shared the level
    level: float  # of those promoted, the share that is no better, on average at most
    page: str  # address

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        answers = [answer.to_json() for answer in self.answers]
        return {**asdict(replace(self, answers=())), "answers": answers}


def ask_all(options: GateOptions, only: Collection[str] | None = None) -> FleetAnswer:
    """Ask about every category that has a challenger; one that fails stops no other.

    Args:
        options: how each is asked about; ``level`` is that of all together.
        only: names of categories; by default all.

    Raises:
        ServiceAway: MLflow or the storage does not answer.
    """
    fetch, judged, failed = LoadedBackbone(), [], {}
    versions = models.with_alias(CHALLENGER)
    names = {name for name, each in versions.items() if not each.is_champion}
    for category in sorted(names if only is None else names & {*only}):
        try:
            judged.append(compared(category, options, fetch))
        except ServiceAway:
            raise
        except NightshiftError as error:
            failed[category] = str(error)
    ready, num_judged = _together(judged, options.level)
    answers = []
    for each in ready:
        try:
            answers.append(conclude(each, options))
        except ServiceAway:
            raise
        except NightshiftError as error:
            failed[each.answer.category] = str(error)
    answers.sort(key=lambda answer: (list(GateVerdict).index(answer.verdict), answer.category))
    page = storage.join(storage.absolute(options.out), "promotion", "index.html")
    done = FleetAnswer(
        answers=answers, failed=failed, num_judged=num_judged, level=options.level, page=page
    )
    _write(done)
    return done


def _together(judged: Sequence[Compared], level: float) -> tuple[list[Compared], int]:
    """Leave out promotions that all together do not bear; also count those that were judged."""
    shared = [each for each in judged if _is_judged(each.answer)]
    passed = promoted_together(
        [p_value(each.answer.judgement, level) for each in shared if each.answer.judgement], level
    )
    held_back = {
        each.answer.category
        for each, passes in zip(shared, passed, strict=True)
        if each.answer.verdict is GateVerdict.PROMOTE and not passes
    }
    reason = (
        f"alone it would be promoted, and not among {len(shared)} challengers that are judged "
        f"together: it takes more labels. So far "
    )
    told = [
        replace(
            each,
            answer=replace(
                each.answer,
                verdict=GateVerdict.NEEDS_LABELS,
                reason=reason + each.answer.reason,
            ),
        )
        if each.answer.category in held_back
        else each
        for each in judged
    ]
    return told, len(shared)


def _is_judged(answer: GateAnswer) -> bool:
    return answer.evidence is not None and answer.evidence.tally.num_told > 0


def p_value(judgement: Judgement, level: float) -> float:
    """P-value of a challenger over all its looks: it passes its gate where this is ``level``."""
    return min(1.0, max(judgement.better_p, judgement.not_worse_p) * level / judgement.level)


def promoted_together(p_values: Sequence[float], level: float) -> list[bool]:
    """Say which of several challengers are promoted, by Benjamini and Hochberg."""
    if not p_values:
        return []
    from scipy import stats  # noqa: PLC0415  a second to import

    adjusted = stats.false_discovery_control(p_values, method="bh")
    return [bool(p <= level) for p in adjusted]


def _write(done: FleetAnswer) -> None:
    """Write the page and what it shows as JSON."""
    folder = done.page.rpartition("/")[0]
    content = json.dumps(done.to_json(), indent=1).encode()
    storage.write_bytes(storage.join(folder, "gate.json"), content)
    links = {a.category: (a.page or "").removeprefix(f"{folder}/") for a in done.answers}
    page = render_page(TEMPLATE, {"done": done, "links": links, "headline": headline(done)})
    storage.write_bytes(done.page, page.encode())


def headline(done: FleetAnswer) -> str:
    """Say in one sentence what became of the challengers."""
    verdicts = [answer.verdict for answer in done.answers]
    num_promoted = sum(answer.promoted for answer in done.answers)
    parts = [f"{num_promoted:,} of {len(verdicts) + len(done.failed):,} challengers promoted"]
    parts += [
        f"{verdicts.count(verdict):,} {words}"
        for verdict, words in (
            (GateVerdict.NEEDS_LABELS, "need labels"),
            (GateVerdict.KEEP, "are kept out"),
        )
        if verdict in verdicts
    ]
    if done.failed:
        parts.append(f"{len(done.failed):,} could not be asked about")
    return ", ".join(parts)
