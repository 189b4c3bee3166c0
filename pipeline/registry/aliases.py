"""Aliases of registered models, and the record of every change of one.

A change is a tag of the registered model, written before the alias moves: whatever is killed, no
alias has moved without a row. A change that was cut off is finished by doing it again, with the
row that is there. An alias that stands elsewhere than its last row says was moved by something
else than Nightshift.
"""

import datetime as dt
import getpass
import json
import socket
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

from mlflow import MlflowClient
from mlflow.entities.model_registry import RegisteredModel

from model.errors import NightshiftError
from pipeline.registry.connection import if_there, mlflow_errors

CHAMPION, CHALLENGER = "champion", "challenger"
MODEL_PREFIX = "nightshift."
ROW_PREFIX = "nightshift.alias."  # tags of a registered model, one a change
DECIDED = ("promote", "rollback", "recalibrate")  # commands that choose one version among several
LONGEST = 1000  # characters of a reason or of evidence; a tag holds 5000
WHICHEVER = "*"  # in place of a version: whatever the alias stands for


class AliasError(NightshiftError):
    """There is no such model, or nothing to go back to."""


@dataclass(frozen=True, kw_only=True)
class Reason:
    """Why an alias moves."""

    by: str  # the command: onboard, promote, rollback, recalibrate
    because: str = ""  # in the words of who did it
    evidence: str = ""  # what was measured, or where it stands


@dataclass(frozen=True, kw_only=True)
class AliasChange:
    """One change of an alias."""

    at: str  # time in UTC, ISO 8601
    alias: str
    version_from: str | None  # None: the alias was nowhere
    version_to: str | None  # None: it was taken off
    who: str  # user and host
    by: str
    because: str
    evidence: str


@dataclass(frozen=True, kw_only=True)
class AliasHistory:
    """What became of the aliases of one category's model."""

    category: str
    changes: list[AliasChange]  # the oldest first
    aliases: Mapping[str, str]  # versions now

    @property
    def moved_elsewhere(self) -> list[str]:
        """Aliases that no row says to stand where they are."""
        last = {change.alias: change.version_to for change in self.changes}
        return sorted(name for name, version in self.aliases.items() if last.get(name) != version)


def model_name(category: str) -> str:
    """Return the registered model's name of a category."""
    return f"{MODEL_PREFIX}{category}"


def move(client: MlflowClient, name: str, alias: str, version: str | None, reason: Reason) -> bool:
    """Let an alias stand for a version, with a row that says why; False: it did already.

    A change that repeats the last row word for word finishes that one and gets no row of its own:
    nothing tells one that was cut off from one that was done, and undone outside of Nightshift.

    Args:
        client: of the registry; its errors come as they are.
        name: of the registered model.
        alias: champion or challenger.
        version: the number that it shall stand for; None: for none, it is taken off.
        reason: what the row says.
    """
    model = client.get_registered_model(name)
    now = _aliases(model)
    if now.get(alias) == version:
        return False
    change = AliasChange(
        at=dt.datetime.now(dt.UTC).isoformat(timespec="microseconds"),
        alias=alias,
        version_from=now.get(alias),
        version_to=version,
        who=_who(),
        by=reason.by,
        because=reason.because[:LONGEST],
        evidence=reason.evidence[:LONGEST],
    )
    if not _is_cut_off(model, change):
        key = f"{ROW_PREFIX}{change.at}-{uuid.uuid4().hex[:6]}".replace("+", "Z")
        client.set_registered_model_tag(name, key, json.dumps(asdict(change)))
    if version is None:
        client.delete_registered_model_alias(name, alias)
    else:
        client.set_registered_model_alias(name, alias, version)
    return True


def refuse_if_moved(client: MlflowClient, name: str, alias: str, expected: str | None) -> None:
    """Refuse where an alias stands elsewhere than it was seen to stand.

    MLflow cannot compare and set in one step: what moves the alias between this and ``move``, some
    milliseconds, goes unseen.

    Args:
        client: of the registry; its errors come as they are.
        name: of the registered model.
        alias: champion or challenger.
        expected: a version, None for none, or ``WHICHEVER``.

    Raises:
        AliasError: it stands elsewhere.
    """
    if expected == WHICHEVER:
        return
    now = _aliases(client.get_registered_model(name)).get(alias)
    if now != expected:
        raise AliasError(
            f"{name.removeprefix(MODEL_PREFIX)}: the {alias} has changed since, from "
            f"{_words(expected)} to {_words(now)}, and stays. Ask again."
        )


def _words(version: str | None) -> str:
    return "none" if version is None else f"version {version}"


def _is_cut_off(model: RegisteredModel, change: AliasChange) -> bool:
    """Whether the last row of the alias tells of this very change, which was not done."""
    told = [each for each in _changes(model) if each.alias == change.alias]
    same = ("version_from", "version_to", "by", "because", "evidence")
    return bool(told) and all(getattr(told[-1], name) == getattr(change, name) for name in same)


def history(category: str) -> AliasHistory:
    """Return every change of a category's aliases that is on record.

    Raises:
        AliasError: the category has no registered model.
        RegistryError: MLflow is away or refuses.
    """
    with mlflow_errors():
        model = if_there(lambda: MlflowClient().get_registered_model(model_name(category)))
    if model is None:
        raise AliasError(
            f"{category}: no model is registered. Onboard the category, or correct its name."
        )
    return AliasHistory(category=category, changes=_changes(model), aliases=_aliases(model))


def stays(known: AliasHistory) -> bool:
    """Whether the champion was chosen by a decision that onboarding the same again leaves alone.

    Otherwise the next onboarding of an unchanged catalogue would undo a rollback.
    """
    now = known.aliases.get(CHAMPION)
    told = [each for each in known.changes if (each.alias, each.version_to) == (CHAMPION, now)]
    return bool(told) and told[-1].by in DECIDED


def version_before(known: AliasHistory) -> str:
    """Return the version that was champion before the one that is.

    Versions that were rolled back from are passed over, until something promotes them again.

    Raises:
        AliasError: no row says which.
    """
    now = known.aliases.get(CHAMPION)
    line = _ancestry(known)
    before = line if now is None else line[:-1]
    if before:
        return before[-1]
    raise AliasError(
        f"{known.category}: nothing on record says which version was champion before "
        f"{f'version {now}' if now else 'none was'}. Name one with --to."
    )


def _ancestry(known: AliasHistory) -> list[str]:
    """The champions up to the one that is, none twice and without those that were left behind."""
    line: list[str] = []
    for change in known.changes:
        if change.alias != CHAMPION:
            continue
        line = _back_to(line, change.version_from)
        left = change.version_from if change.by == "rollback" else change.version_to
        line = _back_to([version for version in line if version != left], change.version_to)
    return _back_to(line, known.aliases.get(CHAMPION))


def _back_to(line: list[str], version: str | None) -> list[str]:
    """The champions up to a version; one that is not among them comes after all."""
    if version is None:
        return line
    return [*line[: line.index(version)], version] if version in line else [*line, version]


def _changes(model: RegisteredModel) -> list[AliasChange]:
    rows = [json.loads(value) for key, value in model.tags.items() if key.startswith(ROW_PREFIX)]
    names = [each.name for each in fields(AliasChange)]
    changes = [AliasChange(**{name: row[name] for name in names}) for row in rows]
    return sorted(changes, key=lambda change: change.at)


def _aliases(model: RegisteredModel) -> dict[str, str]:
    return {name: str(version) for name, version in model.aliases.items()}


def _who() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container's user may have no name
        user = "unknown"
    return f"{user}@{socket.gethostname()}"
