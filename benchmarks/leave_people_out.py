"""Smiling against neutral on photos of people whom the extractor has never seen.

    python benchmarks/leave_people_out.py FOLDER --folds 3 --out RUNS -- --epochs 6

FOLDER holds the labelled crops (`train-*.parquet`, `validation-*.parquet`); the words behind `--`
are those of train.py. The people of the smiling and neutral photos of `london` and of the neutral
ones of `canada` and `congress` are divided into folds. For each fold, all rows of its people
(photos, bent photos, renders with their texture) are taken out, stage 1 is trained on the rest,
and the photos left out are scored. A photo counts as smiling if happiness is more probable than
neutral. Intervals are 95 %, people resampled within the groups that show one pose, the other, or
both. An interrupted study continues. Writes `benchmarks/results/smiles_by_people.json`.
"""

import argparse
import io
import json
import shlex
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from machine import machine
from PIL import Image

from mma_mrnnet import MMAModel, MMAMRNNetVideoProcessor
from mma_mrnnet.faces.affect import extract_affect
from mma_mrnnet.files import write_json
from mma_mrnnet.metrics import area_under_roc, rounded
from mma_mrnnet.model.labels import EXPRESSIONS, affect_names

RESULT = Path(__file__).parent / "results" / "smiles_by_people.json"
POSED = "london"
NEUTRAL_SOURCES = (POSED, "canada", "congress")
RESAMPLES = 2000
COLUMNS = ("subject", "source", "expression")


@dataclass
class Photo:
    """A photo that is scored.

    Attributes:
        name: Name of its image.
        subject: The person.
        source: Where it comes from.
        smiling: Whether the person was asked to smile, else to look neutral.
        labelled: False if the data withhold the expression (a weak smile, or a neutral face that
            smiles); the pose is then that of the photo's name.
        margin: Probability of happiness less that of neutral; NaN until scored.
    """

    name: str
    subject: str
    source: str
    smiling: bool
    labelled: bool
    margin: float = float("nan")

    @property
    def is_right(self) -> bool:
        """Return whether the sign of the margin is that of the pose."""
        return (self.margin > 0) == self.smiling


def parquet_files(folder: Path) -> list[Path]:
    """Return the files of both splits; raise ValueError if there are none."""
    found = [*sorted(folder.glob("train-*.parquet")), *sorted(folder.glob("validation-*.parquet"))]
    if not found:
        raise ValueError(f"{folder}: no train-*.parquet and validation-*.parquet here")
    return found


def photo_of(row: dict, name: str) -> Photo | None:
    """Return the row as a photo to score; None if it is not one."""
    happy, neutral = EXPRESSIONS.index("happiness"), EXPRESSIONS.index("neutral")
    labelled = row["expression"] in (happy, neutral)
    if row["source"] == POSED and (labelled or name.endswith(("-smiling.jpg", "-neutral.jpg"))):
        smiling = row["expression"] == happy if labelled else name.endswith("-smiling.jpg")
        return Photo(name, row["subject"], POSED, smiling, labelled)
    if row["source"] in NEUTRAL_SOURCES and row["expression"] == neutral:
        return Photo(name, row["subject"], row["source"], smiling=False, labelled=True)
    return None


def scored_photos(folder: Path) -> dict[str, Photo]:
    """Return all photos to score, by the names of their images."""
    photos = {}
    for path in parquet_files(folder):
        table = pq.read_table(path, columns=[*COLUMNS, "image"])
        names = pc.struct_field(table["image"], "path").to_pylist()
        for number, (row, name) in enumerate(
            zip(table.select(COLUMNS).to_pylist(), names, strict=True)
        ):
            photo = photo_of(row, name or f"{path.name}:{number}")
            if photo is not None:
                photos[photo.name] = photo
    if len({photo.smiling for photo in photos.values()}) < 2:
        raise ValueError(
            f"{folder}: smiling photos of {POSED} and neutral ones are needed; "
            f"found {len(photos)} of one kind"
        )
    return photos


def strata(photos: list[Photo]) -> dict[tuple, list[str]]:
    """Return groups of people who show the same poses in the same sources, in order."""
    shown: dict[str, set] = {}
    for photo in photos:
        shown.setdefault(photo.subject, set()).add((photo.source, photo.smiling))
    groups: dict[tuple, list[str]] = {}
    for subject in sorted(shown):
        groups.setdefault(tuple(sorted(shown[subject])), []).append(subject)
    return dict(sorted(groups.items()))


