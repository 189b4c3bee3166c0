"""An onboarding with labels: what trains, what sets the threshold, and what does neither."""

import datetime as dt
import hashlib
import json
import shutil
from collections.abc import Mapping
from itertools import count, islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import factory
import numpy as np
import pytest
from command_line import Run
from scipy import stats

from model.label_head import LabelledHeads
from pipeline.calibration import CalibrationConfig, Part, fit
from pipeline.catalogue.catalogue import CatalogueError, load_catalogue
from pipeline.catalogue.rename_table import note_renames
from pipeline.catalogue.renames import Rename
from pipeline.labels.label import Label, to_rows
from pipeline.labels.label_table import LabelTable
from pipeline.labels.parts import is_for_gate
from pipeline.labels.told import Told, told_of
from pipeline.onboarding import label_head
from pipeline.onboarding.features import GoodImages
from pipeline.onboarding.finish import finish, write_package
from pipeline.onboarding.key import identify, onboarding_key
from pipeline.onboarding.labelled_images import Defects, LabelledImages, assign, nights_in_part
from pipeline.onboarding.prepare import PreparedCategory, prepare
from pipeline.package import Package
from pipeline.predictor import Predictor

Said = Mapping[Path, tuple[str, str]]  # label, and how the image was chosen


def add_labels(out: Path, said: Said, category: str = "steel", day: int = 13) -> None:
    when = dt.datetime(2026, 3, day, tzinfo=dt.UTC)
    labels = [
        Label(image_uri=str(path), category=category, label=word, chosen=how, labelled_at=when)  # type: ignore[arg-type]
        for path, (word, how) in said.items()
    ]
    LabelTable(str(out)).append(to_rows(labels))


class Factory:
    """A category, and night images of which it is known on which side of the gate they are."""

    def __init__(self, folder: Path) -> None:
        self.out, self.images = folder / "out", factory.make_category(folder / "steel", num_test=1)
        self._night, self._seeds = folder / "night", count(900_000)

    def new(self, number: int, *, for_gate: bool = False, scratched: bool = False) -> list[Path]:
        """Make night images, the same ones wherever the test has its files."""
        made: list[Path] = []
        for seed in islice(self._seeds, number):
            paths = (self._night / f"{place}/{seed:06d}.png" for place in count())
            path = next(path for path in paths if is_for_gate(str(path)) == for_gate)
            factory.write_images(path.parent, range(seed, seed + 1), scratched=scratched)
            made.append(path)
        return made

    def listed(self, name: str) -> Path:
        """A free place among the listed images, whose labels teach."""
        names = (self.images / f"train/good/{name}{number}.png" for number in count())
        return next(path for path in names if not is_for_gate(str(path)))

    def prepare(self, **changes: Any) -> PreparedCategory:
        return prepare(factory.category(self.images, labels=[str(self.out)], **changes))

    def key(self, **changes: Any) -> str:
        return onboarding_key(factory.category(self.images, **changes))


@pytest.fixture
def steel(tmp_path: Path) -> Factory:
    return Factory(tmp_path)


def parts_of(prepared: PreparedCategory, paths: list[Path]) -> list[Part | None]:
    """The part of each image; None where it is not among the good ones at all."""
    found = dict(zip(prepared.good.uris, prepared.parts, strict=True))
    return [Part(found[str(path)]) if str(path) in found else None for path in paths]


def digests(paths: list[Path]) -> list[str]:
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]


