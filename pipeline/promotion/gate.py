"""Ask the gate about one category: compare, judge, keep the evidence, and promote if it says so.

The evidence is kept before the alias moves. Whoever was killed asks again: the same evidence is
the same look and the same verdict. The page is written before as well: where it cannot be, no alias
moves.
"""

import datetime as dt
import hashlib
import json
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace

import numpy as np

from model.detector import Detector
from model.errors import CategoryFault, NightshiftError
from model.preprocessing import Preprocessing
from pipeline.backbones import Fetch, LoadedBackbone
from pipeline.evaluation.cost import measure_cost
from pipeline.package import Package, PackageError
from pipeline.predictor import Predictor
from pipeline.promotion.evidence import Evidence, compare, gather
from pipeline.promotion.gate_answer import GateAnswer
from pipeline.promotion.gate_page import write_gate_page
from pipeline.promotion.gate_verdict import LEVEL, GateConfig, GateVerdict, judge
from pipeline.promotion.versions import fetched, version_of
from pipeline.registry import aliases, gate_record, models
from pipeline.registry.aliases import CHALLENGER, CHAMPION, AliasError, Reason
from pipeline.registry.models import RegisteredVersion

LONGEST = 1000  # characters of a reason in a tag
DIGITS = 16  # of the digest that evidence is known by


class ChampionNotUsable(CategoryFault):
    """The champion is not known to be damaged or gone, and cannot score here and now."""


@dataclass(frozen=True, kw_only=True)
class GateOptions:
    """How a category is asked about."""

    out: str  # folder of results and labels
    nights: int = 5
    images: int = 500  # of these nights in all
    margin: float | None = None  # the champion's false-alarm rate when None
    level: float = LEVEL
    version: int | None = None  # the challenger; by its alias when None
    force_because: str = ""  # promote whatever the verdict, for this reason


def ask(category: str, options: GateOptions) -> GateAnswer:
    """Compare a category's challenger with its champion and promote it if the gate says so.

    Raises:
        AliasError: there is no challenger, it is the champion, or another became it meanwhile.
        ChampionNotUsable: it cannot be fetched now, or cannot score on this machine.
        CategoryFault: the challenger cannot be used.
        LabelsError, ManifestError: stored files are damaged.
        RegistryError, StorageError: MLflow or the storage is away.
    """
    return conclude(compared(category, options, LoadedBackbone()), options)


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A challenger that was judged; nothing is written or promoted yet."""

    answer: GateAnswer
    challenger: RegisteredVersion
    preprocessing: Preprocessing  # how its images are read
    digest: str = ""  # of the evidence; empty where there is none


def compared(category: str, options: GateOptions, fetch: Fetch) -> Compared:
    """Judge a category's challenger; ``fetch`` loads backbones. Raises as ``ask``."""
    known = aliases.history(category)
    challenger = _challenger(category, known, options.version)
    if challenger.is_champion:
        raise AliasError(
            f"{category}: version {challenger.version} is the champion, and there is no other "
            f"challenger. Onboard or recalibrate the category first, or name a --version."
        )
    with ExitStack() as stack:
        own = stack.enter_context(fetched(challenger)).package
        _detector(own, fetch)
        champion = version_of(known, CHAMPION) if CHAMPION in known.aliases else None
        usable = _usable_champion(champion, stack, fetch, forced=bool(options.force_because))
        if isinstance(usable, Package):
            assert champion is not None
            return _compared(category, (champion, usable), (challenger, own), options, fetch)
        answer = _without_champion(category, champion, challenger, usable)
        way = own.header.preprocessing
        return Compared(answer=answer, challenger=challenger, preprocessing=way)


def conclude(judged: Compared, options: GateOptions) -> GateAnswer:
    """Keep the evidence, write the page, and promote where the verdict says so.

    Raises:
        AliasError: the champion has changed since.
        RegistryError, StorageError: MLflow or the storage is away.
    """
    if judged.digest:
        _note(judged.answer, judged.challenger, judged.digest)
    page = write_gate_page(judged.answer, options.out, judged.preprocessing)
    answer = _carry_out(judged.answer, judged.challenger, options)
    if answer.promoted:
        with suppress(NightshiftError):  # the champion has changed, and that has to be reported
            write_gate_page(answer, options.out, judged.preprocessing)
    return replace(answer, page=page)


def _challenger(
    category: str, known: aliases.AliasHistory, number: int | None
) -> RegisteredVersion:
    if number is None:
        return version_of(known, CHALLENGER)
    version = models.find_version(category, number)
    if version is None:
        raise AliasError(f"{category}: version {number} is not registered; name one that is")
    return version


def _detector(package: Package, fetch: Fetch) -> Detector:
    """Load a package as the night would.

    Raises:
        CategoryFault: it cannot score on this machine.
    """
    return Predictor(package, fetch(package.header.backbone_config)).detector


