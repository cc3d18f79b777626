"""Model cards: templates of `hub_cards/`, filled in from the result files."""

import logging
import re
from collections import Counter
from dataclasses import dataclass
from importlib import metadata
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from huggingface_hub import EvalResult, ModelCardData
from transformers import PreTrainedConfig

from mma_mrnnet.hub.checkpoints import Model, extractor_of, weights_digest
from mma_mrnnet.hub.licence import (
    checkpoint_sources,
    licence_fields,
    none_coded_by_people,
    weights_licence,
)
from mma_mrnnet.model.labels import EXPRESSIONS
from mma_mrnnet.model.video_processing_mma_mrnnet import MMAMRNNetVideoProcessor
from mma_mrnnet.results import (
    CeilingResults,
    ClipData,
    EvaluationResults,
    MMAResults,
    MRNNResults,
    Provenance,
    RunResults,
    ScoreInterval,
    SourceScores,
    read_ceiling,
    read_evaluation,
    read_results,
)

logger = logging.getLogger(__name__)

RESULT_FILES = (
    MMAResults.name_of_file,
    MRNNResults.name_of_file,
    "results_ceiling.json",
    "results_evaluation.json",
)
LEAST_IMAGES = 30
"""Sources with fewer images are left out of the model-index (our choice)."""
WATTS_A_CORE = 10.0
"""Assumed power of a busy core of a server, with its share of memory and power supply."""
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")  # of a data set: owner/name


@dataclass(frozen=True)
class CheckpointResults:
    """Contents of the result files in a checkpoint folder; None for a missing file.

    Files: `results_mma.json`, `results_mrnn.json`, `results_evaluation.json`,
    `results_ceiling.json`.
    """

    stage1: MMAResults | None = None
    stage2: MRNNResults | None = None
    evaluation: EvaluationResults | None = None
    ceiling: CeilingResults | None = None

    @classmethod
    def read(cls, folder: Path) -> "CheckpointResults":
        """Read the result files of a folder; raises ValueError if a file is unreadable."""
        typed = {
            name: read_results(folder / name) if (folder / name).is_file() else None
            for name in RESULT_FILES[:2]
        }
        ceiling_path, evaluation_path = (folder / name for name in RESULT_FILES[2:])
        ceiling = read_ceiling(ceiling_path) if ceiling_path.is_file() else None
        evaluation = read_evaluation(evaluation_path) if evaluation_path.is_file() else None
        stage1, stage2 = typed.values()
        if not isinstance(stage1, MMAResults | None) or not isinstance(stage2, MRNNResults | None):
            raise ValueError(f"{folder}: {' or '.join(typed)} holds the results of another stage")
        return cls(stage1, stage2, evaluation, ceiling)

    def sources(self, model: Model) -> list[Provenance]:
        """Return the data sources of a checkpoint's weights."""
        return checkpoint_sources(
            self.stage1,
            self.stage2,
            has_extractor=extractor_of(model) is not None,
            has_intensities=model.config.model_type != "mma",
        )

    def of(self, model: Model) -> "CheckpointResults":
        """Drop an evaluation of other weights, left over from an earlier training."""
        recorded = None if self.evaluation is None else self.evaluation.model.weights
        extractor = extractor_of(model)
        if recorded is None or (extractor is not None and recorded == weights_digest(extractor)):
            return self
        logger.warning("results_evaluation.json is of other weights; the card leaves it out")
        return CheckpointResults(self.stage1, self.stage2, None, self.ceiling)


@dataclass(frozen=True)
class BaseCheckpoint:
    """The checkpoint that a model was loaded from, and trained further since.

    `name` is a folder's name, or the Hub's if `is_repository`; `sources` are its data.
    """

    name: str
    is_repository: bool
    sources: list[Provenance]


# The card --------------------------------------------------------------------------------------


