"""The licence of weights, derived from the licences of the training data."""

from collections.abc import Iterable
from typing import Any

from mma_mrnnet.results import (
    UNKNOWN_LICENCE,
    MMAResults,
    MRNNResults,
    Provenance,
    RunResults,
)

LICENCES = (
    "public-domain",
    "cc0-1.0",
    "mit",
    "apache-2.0",
    "cc-by-2.0",
    "cc-by-3.0",
    "cc-by-4.0",
    "cc-by-sa-3.0",
    "cc-by-sa-4.0",
    "cc-by-nc-3.0",
    "cc-by-nc-4.0",
    "cc-by-nc-sa-3.0",
    "cc-by-nc-sa-4.0",
    "research-only",
)
"""Licences from the least to the most restrictive (our order)."""


def weights_licence(sources: Iterable[Provenance]) -> str:
    """Return the most restrictive licence of the sources, one of `LICENCES`.

    `unknown` if there is no source, or if a source's licence is not in the order.
    """
    licences = [source.licence for source in sources]
    if not licences or not set(licences) <= set(LICENCES):
        return UNKNOWN_LICENCE
    return max(licences, key=LICENCES.index)


def checkpoint_sources(
    stage1: RunResults | None,
    stage2: RunResults | None,
    *,
    has_extractor: bool,
    has_intensities: bool,
) -> list[Provenance]:
    """Return the sources of all weights of a checkpoint, stage 1 first, without duplicates.

    A stage that the checkpoint has, but without results or declared sources, counts as one
    source with an unknown licence.
    """
    found: list[Provenance] = []
    for name, results, is_held in (
        (MMAResults.name_of_file, stage1, has_extractor),
        (MRNNResults.name_of_file, stage2, has_intensities),
    ):
        if is_held:
            declared = [] if results is None else list(results.provenance or ())
            found += declared or [Provenance(f"not recorded ({name})")]
    return list(dict.fromkeys(found))


def licence_fields(licence: str) -> dict[str, Any]:
    """Return a card's metadata for a licence from `weights_licence`.

    The Hub accepts SPDX identifiers and `unknown`; other licences become `other` with a name.
    """
    names = {"research-only": "terms-of-the-training-data", "public-domain": "public-domain"}
    if licence in names:
        return {"license": "other", "license_name": names[licence]}
    return {"license": licence}


def none_coded_by_people(sources: Iterable[Provenance]) -> bool:
    """Return whether all sources declare that no person coded their labels."""
    kinds = {source.labels for source in sources}
    return bool(kinds) and kinds <= {"pseudo", "constructed", "simulated"}
