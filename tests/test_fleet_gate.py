"""The gate for all challengers at once: one promise for all, and a fault of one stops no other."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import Run
from test_gate import NIGHT, Factory, champion, factory, template  # noqa: F401  fixtures

from pipeline.night.dumps import take_in
from pipeline.night.folder import NightFolder
from pipeline.promotion.fleet_gate import ask_all, headline, p_value, promoted_together
from pipeline.promotion.gate import GateOptions
from pipeline.promotion.gate_verdict import GateConfig, Tally, judge
from pipeline.registry import aliases, models

LEVEL = 0.05


def p_of(gained: int, lost: int) -> float:
    """Of a challenger at its first look, by what it alone finds of defects and what it loses."""
    tally = Tally(
        images=1000,
        defects=100,
        goods=0,
        defects_gained=gained,
        defects_lost=lost,
        goods_more=0,
        goods_fewer=0,
        open_gained=0,
        open_lost=0,
        open_alike=0,
    )
    return p_value(judge(tally, GateConfig(margin=0.01, level=LEVEL)), LEVEL)


@pytest.mark.parametrize(
    ("p_values", "promoted"),
    [  # the k-th smallest of m must be at most 0.05 k / m, or a larger one be so
        ([], []),
        ([0.05], [True]),
        ([0.051], [False]),
        ([0.03, 0.9], [False, False]),
        ([0.025, 0.9], [True, False]),
        ([0.05, 0.04], [True, True]),
        ([0.9, 0.001, 0.9, 0.02], [False, True, False, True]),
    ],
)
def test_challengers_are_promoted_by_the_step_up_rule(
    p_values: list[float], promoted: list[bool]
) -> None:
    assert promoted_together(p_values, LEVEL) == promoted


@pytest.mark.parametrize("num_better", [0, 10, 50])
def test_of_the_promotions_of_a_call_few_are_false(num_better: int) -> None:
    """200 calls about 100 challengers, each with 20 labelled defects on which the two differ.

    One that is no better wins each with probability 1/2, a better one with 0.9. Of the promotions
    of a call 5 % at most are false on average, and 3 standard errors of the 200 calls; without any
    better one, that is the share of calls that promote at all.
    """
    random, false_shares, found = np.random.default_rng(3), [], []
    wins = np.where(np.arange(100) < num_better, 0.9, 0.5)
    known = [p_of(gained, 20 - gained) for gained in range(21)]
    for _ in range(200):
        gained = random.binomial(20, wins)
        promoted = np.array(promoted_together([known[count] for count in gained], LEVEL))
        false_shares.append(promoted[num_better:].sum() / max(promoted.sum(), 1))
        found.append(promoted[:num_better].mean() if num_better else 1.0)
    standard_error = np.std(false_shares) / np.sqrt(len(false_shares))
    assert np.mean(false_shares) <= LEVEL + 3 * standard_error
    assert np.mean(found) > 0.8


def test_asking_again_about_the_rest_promotes_no_more() -> None:
    random = np.random.default_rng(4)
    for _ in range(300):
        p_values = random.beta(0.2, 1, random.integers(1, 30))
        promoted = promoted_together(p_values.tolist(), LEVEL)
        rest = [p for p, passed in zip(p_values, promoted, strict=True) if not passed]
        assert not any(promoted_together(rest, LEVEL))


@pytest.fixture
def fleet(factory: Factory) -> Factory:  # noqa: F811
    """Steel, whose challenger finds six defects more, and wood, with the same two versions."""
    shutil.copytree(factory.root / "dump/steel", factory.root / "dump/wood")
    take_in(str(factory.root / "dump"), NightFolder(factory.out, NIGHT), replace=True)
    factory.label(factory.highest[:6], "defect")
    root = factory.template.root
    models.promote(models.register("wood", "champion", root / "champion"))
    models.register("wood", "challenger", root / "challenger")
    return factory


def label_wood(fleet: Factory, word: str) -> None:
    uris = [uri.replace("/steel/", "/wood/") for uri in fleet.highest[:6]]
    fleet.label(uris, word, category="wood")


def test_each_challenger_gets_its_verdict_and_all_stand_on_one_page(fleet: Factory) -> None:
    label_wood(fleet, "good")
    done = ask_all(GateOptions(out=fleet.out, images=1000))
    assert [(a.category, a.verdict, a.promoted) for a in done.answers] == [
        ("steel", "PROMOTE", True), ("wood", "KEEP", False),
    ]  # fmt: skip
    assert (done.num_judged, done.failed) == (2, {})
    assert {name: each.version for name, each in models.champions().items()} == {
        "steel": "2", "wood": "1",
    }  # fmt: skip
    page = Path(done.page).read_text()
    assert headline(done) == "1 of 2 challengers promoted, 1 are kept out"
    assert headline(done) in page
    for answer in done.answers:
        assert answer.page is not None
        link = answer.page.removeprefix(f"{fleet.out}/promotion/")
        assert f'href="{link}"' in page
        assert Path(answer.page).is_file()


def test_what_would_pass_alone_waits_where_many_are_judged(fleet: Factory) -> None:
    label_wood(fleet, "good")
    options = GateOptions(out=fleet.out, images=1000, level=0.02)  # p-value 1/64, times 5/4
    together = ask_all(options).answers
    assert [answer.verdict for answer in together] == ["KEEP", "NEEDS LABELS"]
    assert together[1].reason.startswith("alone it would be promoted, and not among 2 challengers")
    assert champion() == "1"
    assert fleet.ask(level=0.02).promoted  # the same look


def test_one_without_labels_takes_no_share_of_the_level(fleet: Factory) -> None:
    done = ask_all(GateOptions(out=fleet.out, images=1000, level=0.02))
    assert [(a.category, a.verdict) for a in done.answers] == [
        ("steel", "PROMOTE"), ("wood", "NEEDS LABELS"),
    ]  # fmt: skip
    assert done.num_judged == 1


def test_a_category_that_fails_is_named_and_the_others_are_asked_about(
    fleet: Factory,
) -> None:
    client = aliases.MlflowClient()
    client.set_model_version_tag("nightshift.steel", "2", "nightshift.digest", "f" * 64)
    done = ask_all(GateOptions(out=fleet.out, images=1000))
    assert [answer.category for answer in done.answers] == ["wood"]
    assert "was registered with digest ffffffffffff" in done.failed["steel"]
    assert "1 could not be asked about" in Path(done.page).read_text()
    assert champion() == "1"


def test_all_are_asked_about_by_command(
    factory: Factory,  # noqa: F811
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Not the copy: a database that was moved is refused by commands.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{factory.template.root}/mlflow.db")
    said = run("promote", "--all", "--out", f"{factory.root}/empty", "--json")
    assert said.code == 0
    [answer] = json.loads(said.out)["answers"]
    assert (answer["category"], answer["verdict"]) == ("steel", "KEEP")
    assert run("promote", "--out", factory.out).code == 2
    assert run("promote", "steel", "--all", "--out", factory.out).code == 2
    assert run("promote", "--all", "--version", "2", "--out", factory.out).code == 2
