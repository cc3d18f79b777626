"""Typed records of what a training leaves behind, as they stand in its result files."""

from dataclasses import asdict, dataclass

LABEL_KINDS = ("human", "pseudo", "constructed", "simulated", "unknown")
"""Who or what labelled the data: people; another model; whoever made the picture, by making it; a
simulator; not known."""

UNKNOWN_LICENCE = "unknown"


@dataclass(frozen=True)
class Provenance:
    """Where one source of training data comes from, and under which licence.

    Attributes:
        name: of the source, such as `affectnet`.
        licence: lower-case SPDX identifier (`cc-by-4.0`), `public-domain`, `research-only`, or
            `unknown`.
        made_up: True if its faces or clips were rendered, drawn, bent or simulated.
        labels: one of `LABEL_KINDS`.
        attribution: the credit that the licence asks for; empty if it asks for none.

    Raises:
        ValueError: an empty name, a licence that is no lower-case word, or another kind of labels.
    """

    name: str
    licence: str = UNKNOWN_LICENCE
    made_up: bool = False
    labels: str = "unknown"
    attribution: str = ""

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("a provenance needs a name")
        if not self.licence or self.licence != self.licence.strip().lower():
            raise ValueError(
                f"licence of {self.name}: a lower-case identifier is needed; got {self.licence!r}"
            )
        if self.labels not in LABEL_KINDS:
            raise ValueError(
                f"labels of {self.name}: accepted are {', '.join(LABEL_KINDS)}; got {self.labels!r}"
            )

    def to_json(self) -> dict[str, str | bool]:
        """Return the fields as a JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: object) -> "Provenance":
        """Return what `to_json` gave; unknown keys are ignored.

        Raises:
            ValueError: not such an object.
        """
        if not isinstance(value, dict):
            raise ValueError(f"a provenance is a JSON object; got {value!r:.80}")
        texts = {key: value.get(key, "") for key in ("name", "licence", "labels", "attribution")}
        made_up = value.get("made_up", False)
        if not isinstance(made_up, bool) or not all(isinstance(t, str) for t in texts.values()):
            raise ValueError(
                f"a provenance holds texts, and made_up as a boolean; got {value!r:.200}"
            )
        return cls(
            name=texts["name"],
            licence=texts["licence"] or UNKNOWN_LICENCE,
            made_up=made_up,
            labels=texts["labels"] or "unknown",
            attribution=texts["attribution"],
        )


def read_provenance(results: dict) -> tuple[Provenance, ...]:
    """Return the sources that a result file names under `provenance`; none if it names none.

    Raises:
        ValueError: the entry is no list of sources.
    """
    entries = results.get("provenance") or []
    if not isinstance(entries, list):
        raise ValueError(f"provenance is a list of sources; got {entries!r:.80}")
    return tuple(map(Provenance.from_json, entries))
