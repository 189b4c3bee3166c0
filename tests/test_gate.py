"""The gate on real, tiny versions: what is compared, what is said, kept and done."""

import dataclasses
import datetime as dt
import errno
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Run
from factory import make_package, write_images
from mlflow import MlflowClient, artifacts
from mlflow.exceptions import MlflowException

from model.errors import NightshiftError
from pipeline.backbones import LoadedBackbone
from pipeline.calibration import CalibrationConfig, fit
from pipeline.catalogue.rename_table import note_renames
from pipeline.catalogue.renames import Rename
from pipeline.labels.label import Label, to_rows
from pipeline.labels.label_table import LabelTable
from pipeline.labels.parts import is_for_gate
from pipeline.night.dumps import take_in
from pipeline.night.folder import NightFolder
from pipeline.package import Package
from pipeline.promotion.evidence import compare, gather
from pipeline.promotion.gate import ChampionNotUsable, GateOptions, ask, compared, conclude
from pipeline.promotion.gate_answer import GateAnswer
from pipeline.promotion.image_scores import ImageFile, score_by_each
from pipeline.registry import aliases, models

NIGHT = "2026-03-12"
NUM_IMAGES, NUM_FLAGGED = 60, 6
WHEN = dt.datetime(2026, 3, 13, tzinfo=dt.UTC)


@dataclasses.dataclass(frozen=True)
class Template:
    """Images and a registry with champion and challenger, made once; every test has copies."""

    root: Path
    package: Package
    order: list[int]  # images by their score, the highest first
    threshold: dict[str, float]

    def version(self, kind: str, folder: Path, **settings: Any) -> Path:
        """Write the same heads with another threshold; the margin is their rate, 0.2."""
        config = CalibrationConfig(false_alarm_rate=0.2)
        calibration = fit(np.full(19, self.threshold[kind]), config)
        reference = dataclasses.replace(self.package.reference, calibration=calibration)
        record = self.package.record
        record = dataclasses.replace(record, settings={**record.settings, **settings})
        changed = dataclasses.replace(self.package, reference=reference, record=record)
        changed.write(folder, {})
        return folder


@pytest.fixture(scope="session")
def template(
    tmp_path_factory: pytest.TempPathFactory, package: Path, empty_database: Path
) -> Template:
    """The champion flags nothing, the challenger six images."""
    root = tmp_path_factory.mktemp("gate")
    write_images(root / "dump/steel", range(700_000, 700_000 + NUM_IMAGES))
    images = [ImageFile(str(path), None) for path in sorted((root / "dump/steel").iterdir())]
    scores = score_by_each([Package.read(package)], images).scores[0]
    order = np.argsort(-scores)
    threshold = {
        "flags none": float(scores.max()) + 1,
        "flags six": float(scores[order[NUM_FLAGGED - 1 : NUM_FLAGGED + 1]].mean()),
    }
    made = Template(root, Package.read(package), order.tolist(), threshold)
    shutil.copy(empty_database, root / "mlflow.db")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root}/mlflow.db")
        first = made.version("flags none", root / "champion")
        models.promote(models.register("steel", "champion", first))
        models.register("steel", "challenger", made.version("flags six", root / "challenger"))
    return made


class Factory:
    """A night of images, and two versions that differ in six of them."""

    def __init__(self, root: Path, template: Template) -> None:
        self.root, self.out, self.template = root, str(root / "out"), template
        shutil.copytree(template.root / "dump", root / "dump")
        take_in(str(root / "dump"), NightFolder(self.out, NIGHT))
        uris = [str(path) for path in sorted((root / "dump/steel").iterdir())]
        self.highest = [uris[place] for place in template.order]

    def label(self, uris: list[str], word: str, **fields: Any) -> None:
        known = {"category": "steel", "label": word, "night": NIGHT, "labelled_at": WHEN}
        labels = [Label(**{"image_uri": uri, **known, **fields}) for uri in uris]
        LabelTable(self.out).append(to_rows(labels))

    def ask(self, **options: Any) -> GateAnswer:
        return ask("steel", GateOptions(**{"out": self.out, "images": 1000, **options}))


