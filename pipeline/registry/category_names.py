"""The name of a category in the registry: it may change, and a category may leave the nights.

MLflow renames a registered model with its versions, aliases and tags in one transaction. The files
of a version lie under the id of its logged model, whatever the name. The names that a model had
stay with it, in a tag that is written before: a command that is killed between the two is finished
by the next.

A category that is removed loses its aliases and nothing else: version numbers in the rows of past
nights keep their meaning, and a rollback gives it its champion back.
"""

import datetime as dt
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.entities.model_registry import RegisteredModel

from pipeline.catalogue.renames import Rename
from pipeline.registry import aliases
from pipeline.registry.aliases import CHALLENGER, CHAMPION, MODEL_PREFIX, Reason, model_name
from pipeline.registry.connection import if_there, mlflow_errors, pages
from pipeline.registry.runs import CATEGORY_TAG

EARLIER_TAG = "nightshift.earlier_names"  # JSON: a list of name and until, the latest last
REMOVED = Reason(by="category remove")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RegisteredCategory:
    """A registered model as a whole."""

    category: str
    num_versions: int
    aliases: Mapping[str, str]  # version by alias
    renames: Sequence[Rename]  # that led to its name, the latest last

    @property
    def takes_part(self) -> bool:
        """Whether nights are scored with it, or an onboarding waits to be promoted."""
        return bool(self.aliases.keys() & {CHAMPION, CHALLENGER})


def find_category(category: str) -> RegisteredCategory | None:
    """Return what is registered for a category.

    Raises:
        RegistryError: MLflow is away or refuses.
    """
    with mlflow_errors():
        client = MlflowClient()
        model = if_there(lambda: client.get_registered_model(model_name(category)))
        if model is None:
            return None
        versions = pages(client.search_model_versions, filter_string=f"name = '{model.name}'")
        return RegisteredCategory(
            category=category,
            num_versions=sum(1 for _ in versions),
            aliases={name: str(version) for name, version in model.aliases.items()},
            renames=_renames_of(model),
        )


def rename(old: str, new: str, now: dt.datetime) -> Rename:
    """Give a registered category another name, which nobody has.

    Raises:
        RegistryError: MLflow is away or refuses, as where another was faster.
    """
    with mlflow_errors():
        client, name = MlflowClient(), model_name(old)
        known = _earlier(client.get_registered_model(name))
        if known and known[-1]["name"] == old:  # of a command that was killed here
            known.pop()
        entries = [*known, {"name": old, "until": now.isoformat()}]
        client.set_registered_model_tag(name, EARLIER_TAG, json.dumps(entries))
        client.rename_registered_model(name, model_name(new))
    logger.info("renamed %s to %s", name, model_name(new))
    return finish_rename(new)


def finish_rename(new: str) -> Rename:
    """Do what comes after the name itself, once more where it was cut off; return the last rename.

    Raises:
        RegistryError: MLflow is away or refuses.
    """
    with mlflow_errors():
        client, name = MlflowClient(), model_name(new)
        client.set_registered_model_tag(name, CATEGORY_TAG, new)
        return _renames_of(client.get_registered_model(name))[-1]


def remove(category: str) -> None:
    """Take the aliases of a registered category off, so that no night is scored with it.

    Raises:
        RegistryError: MLflow is away or refuses.
    """
    with mlflow_errors():
        client = MlflowClient()
        for alias in (CHAMPION, CHALLENGER):
            aliases.move(client, model_name(category), alias, None, REMOVED)
    logger.info("removed the aliases of %s", model_name(category))


def all_renames() -> list[Rename]:
    """Return every rename, from one paged listing of the categories that were renamed.

    Raises:
        RegistryError: MLflow is away or refuses.
    """
    wanted = f"name LIKE '{MODEL_PREFIX}%' AND tags.`{EARLIER_TAG}` LIKE '%'"
    with mlflow_errors():
        client = MlflowClient()
        models = pages(client.search_registered_models, filter_string=wanted)
        return [rename for model in models for rename in _renames_of(model)]


def _renames_of(model: RegisteredModel) -> list[Rename]:
    """Return the renames of a model; one that was announced and not done is none."""
    entries = _earlier(model)
    names = [*(entry["name"] for entry in entries), model.name.removeprefix(MODEL_PREFIX)]
    return [
        Rename(old=entry["name"], new=new, when=dt.datetime.fromisoformat(entry["until"]))
        for entry, new in zip(entries, names[1:], strict=True)
        if entry["name"] != new
    ]


def _earlier(model: RegisteredModel) -> list[dict[str, str]]:
    entries: list[dict[str, str]] = json.loads(model.tags.get(EARLIER_TAG, "[]"))
    return entries