def test_confirmed_good_images_train_and_calibrate_only_whatever_their_score(
    steel: Factory,
) -> None:
    flagged, audit, unsure = steel.new(6), steel.new(12), steel.new(6)
    others = [*steel.new(2, for_gate=True), *steel.new(1), *steel.new(1)]
    said = ["good", "good", "unsure", "undo"]
    how = ["audit", "flagged", "flagged", "audit"]
    add_labels(
        steel.out,
        dict.fromkeys(flagged, ("good", "flagged"))
        | dict.fromkeys(audit, ("good", "audit"))
        | dict.fromkeys(unsure, ("unsure", "whole_dump"))
        | dict(zip(others, zip(said, how, strict=True), strict=True)),
    )
    prepared = steel.prepare(calibration_share=0.5)
    assert parts_of(prepared, flagged) == [Part.TRAIN] * 6
    assert {*parts_of(prepared, audit)} == {Part.TRAIN, Part.CALIBRATION}
    assert {*parts_of(prepared, unsure)} <= {Part.LEFT_OUT, Part.CALIBRATION}
    assert (prepared.is_used == (prepared.parts < Part.DUPLICATE)).all()
    assert parts_of(prepared, others) == [None] * 4
    told = "labels: 18 confirmed good images join training; 18 images that were chosen whatever"
    assert any(line.startswith(told) for line in prepared.findings)


def test_crossed_scores_of_images_that_were_chosen_by_their_score_set_no_threshold(
    steel: Factory,
) -> None:
    flagged, audit, unsure = steel.new(3), steel.new(2), steel.new(3)
    add_labels(
        steel.out,
        dict.fromkeys(flagged, ("good", "unknown"))
        | dict.fromkeys(audit, ("good", "audit"))
        | dict.fromkeys(unsure, ("unsure", "audit")),
    )
    two = {"members": 2, "passes": 1, "steps_per_pass": 1}
    prepared = steel.prepare(calibration="cross", training=two)
    for _ in prepared.trainer.run():
        pass
    package, _ = finish(prepared)
    assert parts_of(prepared, [*flagged, *audit]) == [Part.TRAIN] * 5
    assert parts_of(prepared, unsure) == [Part.LEFT_OUT] * 3  # high scores, and in the calibration
    assert len(package.reference.calibration.scores) == 40 + 2 + 3
    assert package.record.counts["train"] == 45
    assert package.record.has_used(digests(unsure)) == [True] * 3
    assert package.record.settings["labels"] == [str(steel.out)]


def test_what_a_label_calls_a_defect_is_good_nowhere_and_named(steel: Factory) -> None:
    listed = sorted((steel.images / "train/good").iterdir())
    night = [*steel.new(1), *steel.new(1, for_gate=True)]  # of a half each
    for source, copy in zip(listed[3:5], night, strict=True):
        shutil.copy(source, copy)
    add_labels(steel.out, dict.fromkeys([*night, listed[7]], ("defect", "flagged")))
    prepared = steel.prepare()
    left_out = [listed[3], listed[4], listed[7]]
    assert parts_of(prepared, left_out) == [Part.LEFT_OUT] * 3
    assert np.count_nonzero(prepared.parts == Part.LEFT_OUT) == 3
    finding = next(line for line in prepared.findings if "left out" in line)
    assert finding.startswith("labels: 3 images left out: their content is labelled defect: ")
    assert str(listed[3]) in finding
    assert not {str(path) for path in night if is_for_gate(str(path))} & {*prepared.defects.uris}
    assert parts_of(prepared, night) == [None, None]


@pytest.mark.parametrize(
    ("defects", "members", "finding"),
    [
        (12, 2, "labels: a head learned from 12 confirmed defects; with it, defects that it had "),
        (9, 2, "labels: no head learns from 9 confirmed defects: it takes 10 "),
        (12, 1, "labels: no head learns from 12 confirmed defects: this detector has tiles"),
    ],
)
def test_a_head_learns_from_enough_confirmed_defects(
    steel: Factory, tmp_path: Path, defects: int, members: int, finding: str
) -> None:
    scratched = steel.new(defects, scratched=True)
    others = steel.new(2, scratched=True, for_gate=True)
    add_labels(steel.out, dict.fromkeys([*scratched, *others], ("defect", "flagged")))
    prepared = steel.prepare(training={"members": members, "passes": 1, "steps_per_pass": 1})
    for _ in prepared.trainer.run():
        pass
    write_package(prepared, tmp_path / "package")
    package = Package.read(tmp_path / "package")
    learned = "a head learned" in finding
    assert isinstance(package.heads, LabelledHeads) == learned
    findings = "\n".join(package.record.findings)
    assert finding in findings
    assert package.record.counts["defects"] == defects
    assert package.record.has_used(digests(scratched)) == [learned] * defects
    assert package.record.settings["labels"] == ([str(steel.out)] if learned else [])
    said = Predictor(package, factory.backbone()).predict([str(path) for path in others])
    assert said["flagged"].all() or not isinstance(package.heads, LabelledHeads)


