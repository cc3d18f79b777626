"""The prediction for one person in one clip, and stage 2, which computes its intensities."""

import json
import math
import os
from collections.abc import Callable, Iterable, Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mma_mrnnet.faces.strips import FaceSnapshot
from mma_mrnnet.files import write_text
from mma_mrnnet.hub.facts import CheckpointFacts
from mma_mrnnet.model.clip_length import describe_shortening, kept_indices
from mma_mrnnet.model.labels import caveats
from mma_mrnnet.prediction.checkpoint import Engine
from mma_mrnnet.tables.cells import write_table
from mma_mrnnet.tables.features import INTERPOLATED, ROW_COLUMNS, TABLE_SUFFIXES
from mma_mrnnet.video.reading import VIDEO_SUFFIXES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NO_FACE = "no face in this video"
NO_ROW = "no row of this table has a face and a number in each column that the model reads"
BOX_NAMES = ("box_x", "box_y", "box_width", "box_height")

FEW_FRAMES = 4  # 2 s; fewer are too little for a recurrent network (our choice)
CLIPS_AT_ONCE = 64  # clips in one batch of stage 2: few calls, little memory


@dataclass
class Evidence:
    """Explains the intensities of a prediction; fields as in `VideoPrediction`."""

    moments: pd.DataFrame = field(default_factory=pd.DataFrame)
    constant: dict[str, float] = field(default_factory=dict)
    running: pd.DataFrame = field(default_factory=pd.DataFrame)


