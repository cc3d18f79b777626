"""Typed records of the result files of a training: `results_mma.json`, `results_mrnn.json`.

An undefined number (a correlation of constants) is None. For a field with a default, None
means that an earlier version did not record it.
"""

import json
import math
import types
import typing
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from mma_mrnnet.metrics import Interval, rounded

FORMAT = 1
"""`format` number of files that this version writes; the oldest files have none."""

LABEL_KINDS = ("human", "pseudo", "constructed", "simulated", "unknown")
"""Origin of labels: people; another model; true by construction of the picture; a simulator;
unknown.
"""

UNKNOWN_LICENCE = "unknown"

Score = float | None
Scores = dict[str, Score]
Counts = dict[str, int]


class ResultsError(ValueError):
    """A result file cannot be read; the message starts with the place of the error."""


class Record:
    """A dataclass to and from JSON; metadata `flat` stores a dictionary's entries inline."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values, not rounded; omit None in fields that default to None."""
        return _write(self)

    @classmethod
    def from_json(cls, value: object, place: str = "results") -> Self:
        """Build from JSON, ignoring unknown keys; a ResultsError starts with `place`."""
        return typing.cast("Self", _read_record(cls, value, place))


def _write(record: Any) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for part in fields(record):
        value = getattr(record, part.name)
        if part.metadata.get("flat"):
            content |= _plain(value)
        elif not (value is None and part.default is None):
            content[part.name] = _plain(value)
    return content


def _plain(value: Any) -> Any:
    if isinstance(value, Record):
        return value.to_json()
    if is_dataclass(value):
        return _write(value)
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _read_record(record: Any, value: object, place: str) -> Any:
    if not isinstance(value, dict):
        raise ResultsError(f"{place}: an object is needed; got {_shown(value)}")
    parts = fields(record)
    kinds = typing.get_type_hints(record)
    names = {part.name for part in parts}
    given: dict[str, Any] = {}
    for part in parts:
        if part.metadata.get("flat"):
            rest = {name: item for name, item in value.items() if name not in names}
            given[part.name] = _read(kinds[part.name], rest, place)
        elif part.name in value:
            where = f"{place}.{part.name}"
            given[part.name] = _read(kinds[part.name], value[part.name], where)
        elif part.default is MISSING and part.default_factory is MISSING:
            raise ResultsError(f"{place}.{part.name}: is missing")
    return record(**given)


def _read(kind: Any, value: Any, place: str) -> Any:
    """Check a JSON value against a type and build its records."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if origin is types.UnionType:  # X | None
        return None if value is None else _read(inner[0], value, place)
    if is_dataclass(kind):
        return _read_record(kind, value, place)
    if origin is dict and isinstance(value, dict):
        return {name: _read(inner[1], item, f"{place}.{name}") for name, item in value.items()}
    if origin is list and isinstance(value, list):
        return [_read(inner[0], item, f"{place}[{index}]") for index, item in enumerate(value)]
    accepted = (int, float) if kind is float else kind
    plain = kind in (float, int, str, bool) and isinstance(value, accepted)
    if plain and isinstance(value, bool) == (kind is bool):
        try:
            return kind(value)
        except OverflowError as error:  # an integer beyond the range of a float
            raise ResultsError(f"{place}: is too large a number") from error
    name = getattr(origin or kind, "__name__", kind)
    raise ResultsError(f"{place}: must be of type {name}; got {_shown(value)}")


def _shown(value: object) -> str:
    return f"{type(value).__name__} {str(value)[:40]!r}"


# Both stages -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Provenance(Record):
    """Origin and licence of one source of training data; an invalid field raises ValueError.

    Attributes:
        name: such as `affectnet`.
        licence: lower-case SPDX identifier (`cc-by-4.0`), `public-domain`, `research-only`, or
            `unknown`.
        made_up: whether its faces or clips were rendered, drawn, bent or simulated.
        labels: one of `LABEL_KINDS`.
        attribution: the credit that the licence requires; may be empty.
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


def read_provenance(results: dict[str, Any]) -> tuple[Provenance, ...]:
    """Return the sources under `provenance` (may be none); raise ValueError if it is no list."""
    entries = results.get("provenance") or []
    return tuple(_read(list[Provenance], entries, "provenance"))