def test_shots_of_one_part_stay_together(steel: Factory) -> None:
    add_labels(steel.out, dict.fromkeys(steel.new(12, scratched=True), ("defect", "flagged")))
    two = {"members": 2, "passes": 1, "steps_per_pass": 1}
    prepared = steel.prepare(group=r"/9000(\d)\d\.png$", training=two)
    number = len({Path(uri).name[:5] for uri in prepared.defects.uris})
    assert prepared.defects.num_bursts == number < 10
    told = f"it takes 10 of different parts that may be learned from, and these are of {number}"
    assert any(told in line for line in label_head.say(prepared.trainer, prepared.defects))


def test_a_copy_of_a_defect_that_judges_teaches_nothing(steel: Factory) -> None:
    copies, judging = steel.new(4, scratched=True), steel.new(4, for_gate=True, scratched=True)
    for source, copy in zip(judging, copies[:3], strict=False):
        shutil.copy(source, copy)
    copies[3].write_bytes(b"no image")
    add_labels(steel.out, dict.fromkeys([*copies, *judging], ("defect", "flagged")))
    prepared = steel.prepare()
    assert not prepared.defects.uris
    assert len(prepared.defects.contents) == 4
    told = f"labels: 1 images labelled defect cannot be read: {copies[3]}"
    assert told in prepared.findings


def test_labels_of_the_gate_onboard_nothing_again(steel: Factory) -> None:
    (judging,), (other,) = steel.new(1, for_gate=True), steel.new(1)
    add_labels(steel.out, {other: ("good", "flagged")})
    key = steel.key(labels=[str(steel.out)])
    add_labels(steel.out, {judging: ("good", "audit")})
    assert steel.key(labels=[str(steel.out)]) == key


def test_a_package_knows_the_contents_that_it_is_made_from(steel: Factory, tmp_path: Path) -> None:
    learned, judging = steel.new(10, scratched=True), steel.new(1, for_gate=True, scratched=True)
    flagged, suspect = steel.new(2)
    labels = dict.fromkeys([*learned, *judging], ("defect", "flagged"))
    add_labels(steel.out, labels | {flagged: ("good", "flagged"), suspect: ("good", "flagged")})
    shutil.copy(judging[0], suspect)
    shutil.copy(next((steel.images / "test/good").iterdir()), steel.listed("copy"))
    prepared = steel.prepare(training={"members": 2, "passes": 1, "steps_per_pass": 1})
    for _ in prepared.trainer.run():
        pass
    write_package(prepared, tmp_path / "package")
    record = Package.read(tmp_path / "package").record
    listed = next((steel.images / "train/good").iterdir())
    used = record.has_used(digests([*learned, flagged, listed, *judging, suspect]))
    assert used == [True] * 12 + [False] * 2
    told = (
        f"train and test: 1 training images are test images too: {steel.images / 'train/good/copy'}"
    )
    assert any(line.startswith(told) for line in record.findings)


