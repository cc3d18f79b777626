"""Variants of an ablation study: the full model with some settings changed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mma_mrnnet.model.labels import CHANNELS
from mma_mrnnet.training.arguments import TrainArguments
from mma_mrnnet.training.stages import Stage

FULL = "full"
"""Name of the unchanged model: all affect, mask, Pearson loss, multi-task extractor."""

TRANSFER = "transfer"
"""The question whose variants train on other data and so have their own test clips."""

QUESTIONS = {
    "channels": "which part of the affect carries the intensities?",
    "length": "mask layer or another way of handling clips of different length?",
    "loss": "Pearson, squared error or concordance?",
    "frames": "how many frames, how many a second?",
    "routing": "plain or strict routing of the dense layer's weights?",
    "extractor": "single-task or multi-task extractor, with which ties between expressions and "
    "action units?",
    TRANSFER: "what carries over to other data, and what would training there give?",
}


@dataclass(frozen=True)
class Variant:
    """One thing to train with several seeds.

    Attributes:
        question: one of the study's questions; empty for the full model.
        settings: changed fields of stage 2's `TrainArguments`.
        extractor: changed fields of stage 1's; None uses the base's extractor.
        against: the variant it is compared with, by seed.
        make_stage: builds the stage from stage 2's arguments; None means `mrnn_stage`. It must
            be a module-level function, because runs are separate processes. Such a variant is
            not tried on other data.
        reads_affect: whether it reads an extractor's output.
    """

    name: str
    question: str
    what: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    extractor: Mapping[str, Any] | None = None
    against: str = FULL
    make_stage: Callable[[TrainArguments], Stage] | None = None
    reads_affect: bool = True


def list_variants(
    base: TrainArguments, transfer: Sequence[str] = (), extra: Sequence[Variant] = ()
) -> list[Variant]:
    """Return every variant of a study, the full model first.

    A variant equal to the full model is left out; the full model then replaces it in
    comparisons. Variants halve and double T and frame rate of `base`; each of `transfer`, a
    `--data` value, adds a variant trained there.
    """
    variants = [
        *_list_channels(),
        *_list_lengths(base),
        Variant("mse", "loss", "mean squared error", {"intensity_loss": "mse"}),
        Variant("ccc", "loss", "1 - mean concordance", {"intensity_loss": "ccc"}),
        *_list_frames(base),
        Variant("strict", "routing", "strict routing", {"strict_routing": True}),
        *_list_extractors(),
        *(
            Variant(f"on-{_make_slug(data)}", TRANSFER, f"trained on {data}", {"data": data})
            for data in transfer
        ),
        *extra,
    ]
    others = [variant for variant in variants if not _equals_base(variant, base)]
    names = {variant.name for variant in others}
    others = [
        variant if variant.against in names else replace(variant, against=FULL)
        for variant in others
    ]
    return [Variant(FULL, "", _describe_base(base)), *others]


def choose_variants(
    variants: Sequence[Variant],
    known_questions: Sequence[str],
    questions: Sequence[str],
    names: Sequence[str],
) -> list[Variant]:
    """Return variants by question and name, with their baselines; ValueError if unknown."""
    by_name = {variant.name: variant for variant in variants}
    _refuse_unknown("--questions", questions, known_questions)
    _refuse_unknown("--variants", names, list(by_name))
    wanted = {FULL} | {
        variant.name
        for variant in variants
        if variant.question in questions or variant.name in names
    }
    wanted |= {by_name[name].against for name in wanted if by_name[name].against in by_name}
    return [variant for variant in variants if variant.name in wanted]


def _refuse_unknown(option: str, asked: Sequence[str], known: Sequence[str]) -> None:
    unknown = sorted(set(asked) - set(known))
    if unknown:
        raise ValueError(f"{option} must be among {', '.join(known)}; got {', '.join(unknown)}")


def _equals_base(variant: Variant, base: TrainArguments) -> bool:
    changes = any(getattr(base, name) != value for name, value in variant.settings.items())
    return not (changes or variant.extractor or variant.make_stage)


def _describe_base(base: TrainArguments) -> str:
    channels = "all affect" if len(base.channels) == len(CHANNELS) else " and ".join(base.channels)
    pooling = base.temporal_pooling
    pooling = "mask layer" if pooling == "mask" else f"pooling {pooling}"
    loss = {"pearson": "Pearson", "mse": "squared-error", "ccc": "concordance"}[base.intensity_loss]
    return f"{channels.replace('_', ' ')}, {pooling}, {loss} loss"


CHANNEL_NAMES = {
    "va": ("valence-arousal", "valence_arousal"),
    "expr": ("expressions", "expressions"),
    "au": ("action units", "action_units"),
}


def _list_channels() -> list[Variant]:
    variants = []
    for name in ("va", "expr", "au", "va+expr", "va+au", "expr+au"):
        parts = [CHANNEL_NAMES[part] for part in name.split("+")]
        words = " and ".join(word for word, _ in parts)
        channels = [channel for _, channel in parts]
        variants.append(Variant(name, "channels", f"{words} alone", {"channels": channels}))
    return variants


def _list_lengths(base: TrainArguments) -> list[Variant]:
    half = max(base.num_frames // 2, 1)
    truncate = {"length_policy": "truncate", "num_frames": half}
    ways: dict[str, tuple[str, dict[str, Any]]] = {
        "padded": ("padding without a mask", {"temporal_pooling": "padded"}),
        "resample": ("every clip resampled to T frames", {"length_policy": "resample"}),
        "truncate": (f"the first {half} frames alone", truncate),
        "last": ("last state", {"temporal_pooling": "last"}),
        "mean": ("mean of the states", {"temporal_pooling": "mean"}),
        "attention": ("attention over the states", {"temporal_pooling": "attention"}),
    }
    return [Variant(name, "length", what, settings) for name, (what, settings) in ways.items()]


def _list_frames(base: TrainArguments) -> list[Variant]:
    half, double = max(base.num_frames // 2, 1), 2 * base.num_frames
    slow, fast = base.sampling_fps / 2, 2 * base.sampling_fps
    ways: dict[str, tuple[str, dict[str, Any]]] = {
        "t-half": (f"T {half}: longer clips thinned evenly", {"num_frames": half}),
        "t-double": (f"T {double}: padding for every clip", {"num_frames": double}),
        "rate-half": (
            f"{slow:g} a second, T {half}",
            {"sampling_fps": slow, "num_frames": half},
        ),
        "rate-double": (
            f"{fast:g} a second, T {double}",
            {"sampling_fps": fast, "num_frames": double},
        ),
    }
    return [Variant(name, "frames", what, settings) for name, (what, settings) in ways.items()]


def _list_extractors() -> list[Variant]:
    """Return single-task extractors and extractors with other couplings of the tasks."""
    variants = []
    for name, (words, channel) in CHANNEL_NAMES.items():
        alone = {"channels": [channel]}
        what = f"an extractor of {words} alone"
        single = {**alone, "distribution_matching": "off"}
        variants.append(
            Variant(f"single-{name}", "extractor", what, alone, single, against=name),
        )
    ties = {
        "dm-off": ("no distribution matching", {"distribution_matching": "off"}),
        "dm-bce": ("distribution matching, cross-entropy", {"distribution_matching": "bce"}),
        "dm-literal": ("distribution matching, literal form", {"distribution_matching": "literal"}),
        "co-soft": ("soft co-annotation beside matching", {"co_annotation": "soft"}),
        "co-hard": ("hard co-annotation beside matching", {"co_annotation": "hard"}),
    }
    variants += [
        Variant(name, "extractor", what, extractor=change) for name, (what, change) in ties.items()
    ]
    return variants


def _make_slug(data: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in data).strip("-")
