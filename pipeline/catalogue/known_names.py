"""Settings that name something which Nightshift has: a backbone, a layout, a kind of detector."""

from collections.abc import Collection
from typing import Annotated, Literal

from pydantic import AfterValidator

from model.backbone import BACKBONES
from model.kinds import KINDS
from pipeline.catalogue.findings import nearest
from pipeline.datasets.layouts import LAYOUTS


def _known(kind: str, names: Collection[str]) -> AfterValidator:
    def check(given: str) -> str:
        if given not in names:
            raise ValueError(f"no {kind} `{given}`{nearest(given, list(names))}")
        return given

    return AfterValidator(check)


BackboneName = Annotated[str, _known("backbone", BACKBONES)]
LayoutName = Annotated[str, _known("layout", LAYOUTS)]
DetectorName = Annotated[str, _known("detector", KINDS)]
PatchSize = Literal[1, 3, 5, 7]