def test_images_that_are_gone_or_replaced_are_counted_and_named(steel: Factory) -> None:
    gone, replaced, kept, tested = *steel.new(3), next((steel.images / "test/scratch").iterdir())
    add_labels(
        steel.out, dict.fromkeys([gone, kept], ("good", "audit")) | {tested: ("defect", "audit")}
    )
    when = dt.datetime(2026, 3, 13, tzinfo=dt.UTC)
    label = Label(
        image_uri=str(replaced), image_etag="0-0", category="steel", label="good", labelled_at=when
    )
    LabelTable(str(steel.out)).append(to_rows([label]))
    gone.unlink()
    prepared = steel.prepare()
    assert parts_of(prepared, [gone, replaced]) == [None, None]
    assert parts_of(prepared, [kept]) != [None]
    told = f"labels: 2 images gone or replaced since they were labelled: {min(gone, replaced)}, "
    assert any(line.startswith(told) for line in prepared.findings)
    told = "labels: 1 images are test images or copies of them, from which nothing is learned: "
    assert f"{told}{tested}" in prepared.findings


def test_copies_of_test_images_teach_nothing(steel: Factory) -> None:
    tests = sorted((steel.images / "test").rglob("*.png"))[:2]
    good, defect, other = steel.new(3)
    for source, copy in zip(tests, (good, defect), strict=True):
        shutil.copy(source, copy)
    size = max(path.stat().st_size for path in (*tests, other))
    for path in (tests[0], good, other):  # all of one size
        path.write_bytes(path.read_bytes().ljust(size, b"."))
    slipped_in = steel.images / "train/good/slipped_in.png"
    shutil.copy(tests[1], slipped_in)
    labels = dict.fromkeys([good, other], ("good", "audit")) | {defect: ("defect", "flagged")}
    add_labels(steel.out, labels)
    prepared = steel.prepare()
    assert parts_of(prepared, [good, slipped_in]) == [None, Part.LEFT_OUT]
    assert parts_of(prepared, [other]) != [None]
    assert not prepared.defects.uris
    copies = ", ".join(sorted(map(str, (good, defect))))
    told = "labels: 2 images are test images or copies of them, from which nothing is learned: "
    assert told + copies in prepared.findings


def test_a_listed_copy_of_a_test_defect_teaches_nothing(steel: Factory) -> None:
    copy = steel.listed("copy")
    shutil.copy(next((steel.images / "test/scratch").iterdir()), copy)
    add_labels(steel.out, {copy: ("defect", "flagged")})
    prepared = steel.prepare()
    assert not prepared.defects.uris
    assert parts_of(prepared, [copy]) == [Part.LEFT_OUT]
    told = "labels: 1 images are test images or copies of them, from which nothing is learned: "
    assert f"{told}{copy}" in prepared.findings


def test_a_suspect_that_somebody_confirmed_is_not_dropped(steel: Factory) -> None:
    black = np.zeros((factory.SIDE, factory.SIDE, 3), np.uint8)
    black[::8] = 255
    path = steel.listed("stripes")
    factory.Image.fromarray(black).save(path)
    category = factory.category(steel.images, contamination="drop")
    assert parts_of(prepare(category), [path]) == [Part.SUSPECT]
    add_labels(steel.out, {path: ("good", "flagged")})
    assert parts_of(steel.prepare(contamination="drop"), [path]) != [Part.SUSPECT]
    add_labels(steel.out, {path: ("defect", "flagged")}, day=14)
    assert parts_of(steel.prepare(contamination="refuse"), [path]) == [Part.LEFT_OUT]


def test_listed_images_calibrate_as_they_are_listed_and_flagged_ones_are_named(
    steel: Factory,
) -> None:
    """To leave those out that were flagged would be to choose by their score."""
    (flagged,) = steel.new(1)
    copy = steel.images / "train/good/copy.png"
    shutil.copy(flagged, copy)
    listed = sorted((steel.images / "train/good").iterdir())
    own = [path for path in listed if path != copy and not is_for_gate(str(path))][:20]
    before = parts_of(prepare(factory.category(steel.images)), [*own, copy])
    add_labels(steel.out, dict.fromkeys([*own, flagged], ("good", "flagged")))
    prepared = steel.prepare()
    assert parts_of(prepared, [*own, copy]) == before
    assert parts_of(prepared, [flagged]) == [Part.DUPLICATE]
    assert any(
        line.startswith(f"labels: {len(own) + 1} images are listed, and were called good")
        for line in prepared.findings
    )