def model_card(model: Model, folder: Path, base: BaseCheckpoint | None = None) -> str:
    """Return the card of a checkpoint, as Markdown with YAML metadata.

    `folder` holds any of `RESULT_FILES`, and the processor (the default one if not). Scores
    without a file are shown as unmeasured; `results_evaluation.json` replaces the scores of
    stage 1. The sources of a `base` count too. Raises ValueError if a file is unreadable.
    """
    config = model.config
    results = CheckpointResults.read(folder).of(model)
    inherited = [] if base is None else base.sources
    sources = list(dict.fromkeys([*inherited, *results.sources(model)]))
    stage1, stage2 = results.stage1, results.stage2
    stage1_sources = inherited if stage1 is None else list(stage1.provenance or ())
    task = task_of(config)
    scores = model_index(task, results, simulated=is_simulated(config))
    has_processor = any(folder.glob("*processor_config.json"))
    data = card_data(
        config.model_type.replace("_", "-"),
        licence_fields(weights_licence(sources)),
        # For stage 2 under `transformers`, the Hub would show a pipeline that finds no faces.
        library_name="transformers" if config.model_type == "mma" else "mma_mrnnet",
        pipeline_tag=task,
        tags=[
            "facial-expression",
            "action-units",
            "valence-arousal",
            "affective-computing",
            config.model_type,
        ],
        base_model=base.name if base is not None and base.is_repository else None,
        datasets=[source.name for source in sources if _HUB_NAME.fullmatch(source.name)] or None,
        metrics=sorted({score.metric_type for score in scores}) or None,
        eval_results=scores or None,
    )
    runs = {1: stage1, 2: stage2}
    weights = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    return render_card(
        config.model_type,
        data,
        sources=sources,
        config=config,
        mma_config=getattr(config, "mma_config", config),
        base=base,
        processor=MMAMRNNetVideoProcessor.from_pretrained(folder)
        if has_processor
        else MMAMRNNetVideoProcessor(),
        stage1=stage1,
        stage2=stage2,
        stage1_sources=stage1_sources,
        unverified_expressions=unverified_expressions(stage1),
        none_coded_by_people=none_coded_by_people(stage1_sources),
        clip_counts={} if stage2 is None else _clip_counts(stage2.data),
        evaluation=results.evaluation,
        evaluated_macro_f1=evaluated_macro_f1,
        energy={stage: training_energy(run) for stage, run in runs.items() if run is not None},
        watts_a_core=WATTS_A_CORE,
        ceiling=results.ceiling,
        megabytes=f"{weights / 1e6:.1f}",
        parameters=f"{sum(parameter.numel() for parameter in model.parameters()):,}",
    )


def settings_card(what: str) -> str:
    """Return the card of a repository that holds only the settings of `what`, not weights."""
    data = card_data("mma-mrnnet", {"license": "apache-2.0"}, library_name="mma_mrnnet")
    return render_card("settings", data, sources=[], what=what)


def card_data(model_name: str, licence: dict[str, Any], **fields: Any) -> ModelCardData:
    """Return the metadata of a card."""
    return ModelCardData(model_name=model_name, **licence, **fields)


def render_card(
    template: str, data: ModelCardData, *, sources: list[Provenance], **facts: Any
) -> str:
    """Fill in a template of `hub_cards/`, named without `.md`; `facts` are its variables."""
    loader = jinja2.FileSystemLoader(template_folder("hub_cards"))
    # No autoescape, since a card is Markdown: `text` escapes what users wrote.
    environment = jinja2.Environment(loader=loader)
    environment.filters |= {
        "number": _number,
        "interval": _interval,
        "text": _text,
        "prose": _prose,
        "code": _code,
    }
    card = environment.get_template(f"{template}.md").render(
        card_data=data.to_yaml(),
        sources=sources,
        licence=weights_licence(sources),
        version=package_version(),
        **facts,
    )
    return re.sub(r"\n{3,}", "\n\n", card).strip() + "\n"