@dataclass
class Epoch(Record):
    """One row of the history; `seconds` count from the start of the run."""

    epoch: int
    train_loss: Score
    score: Score
    seconds: float
    scores: Scores


@dataclass
class Training(Record):
    """Course of a run; `selected_by` is the validation score that selected `best_epoch`."""

    epochs: int
    best_epoch: int
    selected_by: str
    seconds: float
    hardware: str
    history: list[Epoch]
    processes: int = 1
    precision: str = "no"


@dataclass
class EarlierRun(Record):
    """A run from whose weights a later one started."""

    command: str
    seconds: float


@dataclass
class RunResults(Record):
    """Common part of both stages' results; `stage` is `mma`, `mrnn`, or an experiment's name.

    `command` is the command line that repeats the run; `provenance` None means not recorded.
    `earlier` are the runs that made its starting weights, the first one first.
    """

    name_of_file: ClassVar[str]

    stage: str
    command: str
    training: Training
    parameters: int
    versions: dict[str, str]
    arguments: dict[str, Any]
    provenance: list[Provenance] | None = field(default=None, kw_only=True)
    earlier: list[EarlierRun] = field(default_factory=list, kw_only=True)

    def to_json(self) -> dict[str, Any]:
        """Return plain values with the `format` number, rounded except for the arguments."""
        content = super().to_json()
        arguments = content.pop("arguments")
        return {"format": FORMAT, "arguments": arguments, **rounded(content)}

    @classmethod
    def from_json(cls, value: object, place: str = "results") -> Self:
        """Build results of this version or an earlier one; raise ResultsError otherwise."""
        written = value.get("format", 0) if isinstance(value, dict) else 0
        if not isinstance(written, int) or written > FORMAT:
            raise ResultsError(f"{place}: has format {written}; this version reads up to {FORMAT}")
        return super().from_json(value, place)


# Stage 1 ---------------------------------------------------------------------------------------


@dataclass
class FrameData(Record):
    """The face crops of a run; `train` and `validation` count images.

    Attributes:
        train_images_by_source: empty if not recorded.
        items_an_epoch: by source, the images that an epoch draws (`images`) and how many have
            each kind of label; empty if not recorded.
        labelled_neutral_talkers: images that `--neutral_talkers` labelled.
    """

    data: str
    train: int
    validation: int
    train_images_by_source: Counts = field(default_factory=dict)
    items_an_epoch: dict[str, Counts] = field(default_factory=dict)
    labelled_neutral_talkers: int = 0


@dataclass
class UnitScores(Record):
    """Scores of one action unit; `annotated`, `present` and `predicted` count images."""

    correlation: Score
    f1: Score
    annotated: int
    present: int
    predicted: int | None = None


@dataclass
class SmilingScores(Record):
    """How well the probability of happiness separates smiling from neutral faces."""

    smiling: int
    neutral: int
    auc_of_happiness: Score


@dataclass
class FrameScores(Record):
    """Scores of stage 1 on the images of one source or of all."""

    images: int
    action_units: dict[str, UnitScores]
    mean_action_unit_correlation: Score
    mean_action_unit_f1: Score
    expression_images: int
    expression_macro_f1: Score
    expression_accuracy: Score
    expression_confusion_rows_are_labels: list[list[int]]
    valence_arousal_images: int
    valence_arousal_ccc: Scores
    smiling_against_neutral: SmilingScores | None = None


@dataclass
class CalibrationErrors(Record):
    """Expected calibration errors on the images of one source."""

    expression_ece: Score
    action_unit_ece: Score


@dataclass
class ExtractorCalibration(Record):
    """The calibration of stage 1, with errors by source.

    `before` is uncalibrated; `crossfitted` uses a calibration fitted on other people.
    """

    fitted_on: str
    temperature: float
    action_unit_scale: list[float]
    action_unit_shift: list[float]
    before: dict[str, CalibrationErrors]
    crossfitted: dict[str, CalibrationErrors] | None