def test_what_is_left_of_a_sample_sets_no_threshold(steel: Factory) -> None:
    audit, defect = steel.new(12), steel.new(1)
    add_labels(
        steel.out,
        dict.fromkeys(audit, ("good", "audit")) | dict.fromkeys(defect, ("defect", "audit")),
    )
    defect[0].unlink()  # as defects are; good ones are as they were
    assert Part.CALIBRATION in parts_of(steel.prepare(calibration_share=0.5), audit)
    audit.pop().unlink()
    prepared = steel.prepare(calibration_share=0.5)
    assert Part.CALIBRATION not in parts_of(prepared, audit)
    told = "labels: no labelled image sets the threshold: of the samples of 1 nights a part is gone"
    assert any(line.startswith(told) for line in prepared.findings)


def test_nights_that_are_gone_whole_tell_nothing_of_others() -> None:
    nights = {"a": (True, True), "b": (False, False), "c": (True, False), None: (False, True)}
    told = {
        Told(f"{night} {row}", None, "good", False, night): is_there
        for night, each in nights.items()
        for row, is_there in enumerate(each)
    }
    assert nights_in_part(told) == ["c", "no night"]


def test_the_key_is_another_where_labels_that_matter_are_others(steel: Factory) -> None:
    image, second, kept = *steel.new(2), *steel.new(1, for_gate=True)
    plain, out = steel.key(), [str(steel.out)]
    add_labels(steel.out, {image: ("good", "audit")}, category="bolts")
    assert steel.key(labels=out) == plain
    add_labels(steel.out, {kept: ("good", "audit")})
    assert steel.key(labels=out) == plain
    add_labels(steel.out, {image: ("good", "flagged")})
    first = steel.key(labels=out)
    assert first != plain
    add_labels(steel.out, {second: ("defect", "flagged")})
    with_defect = steel.key(labels=out)
    assert with_defect not in {plain, first}
    add_labels(steel.out, {second: ("defect", "audit")}, day=14)  # once its sample is complete
    assert steel.key(labels=out) == with_defect
    assert steel.key() == plain


def test_an_onboarding_learns_from_the_labels_that_are_in_its_key(steel: Factory) -> None:
    """Others may come in while it waits for a worker."""
    first, later = steel.new(2)
    add_labels(steel.out, {first: ("good", "audit")})
    category = factory.category(steel.images, labels=[str(steel.out)])
    told = identify(category).told
    add_labels(steel.out, {later: ("good", "audit"), first: ("defect", "audit")}, day=14)
    prepared = prepare(category, told=told)
    assert str(later) not in prepared.good.uris
    assert str(first) in prepared.good.uris


def test_labels_by_an_earlier_name_are_found_before_the_results_know_of_the_rename(
    steel: Factory,
) -> None:
    add_labels(steel.out, dict.fromkeys(steel.new(3), ("good", "audit")))
    rename = Rename(old="steel", new="brass", when=dt.datetime(2026, 3, 20, tzinfo=dt.UTC))
    out = str(steel.out)
    assert not told_of("brass", [LabelTable(out)])
    assert len(told_of("brass", [LabelTable(out, [rename])])) == 3
    note_renames(out, [rename])  # as the next night does
    assert len(told_of("brass", [LabelTable(out, [rename])])) == 3


def test_a_catalogue_may_name_results_before_the_first_night(steel: Factory) -> None:
    assert steel.key(labels=[str(steel.out / "later")]) == steel.key()
    assert LabelTable(str(steel.out)).is_empty
    add_labels(steel.out, dict.fromkeys(steel.new(1), ("good", "audit")))
    assert not LabelTable(str(steel.out)).is_empty