def _usable_champion(
    champion: RegisteredVersion | None, stack: ExitStack, fetch: Fetch, *, forced: bool
) -> Package | tuple[GateVerdict, str]:
    """Return the champion's package, or what follows from there being none, and why.

    Raises:
        ChampionNotUsable: it may be whole, and cannot score here and now; not where ``forced``.
    """
    if champion is None:
        return GateVerdict.PROMOTE, "the category has no champion yet"
    try:
        package = stack.enter_context(fetched(champion)).package
        _detector(package, fetch)
    except PackageError as error:  # damaged or gone, for every machine
        return GateVerdict.PROMOTE, f"the champion cannot be used any more: {error}"
    except CategoryFault as error:  # no answer, no disk, no weights or no int8: here and now
        if not forced:
            raise ChampionNotUsable(
                f"{champion.category}: the champion, version {champion.version}, cannot be used "
                f"here and now, so that nothing can be compared: {error} Ask again, or where it "
                f"can be used, or promote unjudged with --force --because TEXT."
            ) from error
        return GateVerdict.KEEP, f"the champion cannot be used here: {error}"
    return package


def _without_champion(
    category: str,
    champion: RegisteredVersion | None,
    challenger: RegisteredVersion,
    said: tuple[GateVerdict, str],
) -> GateAnswer:
    return GateAnswer(
        category=category,
        verdict=said[0],
        reason=said[1],
        champion=champion.version if champion else None,
        challenger=challenger.version,
        promoted=False,
    )


def _compared(
    category: str,
    champion: tuple[RegisteredVersion, Package],
    challenger: tuple[RegisteredVersion, Package],
    options: GateOptions,
    fetch: Fetch,
) -> Compared:
    packages = champion[1], challenger[1]
    # Contents leave out what was learned from. The rest of that half has the fewer defects for it,
    # whichever of the two learned, and packages of earlier releases name no contents.
    learned = any(package.record.settings.get("labels") for package in packages)
    images = gather(category, options.out, options.nights, options.images, kept_half=learned)
    evidence = compare(*packages, images, fetch)
    rate = packages[0].reference.calibration.false_alarm_rate
    config = GateConfig(margin=options.margin or rate, level=options.level)
    digest = _digest(evidence, champion[0], config)
    look = _look(challenger[0], digest)
    judgement = judge(evidence.tally, config, look)
    answer = GateAnswer(
        category=category,
        verdict=judgement.verdict if evidence.tally.images else GateVerdict.KEEP,
        reason=judgement.reason if evidence.tally.images else _nothing(evidence, options),
        champion=champion[0].version,
        challenger=challenger[0].version,
        promoted=False,
        look=look,
        margin=config.margin,
        evidence=evidence,
        judgement=judgement,
        cost=_cost(*packages, fetch),
    )
    return Compared(
        answer=answer,
        challenger=challenger[0],
        preprocessing=packages[1].header.preprocessing,
        digest=digest,
    )


def _nothing(evidence: Evidence, options: GateOptions) -> str:
    left_out = ", ".join(f"{number} {why}" for why, number in evidence.left_out.items())
    return (
        f"there is nothing to compare them by: no image of the last nights below {options.out} and "
        f"no labelled one counts ({left_out or 'none is listed'}). Score a night, or import "
        f"labels"
    )


def _digest(evidence: Evidence, champion: RegisteredVersion, config: GateConfig) -> str:
    content = [asdict(evidence.tally), champion.digest, asdict(config)]
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]


def _look(challenger: RegisteredVersion, digest: str) -> int:
    """How often labelled evidence was judged, this time included; the same evidence is one look."""
    earlier = gate_record.earlier_verdicts(challenger)
    if digest in earlier:
        return int(earlier[digest]["look"])
    return 1 + sum(bool(each["told"]) for each in earlier.values())


def _cost(champion: Package, challenger: Package, fetch: Fetch) -> dict[str, dict[str, float]]:
    """Time of an image and room of the heads, on images that the packages hold."""
    return {
        name: found
        for name, package in (("champion", champion), ("challenger", challenger))
        if (found := _cost_of(package, fetch)) is not None
    }


def _cost_of(package: Package, fetch: Fetch) -> dict[str, float] | None:
    if package.check_images is None:
        return None
    preprocessing = package.header.preprocessing
    images = list(package.check_images)
    if preprocessing.tiles is not None:  # those are small; its usual size says how many tiles pass
        images = [np.zeros((*preprocessing.size_read, 3), np.uint8)]
    cost = measure_cost(_detector(package, fetch), images)
    return None if cost is None else asdict(cost)


def _note(answer: GateAnswer, challenger: RegisteredVersion, digest: str) -> None:
    assert answer.evidence is not None
    assert answer.judgement is not None
    short = {
        "at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "verdict": answer.verdict,
        "champion": answer.champion,
        "look": answer.look,
        "told": answer.evidence.tally.num_told,
        "reason": answer.reason[:LONGEST],
        "p": {name: round(p, 6) for name, p in vars(answer.judgement).items() if name[-2:] == "_p"},
    }
    gate_record.note_verdict(challenger, digest, short, answer.to_json())


def _carry_out(
    answer: GateAnswer, challenger: RegisteredVersion, options: GateOptions
) -> GateAnswer:
    """Promote where the verdict says so, or where somebody insists."""
    if answer.verdict is not GateVerdict.PROMOTE and not options.force_because:
        return answer
    forced = answer.verdict is not GateVerdict.PROMOTE
    because = f"forced: {options.force_because}" if options.force_because else answer.reason
    evidence = f"the gate said {answer.verdict}" + (f", {answer.reason}" if forced else "")
    reason = Reason(by="promote", because=because, evidence=evidence)
    models.promote(challenger, reason, instead_of=answer.champion)
    return replace(answer, promoted=True)