def folds_of(photos: list[Photo], count: int) -> list[set[str]]:
    """Divide the people into `count` folds; strata are dealt out in an order drawn with seed 0."""
    rng = np.random.default_rng(0)
    people = [
        subject for group in strata(photos).values() for subject in rng.permutation(group).tolist()
    ]
    if not 2 <= count <= len(people):
        raise ValueError(
            f"--folds must be from 2 to the number of people, {len(people)}; got {count}"
        )
    return [set(people[fold::count]) for fold in range(count)]


def write_rest(folder: Path, target: Path, held_out: set[str]) -> dict[str, int]:
    """Write both splits without some people; return how many rows were kept and taken out."""
    target.mkdir(parents=True, exist_ok=True)
    counts = {"kept": 0, "taken_out": 0}
    for path in parquet_files(folder):
        table = pq.read_table(path)  # with its schema's metadata, which says that `image` is one
        subjects = table["subject"].to_pylist()
        rest = table.filter([subject not in held_out for subject in subjects])
        staging = target / f".{path.name}.tmp"
        pq.write_table(rest, staging)
        staging.replace(target / path.name)
        counts["kept"] += len(rest)
        counts["taken_out"] += len(table) - len(rest)
    return counts


def train(data: Path, run: Path, words: list[str]) -> None:
    """Stage 1 on the rest; goes on with what a killed run left.

    Raises:
        RuntimeError: the training failed; it has said why.
    """
    command = [
        sys.executable,
        "-m",
        "mma_mrnnet.train",
        "--stage",
        "mma",
        "--data",
        str(data),
        "--output",
        str(run),
    ]
    if (run / "checkpoints").is_dir():
        command.append("--resume")
    if subprocess.run([*command, *words], check=False).returncode != 0:
        raise RuntimeError(f"training failed: {shlex.join([*command, *words])}")


def scored(folder: Path, model: Path, photos: list[Photo]) -> list[Photo]:
    """Return the photos with their margins, by the extractor in a folder."""
    wanted = {photo.name: photo for photo in photos}
    extractor, processor = (
        MMAModel.from_pretrained(model).eval(),
        MMAMRNNetVideoProcessor.from_pretrained(model),
    )
    names = affect_names(extractor.config.action_units)
    done = []
    for path in parquet_files(folder):
        images = pq.read_table(path, columns=["image"])["image"].to_pylist()
        rows = [
            (image["path"] or f"{path.name}:{number}", image["bytes"])
            for number, image in enumerate(images)
        ]
        chosen = [(wanted[name], data) for name, data in rows if name in wanted]
        for start in range(0, len(chosen), 64):
            part = chosen[start : start + 64]
            crops = [np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for _, data in part]
            affect = extract_affect(crops, extractor, processor)
            margins = affect[:, names.index("happiness")] - affect[:, names.index("neutral")]
            for (photo, _), margin in zip(part, margins.tolist(), strict=True):
                photo.margin = margin
                done.append(photo)
    return done


def run_fold(
    folder: Path, out: Path, held_out: set[str], photos: list[Photo], words: list[str]
) -> dict:
    """One fold's photos with margins, and what it took; read from its file where it is done.

    Raises:
        ValueError: the file is of other people or another training.
    """
    settings = {"words": words, "held_out": sorted(held_out)}
    path = out / "scores.json"
    if path.is_file():
        found = json.loads(path.read_text("utf-8"))
        if {name: found[name] for name in settings} != settings:
            raise ValueError(f"{path}: of another training or other people; give another --out")
        return found
    counts = write_rest(folder, out / "data", held_out)
    train(out / "data", out / "run", words)
    margins = scored(folder, out / "run" / "model", photos)
    found = {
        **settings,
        "rows": counts,
        "minutes": json.loads((out / "run" / "results.json").read_text("utf-8"))["training"][
            "seconds"
        ]
        / 60,
        "photos": [asdict(photo) for photo in margins],
    }
    write_json(path, rounded(found))
    return found


# Scores -------------------------------------------------------------------------------------------