@dataclass
class UnitErrors(Record):
    """Reported logit of one unit: floor + slope * intensity + cross-talk.

    `person` and `frame` are standard deviations of the residual.
    """

    annotated: int
    floor: float
    slope: float
    person: float
    frame: float
    cross_talk: dict[str, float]


@dataclass
class ExpressionErrors(Record):
    """Mean report for each expression (rows are labels), and the spread of its logits."""

    labelled: int
    mean_probability_rows_are_labels: list[list[float]]
    mean_logits_rows_are_labels: list[list[float]]
    person: dict[str, float]
    frame: dict[str, float]


@dataclass
class ValueErrors(Record):
    """Report of valence or arousal: offset + gain * label, and the spread of the residual."""

    labelled: int
    offset: float
    gain: float
    person: float
    frame: float


@dataclass
class TalkerErrors(Record):
    """Effect of a mouth that opens in speech on the report of a face at rest."""

    rows: int
    at_rest: int
    mean_probability: dict[str, float]
    mean_probability_at_rest: dict[str, float]
    logits_added: dict[str, float]
    valence_arousal_added: dict[str, float]


@dataclass
class ExtractorErrors(Record):
    """Errors of the extractor on the images of one source; None with too few images.

    With `graded_units`, units were learnt as graded values (`MMAConfig.action_unit_loss`), and the
    `slope` of a unit multiplies the log-odds of its target instead of its intensity.
    """

    rows: int
    action_units: dict[str, UnitErrors | None]
    expressions: ExpressionErrors | None
    valence_arousal: dict[str, ValueErrors | None]
    neutral_talkers: TalkerErrors | None
    graded_units: bool = False


@dataclass
class UnitLabels(Record):
    """Number of training images annotated for a unit, and of those that show it."""

    annotated: int
    present: int


@dataclass
class FrameLabels(Record):
    """The training labels of stage 1."""

    images: int
    action_units: dict[str, UnitLabels]
    expressions: Counts


@dataclass
class FrameFacts(Record):
    """Teachers of stage 1's outputs; `labels` has the single key `train`."""

    labels: dict[str, FrameLabels]
    learnt_from_the_prior_alone: list[str]
    untrained_outputs: list[str]


@dataclass
class MMAResults(RunResults):
    """Results of stage 1; `validation` and `errors` have the key `all` and one per source."""

    name_of_file = "results_mma.json"

    data: FrameData
    validation: dict[str, FrameScores]
    calibration: ExtractorCalibration | None = None
    errors: dict[str, ExtractorErrors] | None = None
    facts: FrameFacts | None = None


# Stage 2 ---------------------------------------------------------------------------------------


@dataclass
class ClipData(Record):
    """The clips of a run.

    Attributes:
        clips: number of clips used, by split and kind, such as `train_reaction`.
        people_apart: whether it is known that no person is in two splits; None: not recorded.
        without_usable_rows: feature tables without a usable row.
        unreadable: files that could not be read.
    """

    data: str
    clips: Counts = field(metadata={"flat": True})
    people_apart: bool | None = None
    without_face: int | None = None
    without_usable_rows: int | None = None
    unreadable: int | None = None
    unlabelled: int | None = None


@dataclass
class IntensityScores(Record):
    """Scores over some clips: means over targets, and by target."""

    clips: int
    mean_pearson: Score
    mean_ccc: Score
    mean_mae: Score
    pearson: Scores
    ccc: Scores
    mae: Scores
    mean_intensity: Scores


@dataclass
class LengthScores(Record):
    """Score of the clips in one range of lengths."""

    clips: int
    mean_pearson: Score


@dataclass
class QuietScores(Record):
    """Outputs for clips without a reaction."""

    clips: int
    mean_intensity: Scores


@dataclass
class ClipScores(Record):
    """Scores of stage 2 on a split.

    Attributes:
        clips: labelled clips.
        reactions: scores of all labelled reactions; those without a face are predicted as the
            mean training label.
        mean_pearson_by_length: by `shortest-longest` number of frames.
        quiet: outputs for other kinds of clips (`neutral`, `talking`, displays such as `grin`).
        predicted_as_training_mean: labelled clips without a face; None for simulated clips.
        reactions_with_face: scores of labelled reactions with a face; None for simulated
            clips.
    """

    clips: int
    reactions: IntensityScores
    mean_pearson_by_length: dict[str, LengthScores]
    quiet: dict[str, QuietScores] = field(metadata={"flat": True})
    predicted_as_training_mean: int | None = None
    reactions_with_face: IntensityScores | None = None

    @property
    def of_predicted(self) -> IntensityScores:
        """Scores of the clips that the model itself predicted."""
        return self.reactions_with_face or self.reactions


