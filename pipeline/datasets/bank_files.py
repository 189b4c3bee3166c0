"""The files of a bank of synthetic images that say what it is, beside its images."""

from model.errors import CategoryFault
from pipeline import storage

PROVENANCE_FILE = "provenance.json"  # written last
UNFINISHED_FILE = "unfinished.json"  # there from the first image until all are


class UnfinishedBank(CategoryFault):
    """A bank of synthetic images of which some are missing."""


def refuse_unfinished(category: str, bank: str) -> None:
    """Refuse a bank that is still being made, or whose making was cut off.

    A folder that is no bank of ours is none of our business.

    Raises:
        UnfinishedBank: it is.
    """
    unfinished = storage.exists(storage.join(bank, UNFINISHED_FILE))
    if unfinished and not storage.exists(storage.join(bank, PROVENANCE_FILE)):
        raise UnfinishedBank(
            f"{category}: the bank {bank} is not finished; run the same `nightshift synthesise` "
            f"again, which goes on where it stopped."
        )
