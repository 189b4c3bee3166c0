"""What a study searches: parameters, their domains in the words of Ray Tune, and what they change.

A configuration is a mapping of parameter to value; applied to a category it gives the category as
a catalogue could have said it. The empty configuration is the category as it is.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    TypeAdapter,
    ValidationError,
)

from model.preprocessing import Fit
from model.simplenet import Adaptor, Loss
from model.training import SigmaUnit
from pipeline.catalogue.catalogue import Category
from pipeline.catalogue.findings import nearest
from pipeline.catalogue.known_names import BackboneName, PatchSize
from pipeline.catalogue.strict_yaml import shown
from pipeline.catalogue.weights_file import WeightsFile

Configuration = Mapping[str, Any]
Kind = Literal["uniform", "loguniform", "quniform", "randint", "choice", "grid"]
KINDS: tuple[str, ...] = get_args(Kind)
LISTED = ("choice", "grid")


def _as_shown(value: float) -> float:
    """What a catalogue shows is what is trained."""
    return float(f"{value:.4g}")


Positive = Annotated[PositiveFloat, AfterValidator(_as_shown)]
NotNegative = Annotated[NonNegativeFloat, AfterValidator(_as_shown)]

# Each changes settings of a category by these names; `sigma` and `sigma_spread` are the centre and
# the ratio of the range from which every row's noise is drawn.
PATCH_PARAMETERS: dict[str, Any] = {
    "sigma": Positive,
    "sigma_spread": Annotated[Positive, Field(ge=1)],
    "sigma_unit": SigmaUnit,
    "th_plus": NotNegative,
    "th_minus": NotNegative,
    "loss": Loss,
    "hidden": PositiveInt,
    "adaptor": Adaptor,
    "passes": PositiveInt,
}
FEATURE_PARAMETERS: dict[str, Any] = {
    "layers": list[int],
    "patch_size": PatchSize,
    "backbone": BackboneName,
    "crop": PositiveInt,
    "fit": Fit,
}
PARAMETERS: dict[str, TypeAdapter[Any]] = {
    name: TypeAdapter(kind) for name, kind in {**PATCH_PARAMETERS, **FEATURE_PARAMETERS}.items()
}
DEFAULT_SPACE: dict[str, Any] = {
    "sigma": {"loguniform": [0.25, 4.0]},
    "sigma_spread": {"choice": [1, 3, 8]},
    "sigma_unit": {"choice": ["balanced_std", "channel_std"]},
    "th_plus": {"uniform": [0.1, 1.0]},
    "th_minus": {"uniform": [0.1, 1.0]},
    "layers": {"choice": [[2], [3], [2, 3], [1, 2, 3]]},
}


class WrongDomain(ValueError):
    """A domain that nothing can be drawn from."""


@dataclass(frozen=True)
class Domain:
    """Where the values of one parameter come from."""

    kind: Kind
    arguments: tuple[Any, ...]

    @property
    def values(self) -> tuple[Any, ...]:
        """What can be named of it: every value of a list, the ends of a range."""
        if self.kind in LISTED:
            return self.arguments
        high = self.arguments[1] - (1 if self.kind == "randint" else 0)  # as Ray Tune counts
        return self.arguments[0], high

    @property
    def is_fixed(self) -> bool:
        """Whether there is nothing to choose."""
        return self.kind in LISTED and len(self.arguments) == 1

    def to_json(self) -> dict[str, list[Any]]:
        """Return the domain as a catalogue says it."""
        return {self.kind: list(self.arguments)}


def label(value: Any) -> Any:
    """Return a value as something that can be compared and printed: a list becomes `2+3`."""
    return "+".join(map(str, value)) if isinstance(value, list | tuple) else value


def read_domain(given: Any) -> Domain:
    """Read `{loguniform: [0.1, 4]}` and the like; a plain value is a choice of one.

    Raises:
        WrongDomain: it says nothing that could be drawn from.
    """
    if not isinstance(given, Mapping):
        return Domain("choice", (given,))
    if len(given) != 1 or next(iter(given)) not in KINDS:
        raise WrongDomain(f"expected one of {', '.join(KINDS)}, found {shown(given)}")
    kind, arguments = next(iter(given.items()))
    if not isinstance(arguments, list) or not arguments:
        raise WrongDomain(f"{kind}: expected a list of values, found {shown(arguments)}")
    domain = Domain(kind, tuple(arguments))
    if kind not in LISTED:
        _check_range(domain)
    return domain


def _check_range(domain: Domain) -> None:
    kind, arguments = domain.kind, domain.arguments
    wanted = 3 if kind == "quniform" else 2
    numbers = all(_is_number(value) for value in arguments)
    if len(arguments) != wanted or not numbers:
        names = "low, high, step" if wanted == 3 else "low, high"
        raise WrongDomain(f"{kind}: expected [{names}], numbers, found {shown(list(arguments))}")
    low, high = domain.values
    empty = low > high if kind == "randint" else low >= high
    if empty or (kind == "loguniform" and low <= 0) or (wanted == 3 and arguments[2] <= 0):
        positive = " and above 0" if kind == "loguniform" else ""
        raise WrongDomain(
            f"{kind}: nothing lies in {list(arguments)}; expected low < high{positive}"
        )
    if kind == "randint" and not all(isinstance(value, int) for value in arguments):
        raise WrongDomain(f"randint: expected whole numbers, found {list(arguments)}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def read_space(given: Mapping[str, Any]) -> tuple[dict[str, Domain], list[str]]:
    """Return the domains that can be read and one line per fault."""
    space: dict[str, Domain] = {}
    findings = []
    for name, entry in given.items():
        if name not in PARAMETERS:
            findings.append(f"{name}: unknown parameter{nearest(str(name), list(PARAMETERS))}")
            continue
        if name == "layers" and isinstance(entry, list):
            entry = {"choice": [entry]}  # noqa: PLW2901  a plain value that is a list
        try:
            space[name] = read_domain(entry)
            if name in FEATURE_PARAMETERS and space[name].kind not in LISTED:
                raise WrongDomain("expected a choice or a grid: features are computed for each")
        except WrongDomain as error:
            findings.append(f"{name}: {error}")
    if not findings and all(domain.is_fixed for domain in space.values()):
        findings.append(
            f"the space is empty: {len(space)} parameters, none with two values to choose from; "
            f"give at least one a range or a choice, or leave `space` out for the default one"
        )
    return space, findings


def findings_of_values(space: Mapping[str, Domain], category: Category) -> list[str]:
    """Return one line per value that the category could not be trained with."""
    findings = []
    for name, domain in space.items():
        for value in domain.values:
            try:
                Category.model_validate(apply({name: value}, category).model_dump())
            except ValidationError as error:
                why = "; ".join(fault["msg"] for fault in error.errors())
                findings.append(f"{name}: {label(value)}: {why.removeprefix('Value error, ')}")
    return findings


def apply(
    configuration: Configuration,
    category: Category,
    weights: Mapping[str, WeightsFile] = MappingProxyType({}),
) -> Category:
    """Return the category with the settings of a configuration; ``weights`` are of other backbones.

    Raises:
        ValidationError: a value is none of its parameter.
    """
    given = {name: PARAMETERS[name].validate_python(value) for name, value in configuration.items()}
    features = {name: given.pop(name) for name in FEATURE_PARAMETERS if name in given}
    if features.get("backbone", category.backbone) != category.backbone:
        features["weights"] = weights.get(features["backbone"])
    if "crop" in features:  # as much of the image as before, at another size
        before = category.preprocessing
        features["resize"] = round(before.resize * features["crop"] / min(before.size))
    patch = category.recipe.patch
    if {"sigma", "sigma_spread"} & given.keys():
        low, high = patch.sigma
        centre = given.pop("sigma", math.sqrt(low * high))
        reach = math.sqrt(given.pop("sigma_spread", high / low))
        given["sigma"] = (_as_shown(centre / reach), _as_shown(centre * reach))
    if {"th_plus", "th_minus"} & given.keys():
        given["margins"] = tuple(
            given.pop(name, margin)
            for name, margin in zip(("th_plus", "th_minus"), patch.margins, strict=True)
        )
    training = category.training.model_copy(update=given)
    return category.model_copy(update={**features, "training": training})


def decode(sampled: Configuration, space: Mapping[str, Domain]) -> dict[str, Any]:
    """Return the values that labels stand for."""
    return {name: _meant(space[name], value) for name, value in sampled.items()}


def _meant(domain: Domain, found: Any) -> Any:
    if domain.kind not in LISTED:
        return found
    return next(value for value in domain.arguments if label(value) == found)
