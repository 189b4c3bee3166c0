"""The documents keep what they promise: links lead somewhere, commands and options exist."""

import re
import shlex
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
import typer.testing
import yaml

from jobs.cli.app import app
from pipeline.catalogue.catalogue import load_catalogue
from pipeline.study.settings import load_study

ROOT = Path(__file__).resolve().parents[1]
SKIPPED = {".venv", "node_modules", "nightshift-demo", "nightshift-laptop"}
README = ROOT / "README.md"
MAX_README_LINES = 150
WRITTEN_LATER = {"infra/.env"}  # by a command that the same document names
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
PATH = re.compile(r"(?:model|pipeline|jobs|infra|tests)/[\w./-]*\w/?")


@dataclass(frozen=True)
class Block:
    """A fenced block of a document."""

    document: Path
    language: str
    text: str


def documents() -> list[Path]:
    """Every README.md of the repository, and the changelog."""
    found = [
        path for path in ROOT.rglob("README.md") if not SKIPPED & {*path.relative_to(ROOT).parts}
    ]
    return sorted([*found, ROOT / "CHANGELOG.md"])


def name_of(document: Path) -> str:
    return str(document.relative_to(ROOT))


def prose(document: Path) -> str:
    """The document without its fenced blocks."""
    return FENCE.sub("", document.read_text())


def blocks() -> list[Block]:
    return [
        Block(document, language, text)
        for document in documents()
        for language, text in FENCE.findall(document.read_text())
    ]


def anchors(document: Path) -> set[str]:
    """What a link may name behind #: headings in lower case, blanks as hyphens, no punctuation."""
    headings = re.findall(r"^#+ (.+)$", prose(document), re.MULTILINE)
    kept = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {heading.replace(" ", "-") for heading in kept}


def commands() -> list[tuple[str, list[str]]]:
    """Every `nightshift ...` in code of a document, as (document, words)."""
    found = []
    for document in documents():
        text = document.read_text()
        spans = re.findall(r"`(nightshift [^`\n]+)`", prose(document))
        lines = [line for _, body in FENCE.findall(text) for line in body.splitlines()]
        lines = [re.sub(r"^(\$|source \S+ &&) ", "", line) for line in lines]
        spans += [line for line in lines if line.startswith("nightshift ")]
        found += [(name_of(document), shlex.split(span, comments=True)[1:]) for span in spans]
    return found


@cache
def command_line() -> Any:
    return typer.main.get_command(app)


def resolve(words: list[str]) -> tuple[list[str], Any, list[str]]:
    """The command that these words name: its name, itself, and the words behind its name."""
    command, rest = command_line(), list(words)
    while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        assert rest[0] in command.commands, f"no command {rest[0]}: nightshift {' '.join(words)}"
        command = command.commands[rest.pop(0)]
    return words[: len(words) - len(rest)], command, rest


def options(command: Any) -> set[str]:
    """The options of a command, in every spelling."""
    own = {name for given in command.params for name in [*given.opts, *given.secondary_opts]}
    return {*own, "--help"}


def paths() -> list[tuple[str, str]]:
    """Every path of the repository that a document names in code, as (document, path)."""
    spans = [
        (name_of(document), span)
        for document in documents()
        for span in re.findall(r"`([^`\n]+)`", prose(document))
    ]
    return [pair for pair in spans if PATH.fullmatch(pair[1]) and pair[1] not in WRITTEN_LATER]


@pytest.mark.parametrize("document", documents(), ids=name_of)
def test_every_relative_link_leads_to_a_file_and_its_heading(document: Path) -> None:
    links = [link for link in LINK.findall(prose(document)) if "://" not in link]
    for link in links:
        place, _, anchor = link.partition("#")
        target = (document.parent / place).resolve() if place else document
        assert target.is_relative_to(ROOT), link
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_documents_say_which_commands_there_are() -> None:
    named = {words[0] for document, words in commands() if document == "README.md"}
    assert named >= command_line().commands.keys()


@pytest.mark.parametrize(("document", "words"), commands(), ids=str)
def test_every_command_that_is_shown_exists_with_its_options(
    document: str, words: list[str]
) -> None:
    path, command, rest = resolve(words)
    given = {word.partition("=")[0] for word in rest if re.match(r"--?[a-z]", word)}
    assert given <= options(command), document
    shown = typer.testing.CliRunner().invoke(app, [*path, "--help"], prog_name="nightshift")
    assert shown.exit_code == 0
    assert shown.output.split()[: 2 + len(path)] == ["Usage:", "nightshift", *path]


def test_options_beside_a_command_in_the_readme_are_its_own() -> None:
    rows = re.findall(r"^\| `(nightshift [^`]+)` (.*)$", README.read_text(), re.MULTILINE)
    assert rows
    for line, rest in rows:
        _, command, _ = resolve(shlex.split(line)[1:])
        assert set(re.findall(r"`(--[a-z-]+)", rest)) <= options(command), line


def test_the_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= MAX_README_LINES


@pytest.mark.parametrize(("document", "path"), sorted(set(paths())))
def test_every_path_that_is_named_exists(document: str, path: str) -> None:
    assert (ROOT / path).exists(), f"{document} names {path}"


def test_every_make_target_that_is_named_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z][\w-]*):", makefile, re.MULTILINE))
    text = "\n".join(document.read_text() for document in documents())
    named = set(re.findall(r"(?:`|^)make ([a-z][\w-]*)", text, re.MULTILINE))
    assert {"demo", "test"} <= named
    assert named <= targets


@pytest.mark.parametrize(
    "block",
    [block for block in blocks() if block.language == "yaml" and "categories:" in block.text],
    ids=lambda block: name_of(block.document),
)
def test_every_catalogue_that_is_shown_loads(block: Block, tmp_path: Path) -> None:
    catalogue = tmp_path / "catalogue.yaml"
    catalogue.write_text(block.text)
    categories = load_catalogue(str(catalogue))
    assert [category.name for category in categories]
    if "study" in yaml.safe_load(block.text):
        assert load_study(str(catalogue), "shown", categories, {}).space