def _number(value: float | jinja2.Undefined | None, digits: int = 2) -> str:
    return "–" if value is None or isinstance(value, jinja2.Undefined) else f"{value:.{digits}f}"


def _interval(measured: ScoreInterval | jinja2.Undefined | None, digits: int = 2) -> str:
    if not isinstance(measured, ScoreInterval) or measured.value is None:
        return "–"
    value = _number(measured.value, digits)
    if measured.low is None or measured.high is None:
        return value
    return f"{value} [{_number(measured.low, digits)}, {_number(measured.high, digits)}]"


def _text(value: object) -> str:
    """Return a user's text on one line, with Markdown and HTML escaped for a table."""
    line = " ".join(str(value).split())
    return line.replace("|", "\\|").replace("`", "'").replace("<", "&lt;")


def _prose(value: str) -> str:
    """Return a text as one paragraph; links are kept, HTML is escaped."""
    return re.sub(r"<(?!https?://)", "&lt;", " ".join(value.split()))


def _code(value: str) -> str:
    """Return a command on one line that cannot close its code block."""
    return " ".join(value.splitlines()).replace("`", "'")


def _clip_counts(data: ClipData) -> dict[str, int]:
    """Return the counts of clips, by the names that the card shows."""
    others = {
        name: getattr(data, name)
        for name in ("without_face", "without_usable_rows", "unreadable", "unlabelled")
    }
    clips: Counter[str] = Counter()
    for name, count in data.clips.items():
        split, _, kind = name.partition("_")
        clips[name if kind == "reaction" else f"{split}_quiet"] += count
    return {**clips, **{name: n for name, n in others.items() if n is not None}}


# Metadata --------------------------------------------------------------------------------------


def model_index(task: str, results: CheckpointResults, *, simulated: bool) -> list[EvalResult]:
    """Return the scores for the Hub's `model-index`, none marked as verified.

    `task` is the Hub's task name. `simulated`: the labels of stage 2 came from a simulator.
    """
    found = [] if results.stage1 is None else _extractor_results(results.stage1, results.evaluation)
    if results.stage2 is not None:
        found += _intensity_results(task, results.stage2, simulated)
    return found


def _extractor_results(
    stage1: MMAResults, evaluation: EvaluationResults | None
) -> list[EvalResult]:
    """Return mean action-unit correlation and macro F1 of each source of images."""
    made_up = [source.made_up for source in stage1.provenance or ()]
    is_made_up = bool(made_up) and all(made_up)
    names = {
        "pearsonr": "mean correlation of action units with their intensity labels",
        "f1": "macro F1 of expressions",
    }
    return [
        EvalResult(
            task_type="image-classification",
            task_name="action units and expressions of a face crop",
            dataset_type="made-up-faces" if is_made_up else "labelled-crops",
            dataset_name=f"{source}: {stage1.data.data}",
            dataset_config=source,
            dataset_split="validation" if evaluation is None else evaluation.data.split,
            metric_type=kind,
            metric_name=names[kind],
            metric_value=value,
        )
        for source, scores in _extractor_scores(stage1, evaluation).items()
        for kind, value in zip(names, scores, strict=True)
        if value is not None
    ]


def _extractor_scores(
    stage1: MMAResults, evaluation: EvaluationResults | None
) -> dict[str, tuple[float | None, float | None]]:
    """Return correlation and macro F1 (None for one class) of each source with enough images."""
    if evaluation is not None:
        return {
            source: (row.mean_action_unit_correlation.value, evaluated_macro_f1(row))
            for source, row in evaluation.sources.items()
            if row.images >= LEAST_IMAGES
        }
    scores = {}
    for source, row in stage1.validation.items():
        is_mixture = source == "all" and len(stage1.validation) > 2
        if row.images >= LEAST_IMAGES and not is_mixture:
            has_classes = _count_classes(row.expression_confusion_rows_are_labels) > 1
            macro_f1 = row.expression_macro_f1 if has_classes else None
            scores[source] = (row.mean_action_unit_correlation, macro_f1)
    return scores


