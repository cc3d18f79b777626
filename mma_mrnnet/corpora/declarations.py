"""The provenance that a folder of user data declares."""

import json
import logging
from collections.abc import Collection
from pathlib import Path

from mma_mrnnet.results import Provenance

logger = logging.getLogger(__name__)

DECLARATION = "provenance.json"


def declared_provenance(folder: str | Path, sources: Collection[str]) -> list[Provenance]:
    """Read the provenance of sources from the folder's `provenance.json`, sorted by name.

    The file is a list of objects with the fields of `Provenance`:
    `[{"name": "studio", "licence": "cc-by-4.0", "made_up": false, "labels": "human"}]`.
    Sources are values of the data's column `source`, or `labelled_folder` or `clips` for these
    kinds of data. A source is "unknown" without an entry.

    Raises:
        ValueError: the file is not such a list, or names a source twice.
    """
    path = Path(folder) / DECLARATION
    declared = {entry.name: entry for entry in _read_entries(path)} if path.is_file() else {}
    unused = sorted(set(declared) - set(sources))
    if unused:
        logger.warning("%s: no training row is of %s", path, ", ".join(unused))
    return [declared.get(name) or Provenance(name) for name in sorted(sources)]


def _read_entries(path: Path) -> list[Provenance]:
    try:
        entries = json.loads(path.read_text("utf-8"))
        if not isinstance(entries, list):
            raise ValueError("a list with one object for each source is needed")
        found = [Provenance.from_json(entry) for entry in entries]
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
    names = [entry.name for entry in found]
    if len(set(names)) < len(names):
        raise ValueError(f"{path}: each source may be there once; got {', '.join(names)}")
    return found
