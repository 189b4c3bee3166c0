"""What is wrong with an entry of a catalogue, one line per fault, each naming its key."""

import difflib
from collections.abc import Collection, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from pipeline.catalogue.strict_yaml import shown

GONE = {
    "kept": "is gone, heads are no longer pruned; leave it out, and lower `hidden` for smaller ones"
}


def findings_of_shape(
    schema: type[BaseModel], entry: Any, where: str, nested: Mapping[str, type[BaseModel]]
) -> list[str]:
    """Return one line per key that is unknown, missing or of the wrong type.

    Args:
        schema: what the entry must fit.
        entry: what the file says.
        where: key of the entry in the file.
        nested: schemas of the keys of ``schema`` that hold settings of their own.
    """
    if not isinstance(entry, Mapping):
        return [f"{where}: expected a mapping of settings, found {shown(entry)}"]
    try:
        schema.model_validate(entry)
    except ValidationError as error:
        return [_finding(fault, schema, where, nested) for fault in error.errors()]
    return []


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


def _finding(
    fault: Any, schema: type[BaseModel], where: str, nested: Mapping[str, type[BaseModel]]
) -> str:
    path = [str(part) for part in fault["loc"]]
    key = ".".join([where, *path])
    if fault["type"] == "extra_forbidden":
        if path[-1] in GONE:
            return f"{key}: {GONE[path[-1]]}"
        inner = nested[path[0]] if len(path) > 1 else schema
        return f"{key}: unknown key{nearest(path[-1], list(inner.model_fields))}"
    if fault["type"] == "missing":
        return f"{key}: is required"
    if path == ["name"]:
        return (
            f"{key}: expected a slug of a-z, 0-9, `_`, `-` that starts with a letter or digit, "
            f"57 characters at most; found {shown(fault['input'])}"
        )
    return f"{key}: {fault['msg']}; found {shown(fault['input'])}"