@pytest.mark.parametrize("given", ["results", "[results]", "[results, /elsewhere]"])
def test_a_catalogue_names_results_by_addresses(tmp_path: Path, given: str) -> None:
    catalogue = tmp_path / "catalogue.yaml"
    text = f"{{defaults: {{images: x, labels: {given}}}, categories: [steel, bolts]}}"
    catalogue.write_text(text)
    expected = (str(tmp_path / "results"), *(["/elsewhere"] if "else" in given else []))
    assert [each.labels for each in load_catalogue(str(catalogue))] == [expected] * 2


@pytest.mark.parametrize("given", ["3", "[3]", "{a: b}", "['']"])
def test_labels_that_are_no_addresses_are_refused(tmp_path: Path, given: str) -> None:
    catalogue = tmp_path / "catalogue.yaml"
    catalogue.write_text(f"{{categories: [{{name: steel, images: x, labels: {given}}}]}}")
    with pytest.raises(CatalogueError, match=r"labels: .*folder of results that score --out names"):
        load_catalogue(str(catalogue))


def test_a_dry_run_knows_that_labels_came_in(steel: Factory, tmp_path: Path, run: Run) -> None:
    add_labels(steel.out, dict.fromkeys(steel.new(1), ("good", "audit")))
    catalogue = factory.write_catalogue(tmp_path / "catalogue.yaml", {"steel": steel.images})

    command = ("onboard", catalogue, "--dry-run", "--json", "--with-labels")
    answer = json.loads(run(*command, steel.out).out)
    assert answer["categories"]["steel"]["status"] == "to do"
    assert "typo: nothing is there" in run(*command, tmp_path / "typo").refusal()


RATE, LISTED, NIGHT = 0.1, 80, 400


def realised(*, flagged: bool, rule: str, seed: int) -> float:
    """The rate at which new good images are flagged after mornings of labels; scores are normal."""
    random = np.random.default_rng(seed)
    night = random.normal(size=NIGHT)
    order = np.argsort(-night if flagged else night)
    audit = random.permutation(NIGHT)[:20]
    chosen = np.setdiff1d(order[:40], audit)
    scores = np.concatenate([random.normal(size=LISTED), night[audit], night[chosen]])
    hashes = [hashlib.sha256(f"{seed} {row}".encode()).hexdigest() for row in range(len(scores))]
    told = [Told(each, None, "good", row >= LISTED + 20) for row, each in enumerate(hashes)]
    good = SimpleNamespace(uris=hashes, hashes=hashes, bursts=hashes)
    category = factory.category("/images", false_alarm_rate=RATE, calibration_share=0.4)
    labelled = LabelledImages(joining=told[LISTED:])
    assigned = assign(category, cast(GoodImages, good), labelled, Defects())
    sets = assigned.parts == Part.CALIBRATION
    if rule == "all":
        sets = sets | assigned.by_score
    threshold = fit(scores[sets], CalibrationConfig(false_alarm_rate=RATE)).threshold
    return float(stats.norm.sf(threshold))


@pytest.mark.parametrize(
    ("flagged", "rule", "low", "high"),
    [
        (True, "ours", 0.08, 0.1),  # at most what is promised, and not far from it
        (False, "ours", 0.08, 0.1),
        (True, "all", 0.0, 0.03),  # flagged good ones raise the threshold: defects pass
        (False, "all", 0.15, 1.0),  # never flagged ones lower it: too many alarms
    ],
)
def test_labels_that_were_chosen_by_score_would_break_the_promise(
    *, flagged: bool, rule: str, low: float, high: float
) -> None:
    rates = [realised(flagged=flagged, rule=rule, seed=seed) for seed in range(300)]
    assert low < np.mean(rates) < high