@pytest.fixture
def factory(tmp_path: Path, template: Template, monkeypatch: pytest.MonkeyPatch) -> Factory:
    shutil.copy(template.root / "mlflow.db", tmp_path / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    return Factory(tmp_path, template)


def swap() -> None:
    """Version 2, which flags six, is champion; version 1 is its challenger."""
    client = MlflowClient()
    client.set_registered_model_alias("nightshift.steel", "champion", "2")
    client.set_registered_model_alias("nightshift.steel", "challenger", "1")


def champion() -> str:
    return models.champions()["steel"].version


def test_a_challenger_that_finds_more_defects_is_promoted_with_its_evidence(
    factory: Factory,
) -> None:
    factory.label(factory.highest[:6], "defect")
    answer = factory.ask()
    assert (answer.verdict, answer.promoted, champion()) == ("PROMOTE", True, "2")
    assert answer.evidence is not None
    tally = answer.evidence.tally
    assert (tally.images, tally.defects, tally.defects_gained, tally.goods_more) == (60, 6, 6, 0)
    assert answer.judgement is not None
    assert answer.judgement.better_p == pytest.approx(1 / 64)
    last = aliases.history("steel").changes[-1]
    assert (last.alias, last.version_from, last.version_to) == ("champion", "1", "2")
    assert "finds more defects" in last.because
    client = MlflowClient()
    found = client.get_model_version("nightshift.steel", "2")
    [tag] = [json.loads(v) for name, v in found.tags.items() if name.startswith("nightshift.gate.")]
    assert (tag["verdict"], tag["look"], tag["told"]) == ("PROMOTE", 1, 6)
    files = [file.path for file in client.list_artifacts(found.run_id, "gate")]
    wholes = [
        json.loads(Path(client.download_artifacts(found.run_id, f)).read_text()) for f in files
    ]
    assert 6 in [whole["evidence"]["tally"]["defects_gained"] for whole in wholes]


def test_without_labels_it_needs_those_of_the_images_on_which_they_differ(
    factory: Factory,
) -> None:
    answer = factory.ask()
    assert (answer.verdict, answer.promoted, champion()) == ("NEEDS LABELS", False, "1")
    assert "labels of 6 images on which they differ can decide" in answer.reason
    assert answer.evidence is not None
    assert [image.image_uri for image in answer.evidence.open_images] == factory.highest[:6]
    assert answer.page is not None
    page = Path(answer.page).read_text()
    assert all(f'data-uri="{uri}"' in page for uri in factory.highest[:6])
    assert page.count("data:image/jpeg") == 6
    factory.label(factory.highest[:6], "defect")  # what was asked for is the first look
    after = factory.ask()
    assert (after.verdict, after.look) == ("PROMOTE", 1)


def test_a_challenger_that_misses_what_the_champion_finds_is_kept_out(factory: Factory) -> None:
    swap()
    factory.label(factory.highest[:6], "defect")
    answer = factory.ask()
    assert (answer.verdict, answer.promoted, champion()) == ("KEEP", False, "2")
    assert "it misses defects: of 6 labelled defects it alone flags 0" in answer.reason


def test_a_challenger_with_false_alarms_is_kept_out(factory: Factory) -> None:
    factory.label(factory.highest[:6], "good")
    answer = factory.ask()
    assert answer.verdict == "KEEP"
    assert "it has more false alarms" in answer.reason


def test_whoever_insists_promotes_and_the_record_says_so(factory: Factory) -> None:
    answer = factory.ask(force_because="line 3 has new lamps")
    assert (answer.verdict, answer.promoted, champion()) == ("NEEDS LABELS", True, "2")
    last = aliases.history("steel").changes[-1]
    assert last.because == "forced: line 3 has new lamps"
    assert last.evidence.startswith("the gate said NEEDS LABELS, ")


def test_a_champion_that_cannot_be_used_any_more_gives_way(factory: Factory) -> None:
    MlflowClient().set_model_version_tag("nightshift.steel", "1", "nightshift.digest", "f" * 64)
    answer = factory.ask()
    assert (answer.verdict, answer.promoted) == ("PROMOTE", True)
    assert answer.reason.startswith("the champion cannot be used any more: ")


@pytest.mark.parametrize(
    "changes", [{"weights": "/nowhere/weights.pth"}, {"backbone_digest": "0" * 64}]
)
def test_a_champion_that_is_whole_and_cannot_score_here_does_not_give_way(
    factory: Factory, changes: dict[str, str]
) -> None:
    package = factory.template.package
    header = dataclasses.replace(package.header, **changes)
    dataclasses.replace(package, header=header).write(factory.root / "there", {})
    models.promote(models.register("steel", "scores elsewhere", factory.root / "there"))
    with pytest.raises(
        ChampionNotUsable, match=r"version 3, cannot be used here and now.* --force --because"
    ) as said:
        factory.ask(version=2)
    assert "\n" not in str(said.value)
    assert champion() == "3"
    answer = factory.ask(version=2, force_because="that line is closed")
    assert (answer.verdict, answer.promoted, champion()) == ("KEEP", True, "2")
    evidence = aliases.history("steel").changes[-1].evidence
    assert evidence.startswith("the gate said KEEP, the champion cannot be used here: ")


@pytest.mark.parametrize(
    "error",
    [
        MlflowException("failures occurred: head.safetensors: ClientError(503, SlowDown)"),
        OSError(errno.ENOSPC, "No space left on device"),
    ],
)
def test_a_champion_whose_files_do_not_come_this_time_does_not_give_way(
    factory: Factory, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    download = artifacts.download_artifacts

    def fail(uri: str, **options: Any) -> str:
        if uri == "models:/nightshift.steel/1":
            raise error
        return download(uri, **options)

    # Not the copy: a database that was moved is refused where MLflow is asked whether it is there.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{factory.template.root}/mlflow.db")
    monkeypatch.setattr(artifacts, "download_artifacts", fail)
    with pytest.raises(ChampionNotUsable, match=r"steel: the champion, version 1, .* fetched"):
        factory.ask()
    assert champion() == "1"


def test_a_champion_whose_files_are_not_found_gives_way(factory: Factory) -> None:
    client = MlflowClient()
    source = client.create_logged_model("0").model_id
    made = client.create_model_version("nightshift.steel", f"models:/{source}", model_id=source)
    client.set_registered_model_alias("nightshift.steel", "champion", made.version)
    client.delete_logged_model(source)
    assert factory.ask().promoted


def test_the_first_version_of_a_category_has_nobody_to_beat(factory: Factory) -> None:
    MlflowClient().delete_registered_model_alias("nightshift.steel", "champion")
    answer = factory.ask()
    assert (answer.promoted, answer.champion, champion()) == (True, None, "2")


def test_without_nights_and_labels_the_champion_stays_and_what_is_missing_is_said(
    factory: Factory, tmp_path: Path
) -> None:
    answer = factory.ask(out=str(tmp_path / "elsewhere"))
    assert (answer.verdict, answer.promoted) == ("KEEP", False)
    assert "nothing to compare them by" in answer.reason


def test_images_that_are_gone_are_counted_and_the_others_compared(factory: Factory) -> None:
    factory.label(factory.highest[:6], "defect")
    Path(factory.highest[10]).unlink()
    answer = factory.ask()
    assert answer.evidence is not None
    assert (answer.evidence.left_out, answer.evidence.tally.images) == ({"missing": 1}, 59)


def test_what_one_of_both_is_made_from_does_not_count(factory: Factory) -> None:
    package = factory.template.package
    used = [hashlib.sha256(Path(uri).read_bytes()).hexdigest()[:16] for uri in factory.highest[:2]]
    champion, challenger = (
        dataclasses.replace(package, record=dataclasses.replace(package.record, contents=[own]))
        for own in used
    )
    images = gather("steel", factory.out, nights=1, images=1000, kept_half=False)
    evidence = compare(champion, challenger, images)
    assert (evidence.left_out, evidence.tally.images) == ({"used at onboarding": 2}, 58)


def test_copies_of_an_image_count_once_with_the_label_that_one_has(factory: Factory) -> None:
    copy = f"{factory.root}/copy.png"
    shutil.copy(factory.highest[0], copy)
    factory.label([copy], "defect", night=None, chosen="whole_dump")
    answer = factory.ask()
    assert answer.evidence is not None
    tally = answer.evidence.tally
    assert (tally.images, tally.defects_gained, tally.open_gained) == (60, 1, 5)


def test_the_same_evidence_twice_is_one_look_and_more_labels_are_another(
    factory: Factory,
) -> None:
    factory.label(factory.highest[:1], "defect")
    assert [factory.ask().look for _ in range(2)] == [1, 1]
    factory.label(factory.highest[1:2], "defect")
    assert factory.ask().look == 2


def test_a_gate_that_was_killed_before_it_promoted_says_the_same_again(
    factory: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    factory.label(factory.highest[:6], "defect")

    def die(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(models, "promote", die)
        with pytest.raises(KeyboardInterrupt):
            factory.ask()
    assert champion() == "1"
    answer = factory.ask()
    assert (answer.verdict, answer.look, champion()) == ("PROMOTE", 1, "2")


@pytest.mark.parametrize(("judged_against", "now"), [("1", None), (None, "1")])
def test_a_verdict_against_one_champion_replaces_no_other(
    factory: Factory, judged_against: str | None, now: str | None
) -> None:
    def set_champion(version: str | None) -> None:
        client = MlflowClient()
        client.delete_registered_model_alias("nightshift.steel", "champion")
        if version is not None:
            client.set_registered_model_alias("nightshift.steel", "champion", version)

    factory.label(factory.highest[:6], "defect")
    set_champion(judged_against)
    options = GateOptions(out=factory.out, images=1000)
    judged = compared("steel", options, LoadedBackbone())
    assert judged.answer.verdict == "PROMOTE"
    set_champion(now)  # by another command, say
    changes = aliases.history("steel").changes
    with pytest.raises(aliases.AliasError, match=r"steel: the champion has changed since, .* Ask"):
        conclude(judged, options)
    after = aliases.history("steel")
    assert (after.aliases.get("champion"), after.changes) == (now, changes)


@pytest.mark.parametrize("word", ["defect", "good"])
def test_where_the_page_cannot_be_written_no_alias_moves(factory: Factory, word: str) -> None:
    factory.label(factory.highest[:6], word)
    Path(factory.out, "promotion").write_text("a file where the folder is to be")
    with pytest.raises(NightshiftError):
        factory.ask(force_because="new lamps")
    assert champion() == "1"


def test_a_promotion_is_on_the_page_that_was_written_before_it(factory: Factory) -> None:
    factory.label(factory.highest[:6], "defect")
    answer = factory.ask()
    assert answer.page is not None
    assert "PROMOTE, and promoted" in Path(answer.page).read_text()
    assert json.loads(Path(answer.page).with_name("gate.json").read_text())["promoted"]


def test_a_challenger_with_other_layers_is_compared_in_a_pass_of_its_own(
    factory: Factory, tmp_path: Path
) -> None:
    make_package(tmp_path / "other", layers=(2,))
    models.register("steel", "other layers", tmp_path / "other")
    answer = factory.ask()
    assert answer.evidence is not None
    assert (answer.challenger, answer.evidence.tally.images) == ("3", 60)


def test_what_was_labelled_for_its_score_counts_only_where_it_was_drawn(
    factory: Factory, tmp_path: Path
) -> None:
    elsewhere = str(tmp_path / "dump/steel/of-another-night.png")
    factory.label([elsewhere], "defect", chosen="flagged", night="2026-03-01")
    for number, fields in enumerate(
        [
            {"chosen": "audit"},
            {"chosen": "whole_dump"},
            {"night": None, "chosen": "whole_dump"},
            {"night": None, "chosen": "audit"},
            {"chosen": "unknown"},
            {"night": None},  # what a customer sent back, say
            {"night": None, "chosen": "flagged"},
        ]
    ):
        factory.label([f"{elsewhere}-{number}"], "good", **{"night": "2026-03-01", **fields})
    images = gather("steel", factory.out, 5, 1000, kept_half=False)
    uris = {image.file.uri for image in images}
    assert uris == {*factory.highest, *(f"{elsewhere}-{number}" for number in range(4))}


def test_an_image_that_is_called_unsure_is_one_without_a_label(factory: Factory) -> None:
    elsewhere = str(factory.root / "dump/steel/of-another-night.png")
    factory.label([elsewhere], "unsure", chosen="whole_dump", night="2026-03-01")
    factory.label(factory.highest[:4], "defect")
    factory.label(factory.highest[4:6], "unsure")
    images = gather("steel", factory.out, 5, 1000, kept_half=False)
    labels = {image.file.uri: image.label for image in images}
    assert [labels[uri] for uri in [*factory.highest[3:7], elsewhere]] == ["defect", *[""] * 4]
    answer = factory.ask()
    assert answer.evidence is not None
    tally = answer.evidence.tally
    assert (tally.images, tally.defects_gained, tally.open_gained) == (60, 4, 2)
    assert [each.image_uri for each in answer.evidence.open_images] == factory.highest[4:6]
    assert answer.verdict == "NEEDS LABELS"


def test_escaped_defects_of_customers_promote_nobody(factory: Factory) -> None:
    factory.label(factory.highest[:6], "defect", night=None)
    shutil.rmtree(factory.out + "/manifest")
    answer = factory.ask()
    assert (answer.verdict, answer.promoted) == ("KEEP", False)


def test_images_are_drawn_of_the_last_nights_and_as_many_of_each(
    factory: Factory, tmp_path: Path
) -> None:
    write_images(tmp_path / "second/steel", range(710_000, 710_020))
    write_images(tmp_path / "third/wood", range(3))
    take_in(str(tmp_path / "second"), NightFolder(factory.out, "2026-03-13"))
    take_in(str(tmp_path / "third"), NightFolder(factory.out, "2026-03-14"))  # none of steel
    images = gather("steel", factory.out, 2, 20, kept_half=False)
    nights = [image.night for image in images]
    assert (nights.count("2026-03-13"), nights.count(NIGHT)) == (10, 10)
    assert images == gather("steel", factory.out, 2, 20, kept_half=False)
    # A night that has too few leaves its share to the others; fewer nights leave none of it.
    assert len(gather("steel", factory.out, 2, 60, kept_half=False)) == 20 + 40
    assert len(gather("steel", factory.out, 9, 70, kept_half=False)) == 20 + 50


def test_images_of_nights_under_an_earlier_name_are_drawn_and_keep_it(factory: Factory) -> None:
    when = dt.datetime(2026, 3, 20, tzinfo=dt.UTC)
    note_renames(factory.out, [Rename(old="steel", new="sheet", when=when)])
    factory.label(factory.highest[:2], "defect")
    images = gather("sheet", factory.out, 5, 1000, kept_half=False)
    assert len(images) == NUM_IMAGES
    assert {image.category for image in images} == {"steel"}
    assert sum(image.label == "defect" for image in images) == 2
    assert gather("steel", factory.out, 5, 1000, kept_half=False) == []


def test_where_one_of_both_learned_from_labels_the_other_half_judges(
    factory: Factory,
) -> None:
    factory.label(factory.highest[:20], "defect")
    images = gather("steel", factory.out, 5, 1000, kept_half=True)
    labelled = {image.file.uri for image in images if image.label}
    assert labelled == {uri for uri in factory.highest[:20] if is_for_gate(uri)}
    assert 3 < len(labelled) < 17
    # All images are of that half: others would count as good and never as defects.
    half = {uri for uri in factory.highest if is_for_gate(uri)}
    assert {image.file.uri for image in images} == half
    assert len(gather("steel", factory.out, 5, 10, kept_half=True)) == 10
    learned = factory.template.version("flags six", factory.root / "learned", labels=["s3://x"])
    models.register("steel", "learned", learned)
    answer = factory.ask()
    assert answer.evidence is not None
    assert answer.evidence.tally.defects == len(labelled)
    # A champion that learned is no more judged by what it knows.
    MlflowClient().set_registered_model_alias("nightshift.steel", "champion", "3")
    after = factory.ask(version=1).evidence
    assert after is not None
    assert after.tally.defects == len(labelled)


def test_the_gate_is_asked_by_command(
    factory: Factory, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Not the copy: a database that was moved is refused by commands.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{factory.template.root}/mlflow.db")
    command = ("promote", "steel", "--out", factory.out, "--images", "1000")
    said = run(*command)
    assert said.code == 0
    assert said.out.startswith("steel: NEEDS LABELS. Version 2 against 1: ")
    assert run(*command, "--force").code == 2
    assert run(*command, "--force", "--because", "  ").code == 2
    assert run(*command, "--because", "no force").code == 2
    answer = json.loads(run(*command, "--json").out)
    assert (answer["verdict"], answer["promoted"], answer["challenger"]) == (
        "NEEDS LABELS", False, "2",
    )  # fmt: skip
    assert "version 1 is the champion" in run(*command, "--version", "1").refusal()
    assert "version 9 is not registered" in run(*command, "--version", "9").refusal()
