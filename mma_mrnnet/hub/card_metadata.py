"""What a card says in numbers for machines: its model-index, and an estimate of the energy that training took."""

from importlib import metadata

from huggingface_hub import EvalResult

from mma_mrnnet.results import read_provenance

LEAST_IMAGES = 30
"""Of a source, for the model-index (our choice)."""
WATTS_A_CORE = 10.0
"""Our assumption for a busy core of a server, with its share of memory and power supply."""


def model_index(
    task: str, stage1: dict | None, stage2: dict | None, evaluation: dict | None, simulated: bool
) -> list[EvalResult]:
    """Scores as the Hub's `model-index` holds them; nothing is called verified, and nothing unmeasured is in it.

    Args:
        task: the Hub's name for what the checkpoint does.
        stage1: `results_mma.json`.
        stage2: `results_mrnn.json`.
        evaluation: `results_evaluation.json`; its scores of stage 1 replace those of `stage1`.
        simulated: whether stage 2's labels came from a simulator.
    """
    found = [] if stage1 is None else _extractor_results(stage1, evaluation)
    return found if stage2 is None else [*found, *_intensity_results(task, stage2, simulated)]


def _extractor_results(stage1: dict, evaluation: dict | None) -> list[EvalResult]:
    """Mean correlation of action units and macro F1 of expressions, for each source of images."""
    data = stage1["data"]["data"]
    all_made_up = [source.made_up for source in read_provenance(stage1)]
    dataset_type = "made-up-faces" if all_made_up and all(all_made_up) else "labelled-crops"
    split = "validation" if evaluation is None else evaluation["data"]["split"]
    results = []
    for source, (correlation, macro_f1) in _extractor_scores(stage1, evaluation).items():
        scores = (
            (
                "pearsonr",
                "mean correlation of action units with their intensity labels",
                correlation,
            ),
            ("f1", "macro F1 of expressions", macro_f1),
        )
        results += [
            EvalResult(
                task_type="image-classification",
                task_name="action units and expressions of a face crop",
                dataset_type=dataset_type,
                dataset_name=f"{source}: {data}",
                dataset_config=source,
                dataset_split=split,
                metric_type=kind,
                metric_name=name,
                metric_value=value,
            )
            for kind, name, value in scores
            if value is not None
        ]
    return results


def _extractor_scores(
    stage1: dict, evaluation: dict | None
) -> dict[str, tuple[float | None, float | None]]:
    """Both scores of each source, the training's own where nothing was evaluated; no F1 over images of one class.

    Sources of fewer than `LEAST_IMAGES` are left out: a number without its count would say too much. So is what holds
    for several sources put together.
    """
    if evaluation is None:
        return {
            source: (
                row["mean_action_unit_correlation"],
                row["expression_macro_f1"]
                if classes_in(row["expression_confusion_rows_are_labels"]) > 1
                else None,
            )
            for source, row in stage1["validation"].items()
            if row["images"] >= LEAST_IMAGES
            and not (source == "all" and len(stage1["validation"]) > 2)
        }
    return {
        source: (value_of(row["mean_action_unit_correlation"]), evaluated_macro_f1(row))
        for source, row in evaluation["sources"].items()
        if row["images"] >= LEAST_IMAGES
    }


def evaluated_macro_f1(row: dict) -> float | None:
    """Of a source in `results_evaluation.json`; None where fewer than two expressions are labelled."""
    expression = row.get("expression")
    if not expression or classes_in(expression["confusion"]) < 2:
        return None
    return value_of(expression["macro_f1"])


def classes_in(confusion: list[list[int]]) -> int:
    """How many classes are labelled: rows of a confusion matrix with a count."""
    return sum(any(counts) for counts in confusion)


def value_of(interval: dict | None) -> float | None:
    """The value of a number with its interval, where there is one."""
    return None if interval is None else interval["value"]


def _intensity_results(task: str, stage2: dict, simulated: bool) -> list[EvalResult]:
    """Mean Pearson correlation of the test clips, or of those of validation where there is no test."""
    split = "test" if stage2.get("test") else "validation"
    value = stage2[split]["reactions"]["mean_pearson"]
    if value is None:
        return []
    return [
        EvalResult(
            task_type=task,
            task_name="reaction intensities of a clip",
            dataset_type="simulated" if simulated else "labelled-clips",
            dataset_name=f"{'simulated clips: ' if simulated else ''}{stage2['data']['data']}",
            dataset_split=split,
            metric_type="pearsonr",
            metric_name=f"mean Pearson correlation over the targets{', simulated labels' if simulated else ''}",
            metric_value=value,
        )
    ]


def training_energy(results: dict) -> dict:
    """Core hours of a training, and what they take at `WATTS_A_CORE`; an estimate, nothing was metered.

    Args:
        results: of either stage.

    Returns:
        `hours` of wall time, `core_hours` (hours x processes x threads) and `kilowatt_hours`; the last is None for a
        training that was not on processors alone.
    """
    training = results["training"]
    hours = training["seconds"] / 3600
    core_hours = hours * training.get("processes", 1) * results["arguments"].get("threads", 1)
    on_cores = " CPU " in training["hardware"]
    return {
        "hours": hours,
        "hardware": training["hardware"],
        "core_hours": core_hours,
        "kilowatt_hours": core_hours * WATTS_A_CORE / 1000 if on_cores else None,
    }


def package_version() -> str | None:
    """The installed package's version; None in a checkout that was never installed."""
    try:
        return metadata.version("mma-mrnnet")
    except metadata.PackageNotFoundError:
        return None