@dataclass
class IntensityCalibration(Record):
    """One line per target, fitted on a split; `clips` (labelled ones) None means not recorded."""

    scale: list[float]
    shift: list[float]
    fitted_on: str
    clips: list[int] | None = None


@dataclass
class TrainScores(Record):
    """Scores on some training clips."""

    clips: int
    mean_pearson: Score
    pearson: Scores


@dataclass
class LabelFacts(Record):
    """Distribution of one target's labels; only `labelled` is set if there are none."""

    labelled: int
    mean: float | None = None
    deviation: float | None = None
    share_at_0: float | None = None
    share_at_1: float | None = None
    share_of_the_most_frequent: float | None = None


@dataclass
class OutputFacts(Record):
    """Distribution of one target's calibrated intensities, and the deviation of its logits."""

    mean: float
    deviation: float
    share_at_0: float
    share_at_1: float
    least: float
    most: float
    deviation_of_logits: float


@dataclass
class ChannelFacts(Record):
    """One input channel; `mean` and `deviation` are over frames.

    Attributes:
        drop: loss of mean Pearson when clips exchange the channel.
        length_correlation: of its clip mean with the number of frames; None: undefined or not
            recorded.
    """

    mean: float
    deviation: float
    drop: Score
    length_correlation: Score = None


@dataclass
class InputFacts(Record):
    """Inputs of the GRU over `clips`; `mean_pearson` is that of the `exchanged_clips`."""

    clips: int
    exchanged_clips: int
    mean_pearson: Score
    channels: dict[str, ChannelFacts]


@dataclass
class ClipFacts(Record):
    """Training scores, and distributions of labels, outputs and inputs, by split and target."""

    train: TrainScores | None
    labels: dict[str, dict[str, LabelFacts]]
    outputs: dict[str, dict[str, OutputFacts]]
    inputs: InputFacts | None


@dataclass
class BaselineScores(Record):
    """Scores of a model of clip summaries over the reactions of a split."""

    mean_pearson: Score
    mean_mae: Score


@dataclass
class Baselines(Record):
    """Models without a network, by name: `constant`, `ridge`, `trees`.

    `clips` counts the training reactions of each; `test` is empty without test labels.
    """

    clips: Counts
    validation: dict[str, BaselineScores]
    test: dict[str, BaselineScores]


@dataclass(frozen=True)
class LostComparison:
    """A baseline with a higher mean Pearson than the network, and both scores on a split."""

    baseline: str
    split: str
    score: float
    ours: float


@dataclass
class MRNNResults(RunResults):
    """Results of stage 2."""

    name_of_file = "results_mrnn.json"

    data: ClipData
    validation: ClipScores
    test: ClipScores | None = None
    validation_before_calibration: ClipScores | None = None
    calibration: IntensityCalibration | None = None
    facts: ClipFacts | None = None
    baselines: Baselines | None = None

    def lost_to_baseline(self) -> LostComparison | None:
        """Return the best baseline if it beats the network on test (else validation), or None."""
        if self.baselines is None:
            return None
        on_test = self.test is not None and bool(self.baselines.test)
        split = "test" if on_test else "validation"
        found = self.baselines.test if on_test else self.baselines.validation
        scores = {name: _zero_if_undefined(one.mean_pearson) for name, one in found.items()}
        own = self.test if self.test is not None and on_test else self.validation
        ours = _zero_if_undefined(own.of_predicted.mean_pearson)
        best = max(scores, key=lambda name: scores[name])
        if scores[best] <= ours:
            return None
        return LostComparison(best, split, scores[best], ours)


def _zero_if_undefined(score: Score) -> float:
    return 0.0 if score is None or math.isnan(score) else score


Results = MMAResults | MRNNResults


