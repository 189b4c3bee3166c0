"""The kinds of detectors. A new one is a module with a ``Kind`` and a line here."""

from model.ensemble import ENSEMBLE
from model.kind import Kind
from model.memory_bank import MEMORY_BANK
from model.realnet.realnet import REALNET
from model.recipe import SIMPLENET

KINDS: dict[str, Kind] = {
    "simplenet": SIMPLENET,
    "memory_bank": MEMORY_BANK,
    "ensemble": ENSEMBLE,
    "realnet": REALNET,
}
