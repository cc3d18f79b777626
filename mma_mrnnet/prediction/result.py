"""What a prediction carries: the intensities of one person in one clip, and all that they rest on."""

from dataclasses import dataclass, field

import pandas as pd

from mma_mrnnet.faces.strips import FaceSnapshot
from mma_mrnnet.model.configuration_mma_mrnnet import caveats

NO_FACE = "no face in this video"
NO_ROW = "no row of this table has a face and a number in each column that the model reads"


@dataclass
class VideoPrediction:
    """What the model says of one person in one clip.

    Attributes:
        file: the clip's path, as given: a video's, or that of a table of features.
        intensities: one number in [0, 1] for each target, under its label name; NaN where `error` is set.
        frames: one row for every frame that was looked at (see `frame_columns`); NaN where there was no face. Of a
            table of features the rows that were used.
        duration_s: length of what was decoded; NaN for a table without time stamps.
        error: why there are no intensities (no face), else None.
        warning: what was lost of a damaged file, that a long clip was cut, that hardly a frame had a face; or None.
        calibrated: False where the outputs of different targets are not on one scale.
        relative: True where the labels were relative within a clip: 1 is the strongest reaction of its own clip,
            however faint, so that intensities of two clips do not compare one by one.
        simulated: True where the targets that the model learnt came from a simulator.
        prior_only: names of action units that no label ever reached in training.
        track: which of the clip's people: 0 is the one with the most frames, and the default.
        people: how many were followed long enough to count (see `predict_people`); 1 of a table of features.
        moments: one row for each frame that the recurrent part read, in its order (sampled, with a face, at most T
            of them): `frame`, `time_s`, then K columns under the label names: what that frame adds to each output
            before its sigmoid and calibration (see `MMAMRNNetForIntensity.frame_contributions`); NaN of a model whose
            own code cannot tell, or whose GRU reads padding too. No row without a face.
        constant: what each output holds before its sigmoid without any frame: it and a column's sum are that output.
            Empty without a face, and where `moments` is NaN.
        running: one row for each row of `moments`: `time_s`, then K columns, the intensities of these frames up to
            there; the last row is `intensities`, to rounding. No row without a face.
        strip: at most 12 of the sampled faces, evenly spread over the clip; empty without a face, of a table, and for
            people beyond the 20 with the most frames.
        neutral_s: start and end, in seconds, of the person's own neutral that affect was calibrated by; None: it was
            not calibrated.
        uncorrected: the intensities without that calibration; None where there was none.
    """

    file: str
    intensities: dict[str, float]
    frames: pd.DataFrame
    duration_s: float
    error: str | None = None
    warning: str | None = None
    calibrated: bool = False
    relative: bool = True
    simulated: bool = False
    prior_only: tuple[str, ...] = ()
    track: int = 0
    people: int = 1
    moments: pd.DataFrame = field(default_factory=pd.DataFrame, repr=False)
    constant: dict[str, float] = field(default_factory=dict)
    running: pd.DataFrame = field(default_factory=pd.DataFrame, repr=False)
    strip: list[FaceSnapshot] = field(default_factory=list, repr=False)
    neutral_s: tuple[float, float] | None = None
    uncorrected: dict[str, float] | None = None

    @property
    def frames_sampled(self) -> int:
        """Frames that were looked at: the rows of `frames`."""
        return len(self.frames)

    @property
    def frames_with_face(self) -> int:
        """Frames with a face."""
        return int(self.frames["face"].sum())

    @property
    def thumbnail(self) -> FaceSnapshot | None:
        """The face of the strip that the detector was surest of; None where there is no strip."""
        return max(self.strip, key=lambda snapshot: snapshot.score, default=None)

    def ranked(self) -> list[tuple[str, float]]:
        """The targets, strongest first.

        Raises:
            ValueError: the checkpoint is not calibrated (its outputs are on scales of their own), or there was no face.
        """
        if self.error is not None:
            raise ValueError(f"{self.file}: {self.error}")
        if not self.calibrated:
            raise ValueError(
                "this checkpoint is not calibrated: outputs of different targets do not compare"
            )
        return sorted(self.intensities.items(), key=lambda item: item[1], reverse=True)

    def summary(self) -> dict[str, object]:
        """The person's row of the table that `mma-mrnnet predict` writes.

        Where affect was calibrated by their own neutral, that stretch and the intensities without it follow the others.
        """
        corrected: dict[str, object] = {}
        if self.neutral_s is not None:
            corrected = dict(zip(("neutral_start_s", "neutral_end_s"), self.neutral_s, strict=True))
            corrected |= {
                f"{name}_uncorrected": value for name, value in (self.uncorrected or {}).items()
            }
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
        """What must stand wherever the intensities are shown; with the clip's warning, where there is one."""
        notes = [] if self.warning is None else [self.warning]
        if self.error is not None:
            return notes
        if self.neutral_s is not None:
            start, end = self.neutral_s
            notes.append(
                f"calibrated by the person's own neutral from {start:.3g} to {end:.3g} s, unlike in training"
            )
        return notes + caveats(
            simulated=self.simulated, relative=self.relative, calibrated=self.calibrated
        )


def shown(path: str) -> str:
    """A path for people and tables: bytes of its name that are no UTF-8, which neither can hold, stand as escapes."""
    return path.encode("utf-8", "backslashreplace").decode()
