"""What is wrong with an entry of a catalogue, one line per fault, each naming its key."""

import difflib
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from pipeline.catalogue.strict_yaml import shown

GONE = {
    "kept": "is gone, heads are no longer pruned; leave it out, and lower `hidden` for smaller ones"
}
Schema = TypeVar("Schema", bound=BaseModel)


def read_settings(
    schema: type[Schema],
    given: Any,
    where: str,
    nested: Mapping[str, type[BaseModel]],
    context: Any = None,
) -> tuple[Schema | None, list[str]]:
    """Return what fits a schema, or one line per key that is unknown, missing or wrong.

    ``nested`` are schemas of keys that hold settings of their own, ``context`` what the validators
    need to know.
    """
    if not isinstance(given, Mapping):
        return None, [f"{where}: expected a mapping of settings, found {shown(given)}"]
    try:
        return schema.model_validate(given, context=context), []
    except ValidationError as error:
        faults = error.errors()
    return None, [line for fault in faults for line in _lines(fault, schema, where, nested)]


def findings_of_names(entries: list[Any]) -> list[str]:
    """Return one line per name that is there twice, and one if there is no category at all."""
    if not entries:
        return ["categories: expected at least one category, found none"]
    names = [entry.get("name") for entry in entries if isinstance(entry, Mapping)]
    return [
        f"categories: name `{name}` is there {names.count(name)} times; names must be unique"
        for name in sorted({name for name in names if isinstance(name, str)})
        if names.count(name) > 1
    ]


def nearest(word: str, known: Collection[str]) -> str:
    """Return the end of a message about an unknown word: the one meant, or those there are."""
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean `{close[0]}`?" if close else f"; known: {', '.join(known)}"


def _lines(
    fault: Any, schema: type[BaseModel], where: str, nested: Mapping[str, type[BaseModel]]
) -> list[str]:
    path = [str(part) for part in fault["loc"] if part != "[key]"]
    key = ".".join([where, *path])
    if fault["type"] == "value_error":  # our own, perhaps several
        return [f"{key}: {line}" for line in str(fault["ctx"]["error"]).splitlines()]
    if fault["type"] == "extra_forbidden":
        if path[-1] in GONE:
            return [f"{key}: {GONE[path[-1]]}"]
        inner = nested[path[0]] if len(path) > 1 else schema
        return [f"{key}: unknown key{nearest(path[-1], list(inner.model_fields))}"]
    if fault["type"] == "missing":
        return [f"{key}: is required"]
    if path == ["name"]:
        return [
            f"{key}: expected a slug of a-z, 0-9, `_`, `-` that starts with a letter or digit, "
            f"57 characters at most; found {shown(fault['input'])}"
        ]
    return [f"{key}: {fault['msg']}; found {shown(fault['input'])}"]