def unverified_expressions(stage1: MMAResults | None) -> list[str]:
    """Return the expressions that no validation image of a real face is labelled with.

    Empty without results, or where no source declares whether its faces are made up.
    """
    if stage1 is None or not any(source.made_up for source in stage1.provenance or ()):
        return []
    made_up = {source.name for source in stage1.provenance or () if source.made_up}
    real = [row for name, row in stage1.validation.items() if name not in {*made_up, "all"}]
    labelled = [
        sum(sum(row.expression_confusion_rows_are_labels[number]) for row in real)
        for number in range(len(EXPRESSIONS))
    ]
    return [name for name, count in zip(EXPRESSIONS, labelled, strict=True) if count == 0]


def evaluated_macro_f1(row: SourceScores) -> float | None:
    """Return the macro F1 of an evaluated source; None with fewer than two classes."""
    has_classes = _count_classes(row.expression.confusion) > 1
    return row.expression.macro_f1.value if has_classes else None


def _count_classes(confusion: list[list[int]]) -> int:
    return sum(any(counts) for counts in confusion)


def _intensity_results(task: str, stage2: MRNNResults, simulated: bool) -> list[EvalResult]:
    """Return the mean Pearson correlation on the test clips, or on validation without a test."""
    scored = stage2.test or stage2.validation
    value = scored.of_predicted.mean_pearson
    if value is None:
        return []
    return [
        EvalResult(
            task_type=task,
            task_name="reaction intensities of a clip",
            dataset_type="simulated" if simulated else "labelled-clips",
            dataset_name=f"{'simulated clips: ' if simulated else ''}{stage2.data.data}",
            dataset_split="test" if stage2.test else "validation",
            metric_type="pearsonr",
            metric_name="mean Pearson correlation over the targets"
            + (", simulated labels" if simulated else ""),
            metric_value=value,
        )
    ]


@dataclass(frozen=True)
class TrainingEnergy:
    """Wall time and estimated energy of a training; nothing was metered.

    `core_hours` are hours x processes x threads. `kilowatt_hours` assume `WATTS_A_CORE`; None
    if a training used more than CPUs.
    """

    hours: float
    hardware: str
    core_hours: float
    kilowatt_hours: float | None


def training_energy(results: RunResults) -> TrainingEnergy:
    """Estimate the energy of a training, the earlier runs of its starting weights included."""
    training = results.training
    hours = (training.seconds + sum(run.seconds for run in results.earlier)) / 3600
    core_hours = hours * training.processes * results.arguments.get("threads", 1)
    on_cores = " CPU " in training.hardware
    kilowatt_hours = core_hours * WATTS_A_CORE / 1000 if on_cores else None
    return TrainingEnergy(hours, training.hardware, core_hours, kilowatt_hours)


# Names and places ------------------------------------------------------------------------------


def is_simulated(config: PreTrainedConfig) -> bool:
    """Return whether the labels of stage 2 came from a simulator."""
    return bool(getattr(config, "simulated_labels", False))


def task_of(config: PreTrainedConfig) -> str:
    """Return the Hub's task name of a checkpoint."""
    if config.model_type == "mma":
        return "image-classification"
    return "video-classification" if config.feature_names is None else "tabular-regression"


def package_version() -> str | None:
    """Return the version of the installed package; None in a checkout that is not installed."""
    try:
        return metadata.version("mma-mrnnet")
    except metadata.PackageNotFoundError:
        return None


def template_folder(name: str) -> Path:
    """Return `hub_cards`, `spaces_demo` or `examples` of the installed package or the checkout."""
    package = Path(str(files("mma_mrnnet"))).resolve()  # a checkout may be a symbolic link
    for folder in (package / name, package.parent / name):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"{name}: neither in {package} nor in {package.parent}")
