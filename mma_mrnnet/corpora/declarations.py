"""Where a folder of somebody's own data comes from, as the folder itself declares it."""

import json
import logging
from collections.abc import Collection
from pathlib import Path

from mma_mrnnet.results import Provenance

logger = logging.getLogger(__name__)

DECLARATION = "provenance.json"


def declared_provenance(folder: str | Path, sources: Collection[str]) -> list[Provenance]:
    """Read the provenance of some sources from the folder's `provenance.json`.

    The file holds a list with one object a source, with the fields of `Provenance`:
    `[{"name": "studio", "licence": "cc-by-4.0", "made_up": false, "labels": "human"}]`.

    Args:
        folder: the data; without the file every source is unknown.
        sources: names of the sources, as the data's column `source` has them; `labelled_folder` and
            `clips` for data of these kinds.

    Returns:
        One `Provenance` a source, in the order of their names; a source that the file does not name
        is unknown.

    Raises:
        ValueError: the file is no such list, or names a source twice; the message starts with it.
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