def load_json(path: Path) -> Any:
    """Load a JSON file; raise ResultsError if it cannot be read."""
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ResultsError(f"{path}: not a result file that can be read ({error})") from error


def read_results(path: str | Path) -> Results:
    """Read `results.json`, `results_mma.json` or `results_mrnn.json`, or raise ResultsError."""
    path = Path(path)
    content = load_json(path)
    stage = content.get("stage") if isinstance(content, dict) else None
    if stage == "mma":
        return MMAResults.from_json(content, str(path))
    if stage == "mrnn":
        return MRNNResults.from_json(content, str(path))
    raise ResultsError(
        f"{path}: not the results of a training run: its stage must be mma or mrnn; got {stage!r}"
    )


# Evaluation ------------------------------------------------------------------------------------

EVALUATION_FORMAT = 1
"""`format` number of evaluations that this version writes."""


@dataclass(frozen=True)
class ScoreInterval(Record):
    """A score with its 95 % interval over people; None where undefined."""

    value: Score
    low: Score
    high: Score

    @classmethod
    def of(cls, found: Interval) -> Self:
        """Convert an interval into a record."""
        return cls(found.value, found.low, found.high)


@dataclass(frozen=True)
class EvaluatedUnit(Record):
    """Scores of one action unit; counts are of images."""

    correlation: ScoreInterval
    f1: ScoreInterval
    annotated: int
    present: int
    predicted: int


@dataclass(frozen=True)
class EvaluatedExpressions(Record):
    """Scores of the expressions; rows of `confusion` are labels, in the order of `names`."""

    images: int
    macro_f1: ScoreInterval
    balanced_accuracy: ScoreInterval
    confusion: list[list[int]]
    names: list[str]


@dataclass(frozen=True)
class EvaluatedSmiles(Record):
    """Separation of happiness and neutral by the more probable of the two."""

    smiling: int
    neutral: int
    balanced_accuracy: ScoreInterval
    auc: Score


@dataclass(frozen=True)
class ValenceArousalScores(Record):
    """Concordance of valence and arousal."""

    images: int
    valence: ScoreInterval
    arousal: ScoreInterval


@dataclass(frozen=True)
class CalibrationScores(Record):
    """Differences between probabilities and observed shares."""

    expression_ece: Score
    expression_brier: Score
    action_unit_ece: Score


@dataclass(frozen=True)
class Steadiness(Record):
    """Outputs for changed copies of the crops of one source; scores by action unit.

    Attributes:
        units: the units of the means.
        mean_correlation: with the labels, over `units`: `as_is`, `mirrored`, `averaged` (outputs
            of crop and mirrored copy) and `dark` (a third of the light).
        mirror_agreement: Pearson of the outputs for crops and for their mirrored copies.
        dark_loss: correlation with the labels, minus that of the darkened copies.
        jitter: root mean square change of the output under small noise, shift and compression.
        relative_jitter: the same, divided by the deviation of the output over the crops.
    """

    units: list[str]
    mean_correlation: Scores
    mirror_agreement: Scores
    dark_loss: Scores
    jitter: Scores
    relative_jitter: Scores

    def mean(self, name: str) -> Score:
        """Return the mean of one of the dictionaries over `units`; None if nothing is defined."""
        by_unit: Scores = getattr(self, name)
        known = [value for unit in self.units if (value := by_unit.get(unit)) is not None]
        return sum(known) / len(known) if known else None


@dataclass(frozen=True)
class CourseScores(Record):
    """Agreement with the reference in one clip.

    Attributes:
        frames: frames with a face and a reference.
        without_face: frames with a reference and no face.
        units: units whose reference varies.
        mean_pearson: over these units.
        lag_frames: rows of the reference by which the outputs come later, at the highest
            correlation; None if no unit varies.
    """

    frames: int
    without_face: int
    units: int
    mean_pearson: Score
    lag_frames: int | None
    lag_s: Score