@dataclass
class VideoPrediction:
    """The prediction for one person in one clip; a notebook shows it as a page.

    `prediction["Amusement"]` is one intensity. `moments`, `constant` and `running` are computed
    on first use, by the engine.

    Attributes:
        file: path of the video or feature table, as given.
        intensities: value in [0, 1] of each target, by label name; NaN if `error` is set.
        frames: one row per frame that was read (columns: `frame_columns`), NaN without a face.
            For a feature table: the used rows.
        duration_s: length of the decoded part; NaN for a table without time stamps.
        error: why there are no intensities (such as no face), or None.
        warning: what a damaged file lost, or why the result is weak; or None.
        calibrated: whether outputs of different targets share one scale.
        relative: whether 1 means the strongest reaction in the clip, however weak, so that
            intensities of different clips do not compare.
        simulated: whether the model learnt its targets from a simulator.
        prior_only: names of action units without a label in training.
        track: number of the person; 0 (the default) is the person in most frames.
        people: number of people in enough frames to count; 1 for a feature table.
        strip: up to 12 sampled faces, evenly spaced over the clip; empty for a feature table,
            without a face, and for people beyond the first 20.
        neutral_s: start and end in seconds of the person's own neutral, if it was subtracted.
        uncorrected: the intensities without that subtraction, if any.
        explain: computes the evidence.
    """

    file: str
    intensities: dict[str, float]
    frames: pd.DataFrame = field(repr=False)
    duration_s: float
    error: str | None = None
    warning: str | None = None
    calibrated: bool = False
    relative: bool = True
    simulated: bool = False
    prior_only: tuple[str, ...] = ()
    track: int = 0
    people: int = 1
    strip: list[FaceSnapshot] = field(default_factory=list, repr=False)
    neutral_s: tuple[float, float] | None = None
    uncorrected: dict[str, float] | None = None
    explain: Callable[[], Evidence] = field(default=Evidence, repr=False)

    @cached_property
    def evidence(self) -> Evidence:
        """`moments`, `constant` and `running`, computed once."""
        return self.explain()

    @property
    def moments(self) -> pd.DataFrame:
        """Contribution of each frame to each output, before sigmoid and calibration.

        One row per frame that stage 2 read (sampled, with a face, at most T): `frame`, `time_s`,
        then by label name. NaN for a model whose own code has no contributions, or whose GRU
        reads padding. See `MMAMRNNetForIntensity.frame_contributions`.
        """
        return self.evidence.moments

    @property
    def constant(self) -> dict[str, float]:
        """Each output's part that no frame contributes, before the sigmoid, by label name.

        Empty without a face, and if `moments` is NaN.
        """
        return self.evidence.constant

    @property
    def running(self) -> pd.DataFrame:
        """The intensities up to each row of `moments`: `time_s`, then by label name."""
        return self.evidence.running

    @property
    def frames_sampled(self) -> int:
        """Number of frames that were read."""
        return len(self.frames)

    @property
    def frames_with_face(self) -> int:
        """Number of frames with a face."""
        return int(self.frames["face"].sum())

    @property
    def thumbnail(self) -> FaceSnapshot | None:
        """The face of the strip with the highest detector score; None without a strip."""
        return max(self.strip, key=lambda snapshot: snapshot.score, default=None)

    def ranked(self) -> list[tuple[str, float]]:
        """Return targets and intensities, strongest first.

        Raises ValueError without a face, and for a checkpoint that is not calibrated.
        """
        if self.error is not None:
            raise ValueError(f"{self.file}: {self.error}")
        if not self.calibrated:
            raise ValueError(
                "this checkpoint is not calibrated: outputs of different targets do not compare"
            )
        return sorted(self.intensities.items(), key=lambda item: item[1], reverse=True)

    def summary(self) -> dict[str, Any]:
        """Return the person's row of the table of `mma-mrnnet predict`."""
        corrected: dict[str, float] = {}
        if self.neutral_s is not None:
            corrected["neutral_start_s"], corrected["neutral_end_s"] = self.neutral_s
            for name, value in (self.uncorrected or {}).items():
                corrected[f"{name}_uncorrected"] = value
        return {
            "file": shown(self.file),
            "track": self.track,
            "duration_s": round(self.duration_s, 3),
            "frames_sampled": self.frames_sampled,
            "frames_with_face": self.frames_with_face,
            **self.intensities,
            **corrected,
            "error": self.error,
            "note": "; ".join(self.notes()),
        }

    def notes(self) -> list[str]:
        """Return the sentences that must be shown with the intensities."""
        notes = [] if self.warning is None else [self.warning]
        if self.error is not None:
            return notes
        if self.neutral_s is not None:
            start, end = self.neutral_s
            notes.append(
                f"calibrated by the person's own neutral from {start:.3g} to {end:.3g} s, "
                "unlike in training"
            )
        return notes + caveats(
            simulated=self.simulated, relative=self.relative, calibrated=self.calibrated
        )

    def __getitem__(self, name: str) -> float:
        """Return the intensity of a target; raises KeyError with the targets for another name."""
        if name not in self.intensities:
            raise KeyError(f"{name!r} is no target of this model: {', '.join(self.intensities)}")
        return self.intensities[name]

    def __eq__(self, other: object) -> bool:
        """Return whether both hold the same numbers and words; NaN equals NaN."""
        if not isinstance(other, VideoPrediction):
            return NotImplemented
        return self.to_dict() == other.to_dict()

    def to_dict(self) -> dict[str, Any]:
        """Return intensities, notes and frames in the types of JSON; NaN becomes None."""
        return _none_for_nan(
            {
                "file": shown(self.file),
                "track": self.track,
                "people": self.people,
                "duration_s": self.duration_s,
                "frames_sampled": self.frames_sampled,
                "frames_with_face": self.frames_with_face,
                "intensities": self.intensities,
                "uncorrected": self.uncorrected,
                "neutral_s": None if self.neutral_s is None else list(self.neutral_s),
                "error": self.error,
                "notes": self.notes(),
                "frames": self.frames.to_dict("records"),
            }
        )

    def to_json(self) -> str:
        """Return `to_dict` as JSON."""
        return json.dumps(self.to_dict(), ensure_ascii=False)

    def to_pandas(self) -> pd.DataFrame:
        """Return the row of `summary` as a table; `frames` is the table of the frames."""
        return clip_table([self])

    def plot(self) -> "Figure":
        """Draw the result as a figure of matplotlib, as `save` does for a .png.

        Raises ValueError if matplotlib is not installed.
        """
        from mma_mrnnet.report.picture import prediction_figure

        return prediction_figure(self)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the result and return the path; the suffix says what is written.

        .html: the page; .png: the picture; .json: `to_json`; .csv or .parquet: `to_pandas`.
        Raises ValueError for another suffix.
        """
        from mma_mrnnet.report.page import PAGE_SUFFIXES, report_page, write_page
        from mma_mrnnet.report.picture import draw_prediction

        path = Path(path)
        suffix = path.suffix.lower()
        if suffix in PAGE_SUFFIXES:
            return write_page(report_page([self]), path)
        if suffix == ".png":
            return draw_prediction(self, path)
        if suffix == ".json":
            write_text(path, self.to_json())
        elif suffix in (".csv", ".parquet"):
            write_table(self.to_pandas(), path)
        else:
            raise ValueError(
                f"{path}: a result is written as .html, .png, .json, .csv or .parquet; "
                f"got {path.suffix or 'no ending'!r}"
            )
        return path

    def _repr_html_(self) -> str:
        from mma_mrnnet.report.page import notebook_output

        return notebook_output(self)

    def __getstate__(self) -> dict[str, Any]:
        """Pickle the computed evidence, not the model."""
        evidence = self.evidence
        return {**self.__dict__, "explain": partial(copy, evidence)}


def _none_for_nan(value: Any) -> Any:
    """Return a value of JSON's types, inside lists and dicts too, with None for NaN."""
    if isinstance(value, dict):
        return {name: _none_for_nan(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_none_for_nan(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def shown(path: str) -> str:
    """Return a path as printable text; bytes that are not UTF-8 become escapes."""
    return path.encode("utf-8", "backslashreplace").decode()


# ---- tables of predictions ----------------------------------------------------------------------


def frame_columns(facts: CheckpointFacts) -> list[str]:
    """Return the columns of the per-frame table: `ROW_COLUMNS`, interpolated, box, affect.

    `interpolated` is True where the face was not searched for in this frame, but placed between
    those of the frames around; False without a face. For a model that reads feature tables: no
    box, and features instead of affect.
    """
    place = (INTERPOLATED, *BOX_NAMES) if facts.feature_names is None else ()
    return [*ROW_COLUMNS, *place, *facts.input_names]


def clip_suffixes(facts: CheckpointFacts) -> frozenset[str]:
    """Return the suffixes, in lower case, of the files that a model can read."""
    return VIDEO_SUFFIXES if facts.feature_names is None else frozenset(TABLE_SUFFIXES)


def clip_table(predictions: Iterable[VideoPrediction]) -> pd.DataFrame:
    """Return one row per prediction; see `VideoPrediction.summary`."""
    return pd.DataFrame([prediction.summary() for prediction in predictions])


# ---- stage 2 ------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class SampledAffect:
    """One person's affect, or a table's features, in the sampled frames with a face.

    `values` is (L, A) float32, L >= 0; `frames` (L,) frame numbers in the file and `times_s` (L,)
    their times, in order.
    """

    values: np.ndarray
    frames: np.ndarray
    times_s: np.ndarray


def predict_sampled(
    sampled: SampledAffect,
    engine: Engine,
    *,
    warnings: Sequence[str | None],
    **details: Any,
) -> VideoPrediction:
    """Return the prediction for sampled affect; `details` are further `VideoPrediction` fields."""
    facts = engine.facts
    length = length_warning(len(sampled.values), facts)
    return VideoPrediction(
        intensities=predict_intensities(sampled, engine),
        warning="; ".join(filter(None, (*warnings, length))) or None,
        calibrated=facts.calibrated,
        relative=facts.relative_labels,
        simulated=facts.simulated_labels,
        explain=partial(explain_intensities, sampled, engine),
        **details,
    )


def predict_intensities(sampled: SampledAffect, engine: Engine) -> dict[str, float]:
    """Return the intensities by label name; NaN without frames."""
    (values,) = run_stage_2([sampled.values], engine)
    return dict(zip(engine.facts.label_names, values.tolist(), strict=True))


def run_stage_2(clips: Sequence[np.ndarray], engine: Engine) -> np.ndarray:
    """Return (N, K) float32 intensities of N clips of (L, A) affect; NaN without frames.

    Raises ValueError if the checkpoint's numbers overflow.
    """
    facts = engine.facts
    intensities = np.full((len(clips), len(facts.label_names)), np.nan, np.float32)
    filled = [number for number, clip in enumerate(clips) if len(clip)]
    for first in range(0, len(filled), CLIPS_AT_ONCE):
        chosen = filled[first : first + CLIPS_AT_ONCE]
        affect, frame_mask = _pad([clips[number] for number in chosen], facts)
        intensities[chosen] = engine.predict_intensities(affect, frame_mask)
    if not np.isfinite(intensities[filled]).all():
        raise ValueError("the checkpoint gave NaN or infinity as intensities; it is damaged")
    return intensities


def explain_intensities(sampled: SampledAffect, engine: Engine) -> Evidence:
    """Compute each frame's contributions, and the intensities up to each frame.

    Contributions are NaN for a model that has none.
    """
    facts = engine.facts
    names = facts.label_names
    kept = kept_indices(len(sampled.values), facts.num_frames, facts.length_policy)
    contributions = np.full((len(kept), len(names)), np.nan, np.float32)
    running = contributions.copy()
    constant: dict[str, float] = {}
    if len(kept):
        affect, frame_mask = _pad([sampled.values], facts)
        running = _running(engine, affect, len(kept))
        parts = engine.split_by_frame(affect, frame_mask)
        if parts is not None:
            contributions = parts[0][0, : len(kept)]
            constant = dict(zip(names, parts[1][0].tolist(), strict=True))
    read = pd.DataFrame({"frame": sampled.frames[kept], "time_s": sampled.times_s[kept]})
    return Evidence(
        moments=read.join(pd.DataFrame(contributions, columns=names)),
        constant=constant,
        running=read[["time_s"]].join(pd.DataFrame(running, columns=names)),
    )


def length_warning(faces: int, facts: CheckpointFacts) -> str | None:
    """Return a warning for a clip with too many or very few faces, or None."""
    if faces > facts.num_frames:
        shortened = describe_shortening(facts.length_policy)
        return f"{faces} frames with a face {shortened} {facts.num_frames}"
    if 0 < faces < FEW_FRAMES:
        return f"rests on {faces} frame{'s' * (faces > 1)} with a face: too few to rely on"
    return None


def rate_warning(times_s: Sequence[float] | np.ndarray, fps: float) -> str | None:
    """Return a warning if the (sampled) frames are further apart than the rate `fps`, or None."""
    if len(times_s) < 2:
        return None
    # Over two steps: 3 frames a second sampled at 2 give steps of 2/3 and 1/3 s.
    apart = min(2, len(times_s) - 1)
    steps_s = np.subtract(times_s[apart:], times_s[:-apart]) / apart
    rate = 1 / max(float(np.median(steps_s)), 1e-6)
    if rate < 0.9 * fps:
        return f"sampled at {rate:.2g} frames a second, below the checkpoint's {fps:g}"
    return None


def _pad(clips: Sequence[np.ndarray], facts: CheckpointFacts) -> tuple[np.ndarray, np.ndarray]:
    """Return (N, T, A) float32 affect, 0 behind each clip's kept frames, and (N, T) frame mask."""
    affect = np.zeros((len(clips), facts.num_frames, facts.input_size), np.float32)
    frame_mask = np.zeros(affect.shape[:2], bool)
    for row, clip in enumerate(clips):
        kept = clip[kept_indices(len(clip), facts.num_frames, facts.length_policy)]
        affect[row, : len(kept)] = kept
        frame_mask[row, : len(kept)] = True
    return affect, frame_mask


def _running(engine: Engine, affect: np.ndarray, frames: int) -> np.ndarray:
    """Return (n, K) intensities of the first frame, the first two, ..., all n real frames."""
    rows = []
    for first in range(0, frames, CLIPS_AT_ONCE):
        lengths = np.arange(first, min(first + CLIPS_AT_ONCE, frames)) + 1  # (b,)
        masks = np.arange(affect.shape[1]) < lengths[:, None]  # (b, T)
        # Zeros after each prefix, as in the padding of a clip of that length.
        prefixes = np.where(masks[..., None], affect, np.float32(0))  # (b, T, A)
        rows.append(engine.predict_intensities(prefixes, masks))
    return np.concatenate(rows)