def balanced_accuracy(margin: np.ndarray, smiling: np.ndarray) -> float:
    """Return the mean of the shares of smiling and of neutral photos that are read so."""
    return float(((margin[smiling] > 0).mean() + (margin[~smiling] <= 0).mean()) / 2)


def score(photos: list[Photo]) -> dict:
    """Return counts, and balanced accuracy and AUC with 95 % intervals over people."""
    margin, smiling = (
        np.array([photo.margin for photo in photos]),
        np.array([photo.smiling for photo in photos]),
    )
    rows: dict[str, list[int]] = {}
    for number, photo in enumerate(photos):
        rows.setdefault(photo.subject, []).append(number)
    groups = [[np.array(rows[subject]) for subject in people] for people in strata(photos).values()]
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(RESAMPLES):
        chosen = np.concatenate(
            [group[each] for group in groups for each in rng.integers(0, len(group), len(group))]
        )
        drawn.append(
            (
                balanced_accuracy(margin[chosen], smiling[chosen]),
                float(area_under_roc(margin[chosen], smiling[chosen])),
            )
        )
    low, high = np.quantile(np.array(drawn), (0.025, 0.975), axis=0)
    values = {
        "balanced_accuracy": balanced_accuracy(margin, smiling),
        "auc": float(area_under_roc(margin, smiling)),
    }
    return {
        "smiling": int(smiling.sum()),
        "neutral": int((~smiling).sum()),
        "people": len(rows),
        "smiling_read_so": int((margin[smiling] > 0).sum()),
        "neutral_read_so": int((margin[~smiling] <= 0).sum()),
        **{
            name: {"value": value, "low": float(low[column]), "high": float(high[column])}
            for column, (name, value) in enumerate(values.items())
        },
    }


def summary(photos: list[Photo]) -> dict:
    """Score all photos, the labelled ones, and against the neutral ones of each source."""
    groups = {
        "all": photos,
        "with a label": [photo for photo in photos if photo.labelled],
        **{
            f"neutral from {source}": [
                photo for photo in photos if photo.smiling or photo.source == source
            ]
            for source in NEUTRAL_SOURCES
        },
    }
    misses = sorted(
        (photo for photo in photos if not photo.is_right), key=lambda photo: -abs(photo.margin)
    )
    return {
        "scores": {
            name: score(chosen)
            for name, chosen in groups.items()
            if len({p.smiling for p in chosen}) == 2
        },
        "misses": [asdict(photo) for photo in misses],
    }


def main(folder: Path, out: Path, count: int, words: list[str]) -> dict:
    """Trains and scores every fold, and writes the result file.

    Args:
        folder: the labelled crops.
        out: a folder for the folds' files and runs.
        count: folds.
        words: of train.py, beside stage, data and output.

    Returns:
        What the result file holds.
    """
    torch.set_num_threads(1)
    photos = scored_photos(folder)
    folds = []
    for number, held_out in enumerate(folds_of(list(photos.values()), count), 1):
        chosen = [photo for photo in photos.values() if photo.subject in held_out]
        folds.append(run_fold(folder, out / f"fold-{number}", held_out, chosen, words))
    result = {
        "what": "smiling against neutral photos of people in no training image, by folds over "
        "people",
        "command": f"python benchmarks/leave_people_out.py FOLDER --folds {count} --out RUNS "
        f"-- {shlex.join(words)}",
        "machine": machine(),
        "minutes": sum(fold["minutes"] for fold in folds),
        "folds": [
            {"people": len(fold["held_out"]), "photos": len(fold["photos"]), **fold["rows"]}
            for fold in folds
        ],
        **summary([Photo(**photo) for fold in folds for photo in fold["photos"]]),
    }
    write_json(RESULT, rounded(result))
    return result


def parted(given: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Parse our own arguments; the words behind `--` are those of train.py."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="words of train.py, beside --stage, --data and --output, stand behind --",
    )
    parser.add_argument("folder", type=Path, help="holds the labelled crops")
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument(
        "--out", type=Path, required=True, help="where the folds' files and runs are kept"
    )
    end = given.index("--") if "--" in given else len(given)
    return parser.parse_args(given[:end]), given[end + 1 :]


if __name__ == "__main__":
    asked, words_of_training = parted(sys.argv[1:])
    print(json.dumps(main(asked.folder, asked.out, asked.folds, words_of_training), indent=1))