@dataclass(frozen=True)
class TimeCourseScores(Record):
    """Agreement with reference time courses. A cell is a unit of a clip whose reference varies.

    Attributes:
        cells: number of cells.
        pearson: mean over cells, with an interval over clips.
        by_unit: mean over the clips in which the unit varies.
        mean_pearson: over cells: `as_is`, `mirrored`, `averaged` and `dark`, as in `Steadiness`;
            `at_lag` with every clip shifted by its own lag.
        mirror_agreement: mean over cells of the correlation of outputs for crops and copies.
        jitter: mean change between still neighbours, divided by the deviation in the clip.
        reference_jitter: the same of the reference.
        still_neighbours: pairs of successive frames between which the reference hardly changes.
        lag_frames, lag_s: median over clips.
        clips: by file name.
    """

    cells: int
    pearson: ScoreInterval
    by_unit: Scores
    mean_pearson: Scores
    mirror_agreement: Score
    jitter: Score
    reference_jitter: Score
    still_neighbours: int
    lag_frames: Score
    lag_s: Score
    clips: dict[str, CourseScores]


@dataclass(frozen=True)
class SourceScores(Record):
    """All scores of one source."""

    images: int
    people: int
    action_units: dict[str, EvaluatedUnit]
    mean_action_unit_correlation: ScoreInterval
    mean_action_unit_f1: ScoreInterval
    mean_correlation_of_common_units: ScoreInterval
    expression: EvaluatedExpressions
    smiling_against_neutral: EvaluatedSmiles
    valence_arousal: ValenceArousalScores
    calibration: CalibrationScores
    steadiness: Steadiness | None = None


@dataclass(frozen=True)
class TalkerScores(Record):
    """Mean probability of each expression over `images` faces of calm talkers."""

    images: int
    mean_expression: Scores


@dataclass(frozen=True)
class ModelCosts(Record):
    """Network size, CPU time per face, and a digest of the weights (None: not recorded)."""

    name: str
    parameters: int
    megabytes: float
    cpu_ms_a_face: float
    threads: int
    processor: str
    weights: str | None = None


@dataclass(frozen=True)
class EvaluatedData(Record):
    """The images; `provenance` is empty if not recorded."""

    data: str
    split: str
    images: int
    people: int
    provenance: list[Provenance] = field(default_factory=list)


@dataclass(frozen=True)
class ComparedModel(Record):
    """Scores of another model on the same images."""

    model: ModelCosts
    sources: dict[str, SourceScores]
    time_courses: TimeCourseScores | None = None


@dataclass(frozen=True)
class EvaluationResults(Record):
    """The report on an extractor, written by `command`.

    Attributes:
        neutral_talkers: outputs for calm talkers by source, without sources labelled by a
            model.
        against: another model on the same images.
        time_courses: set if the data are clips with reference time courses; the dictionaries
            are then empty.
    """

    command: str
    model: ModelCosts
    data: EvaluatedData
    sources: dict[str, SourceScores]
    neutral_talkers: dict[str, TalkerScores]
    against: ComparedModel | None
    what: str = (
        "stage 1 (face crop to valence-arousal, expressions and action units) on labelled face "
        "crops; intervals are 95 %, by drawing people, not images, 1000 times; sources are never "
        "put together"
    )
    time_courses: TimeCourseScores | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain rounded values, with the `format` number."""
        content: dict[str, Any] = rounded(super().to_json())
        return {"format": EVALUATION_FORMAT, **content}


def read_evaluation(path: str | Path) -> EvaluationResults:
    """Read `evaluation.json` or a checkpoint's `results_evaluation.json`, or raise ResultsError."""
    return EvaluationResults.from_json(load_json(Path(path)), str(path))


# Ceiling ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CeilingResults(Record):
    """Pearson of ridge regressions on simulated test clips: {target or `mean`: score}.

    `true_affect` reads the simulator's own trajectories, `reported_affect` the noisy ones.
    """

    command: str
    test_clips: int
    true_affect: Scores
    reported_affect: Scores


def read_ceiling(path: str | Path) -> CeilingResults:
    """Read `results_ceiling.json` of `simulator_ceiling.py`, or raise ResultsError."""
    ceiling = CeilingResults.from_json(load_json(Path(path)), str(path))
    for name, scores in (("true", ceiling.true_affect), ("reported", ceiling.reported_affect)):
        if scores.get("mean") is None:
            raise ResultsError(f"{path}.{name}_affect.mean: is missing")
    return ceiling
