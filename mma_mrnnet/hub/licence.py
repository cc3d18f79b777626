"""The licence of weights, from the licences of the data that they learnt from."""

from collections.abc import Iterable

from mma_mrnnet.results import UNKNOWN_LICENCE, Provenance

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
    """Return the licence of weights that learnt from `sources`: that of the most restrictive one.

    Returns:
        One of `LICENCES`; `unknown` if there is no source, or if the licence of one is unknown or
        has no place in that order.
    """
    licences = [source.licence for source in sources]
    if not licences or not set(licences) <= set(LICENCES):
        return UNKNOWN_LICENCE
    return max(licences, key=LICENCES.index)
