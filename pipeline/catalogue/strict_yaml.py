"""YAML as people write settings: plain values, no key twice, and a fault in one line.

PyYAML's safe loader keeps the last of two equal keys in silence, and lets half a dozen other
exceptions than its own escape for a date like 2024-99-99 or a tag that does not fit.
"""

import reprlib
from typing import Any

import yaml

MERGE_TAG = "tag:yaml.org,2002:merge"  # of `<<`, which may well be there twice
ESCAPING = (ValueError, TypeError, KeyError, AttributeError, RecursionError)


class InvalidYaml(ValueError):
    """Not YAML, or not plain values with unique keys; the message says where and what."""


def load(content: bytes) -> Any:
    """Return the plain values that a YAML document holds.

    Raises:
        InvalidYaml: it cannot be read, constructs objects, or gives a key twice.
    """
    try:
        return yaml.load(content, Loader=_UniqueKeyLoader)  # noqa: S506  a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise InvalidYaml(f"{place}{error.problem or error.context}") from error
    except RecursionError as error:
        raise InvalidYaml("it is nested too deep") from error
    except (yaml.YAMLError, *ESCAPING) as error:
        raise InvalidYaml(" ".join(str(error).split())) from error


def shown(value: Any) -> str:
    """Return a value as a message can bear it: aliases can make a small file a huge value."""
    short = reprlib.Repr()
    short.maxlevel, short.maxdict, short.maxlist, short.maxstring = 2, 3, 4, 80
    return short.repr(value)


class _UniqueKeyLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice."""


def _unique_mapping(loader: _UniqueKeyLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    given = [key for key, _ in node.value if key.tag != MERGE_TAG]
    keys = [loader.construct_object(key, deep=True) for key in given]
    for index, key in enumerate(keys):
        if key in keys[:index]:
            raise yaml.constructor.ConstructorError(
                None, None, f"key {shown(key)} is given twice", given[index].start_mark
            )
    return loader.construct_mapping(node, deep=True)


_UniqueKeyLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_mapping)
