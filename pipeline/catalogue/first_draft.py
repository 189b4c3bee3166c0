"""A first catalogue of the data sets that lie below a folder, for a person to go on with.

Where most categories lie in the same folder and layout, defaults say so once and the categories
are names alone.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any

import yaml

from pipeline.datasets.image_lists import is_manifest
from pipeline.datasets.recognise import DataSet
from pipeline.datasets.samples import stem
from pipeline.pages.words import visible

LONGEST = 57  # letters of a name
HEAD = """\
# Categories found below {prefix}.
# `nightshift onboard` takes this file as it is; every setting has a default, and what stands under
# `defaults` holds for all categories, `{{name}}` being the name of each.
"""


def draft(prefix: str, found: Sequence[DataSet]) -> str:
    """Return a commented catalogue of at least one data set, in the order given."""
    names = unique_names([data.images for data in found])
    pairs = list(zip(names, found, strict=True))
    shared = Counter((_template(name, data), data.layout) for name, data in pairs)
    (template, layout), _ = max(shared.items(), key=lambda item: (item[0][0] != "", item[1]))
    defaults = {"images": template, "layout": layout} if template else {}
    lines = [HEAD.format(prefix=visible(prefix))]
    if defaults:
        lines += ["defaults:\n", *(f"  {key}: {_yaml(value)}\n" for key, value in defaults.items())]
    lines.append("categories:\n")
    for name, data in pairs:
        comment = "" if _folder_name(data.images) == name else f"  # {visible(data.images)}"
        lines.append(f"  - {_yaml(_entry(name, data, defaults))}{comment}\n")
    return "".join(lines)


def unique_names(images: Sequence[str]) -> list[str]:
    """Return a name for each address: its last part as a slug, more of it where two are alike."""
    shared = Counter(slug(_folder_name(uri)) for uri in images)
    taken = {name for name, count in shared.items() if count == 1}
    names = []
    for uri in images:
        name = slug(_folder_name(uri))
        if shared[name] > 1:
            name = _another(slug("-".join(uri.split("/")[-2:])), taken)
            taken.add(name)
        names.append(name)
    return names


def slug(text: str) -> str:
    """Return the category name that is nearest to a folder's."""
    plain = unicodedata.normalize("NFKD", text.replace("ß", "ss")).encode("ascii", "ignore")
    joined = re.sub(r"[^a-z0-9_]+", "-", plain.decode().lower()).strip("-_")
    return joined[:LONGEST].rstrip("-_") or "category"


def _another(name: str, taken: set[str]) -> str:
    number, found = 2, name
    while found in taken:
        found = f"{name[: LONGEST - 5]}-{number}"
        number += 1
    return found


def _template(name: str, data: DataSet) -> str:
    """Return the address with the name as ``{name}``; empty where the name is not its end."""
    if data.images.rpartition("/")[2] != name:
        return ""
    return _escaped(data.images.removesuffix(name)) + "{name}"


def _entry(name: str, data: DataSet, defaults: dict[str, str]) -> Any:
    entry = {}
    if _template(name, data) != defaults.get("images"):
        entry["images"] = _escaped(data.images)
    if data.layout != defaults.get("layout"):
        entry["layout"] = data.layout
    return {"name": name, **entry} if entry else name


def _folder_name(uri: str) -> str:
    """Return what people call it: the last part, of a file without its suffix."""
    name = uri.rpartition("/")[2]
    return stem(name) if is_manifest(name) else name


def _escaped(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def _yaml(value: Any) -> str:
    """Return a value on one line, in quotes where YAML would take it for something else."""
    text: str = yaml.safe_dump(
        [value], default_flow_style=True, sort_keys=False, allow_unicode=True, width=float("inf")
    )
    return text.strip()[1:-1]
