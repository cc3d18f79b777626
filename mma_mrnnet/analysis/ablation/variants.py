"""What is compared: each variant is the full model with some settings changed, never a copy of its code."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from mma_mrnnet.model.labels import CHANNELS
from mma_mrnnet.training.arguments import TrainArguments

FULL = "full"
"""The model as it is: all affect, mask, Pearson loss, multi-task extractor."""

QUESTIONS = {
    "channels": "which part of the affect carries the intensities?",
    "length": "mask layer or another way of handling clips of different length?",
    "loss": "Pearson, squared error or concordance?",
    "frames": "how many frames, how many a second?",
    "routing": "plain or strict routing of the dense layer's weights?",
    "extractor": "single-task or multi-task extractor, with which ties between expressions and action units?",
    "pixels": "affect and GRU, or a small 3-D CNN on pixels?",
    "transfer": "what carries over to other data, and what would training there give?",
    "planted": "can these tables see a difference that is known to be there?",
}

VALENCE_AROUSAL, EXPRESSIONS, ACTION_UNITS = ["valence_arousal"], ["expressions"], ["action_units"]


@dataclass(frozen=True)
class Variant:
    """One thing to train, over several seeds.

    Attributes:
        name: short, fit for a folder.
        question: one of `QUESTIONS`; empty for the full model.
        what: in words, for the tables.
        settings: fields of stage 2's `TrainArguments` that differ from the base.
        extractor: fields of stage 1's that differ; None takes the base's extractor.
        against: the variant that it is compared with, seed by seed.
        pixels: train the 3-D CNN in place of the affect's network.
        leaks: give every clip's padding its labels (planted).
    """

    name: str
    question: str
    what: str
    settings: dict[str, object] = field(default_factory=dict)
    extractor: dict[str, object] | None = None
    against: str = FULL
    pixels: bool = False
    leaks: bool = False


def all_variants(base: TrainArguments, transfer: Sequence[str] = ()) -> list[Variant]:
    """Every variant that there is, the full model first.

    Args:
        base: stage 2's settings; T and the frame rate are halved and doubled from here.
        transfer: `--data` words of other data that models are tried on; each gets a variant that is trained there.
    """
    variants = [
        *_channels(),
        *_lengths(base),
        Variant("mse", "loss", "mean squared error", {"intensity_loss": "mse"}),
        Variant("ccc", "loss", "1 - mean concordance", {"intensity_loss": "ccc"}),
        *_frames(base),
        Variant("strict", "routing", "strict routing", {"strict_routing": True}),
        *_extractors(),
        Variant("cnn3d", "pixels", "small 3-D CNN on pixels, no extractor", pixels=True),
        *(
            Variant(f"on-{_slug(data)}", "transfer", f"trained on {data}", {"data": data})
            for data in transfer
        ),
        Variant(
            "leak-padded",
            "planted",
            "no mask, and the labels stand in the padding",
            {"temporal_pooling": "padded"},
            against="padded",
            leaks=True,
        ),
        Variant(
            "leak-mask",
            "planted",
            "mask layer, and the labels stand in the padding",
            {} if base.temporal_pooling == "mask" else {"temporal_pooling": "mask"},
            leaks=True,
        ),
    ]
    others = [variant for variant in variants if not _is_base(variant, base)]
    names = {variant.name for variant in others}
    # What equals the full model is not trained again under another name.
    others = [
        variant if variant.against in names else replace(variant, against=FULL)
        for variant in others
    ]
    return [Variant(FULL, "", _in_words(base)), *others]


def _is_base(variant: Variant, base: TrainArguments) -> bool:
    changes = any(getattr(base, name) != value for name, value in variant.settings.items())
    return not (changes or variant.extractor or variant.pixels or variant.leaks)


def _in_words(base: TrainArguments) -> str:
    channels = "all affect" if len(base.channels) == len(CHANNELS) else " and ".join(base.channels)
    pooling = (
        "mask layer" if base.temporal_pooling == "mask" else f"pooling {base.temporal_pooling}"
    )
    loss = {"pearson": "Pearson", "mse": "squared-error", "ccc": "concordance"}[base.intensity_loss]
    return f"{channels.replace('_', ' ')}, {pooling}, {loss} loss"


def chosen_variants(
    variants: Sequence[Variant], questions: Sequence[str], names: Sequence[str]
) -> list[Variant]:
    """The variants of some questions and names, with those that they are compared with; the full model first.

    Raises:
        ValueError: a question or name that there is not.
    """
    by_name = {variant.name: variant for variant in variants}
    for kind, asked, known in (
        ("--questions", questions, QUESTIONS),
        ("--variants", names, by_name),
    ):
        unknown = sorted(set(asked) - set(known))
        if unknown:
            raise ValueError(f"{kind} must be among {', '.join(known)}; got {', '.join(unknown)}")
    wanted = {FULL} | {
        variant.name
        for variant in variants
        if variant.question in questions or variant.name in names
    }
    wanted |= {by_name[name].against for name in wanted if by_name[name].against in by_name}
    return [variant for variant in variants if variant.name in wanted]


def _channels() -> list[Variant]:
    parts = {
        "va": VALENCE_AROUSAL,
        "expr": EXPRESSIONS,
        "au": ACTION_UNITS,
        "va+expr": VALENCE_AROUSAL + EXPRESSIONS,
        "va+au": VALENCE_AROUSAL + ACTION_UNITS,
        "expr+au": EXPRESSIONS + ACTION_UNITS,
    }
    words = {
        "valence_arousal": "valence-arousal",
        "expressions": "expressions",
        "action_units": "action units",
    }
    return [
        Variant(
            name,
            "channels",
            f"{' and '.join(words[part] for part in channels)} alone",
            {"channels": channels},
        )
        for name, channels in parts.items()
    ]


def _lengths(base: TrainArguments) -> list[Variant]:
    half = max(base.num_frames // 2, 1)
    return [
        Variant("padded", "length", "padding without a mask", {"temporal_pooling": "padded"}),
        Variant(
            "resample", "length", "every clip resampled to T frames", {"length_policy": "resample"}
        ),
        Variant(
            "truncate",
            "length",
            f"the first {half} frames alone",
            {"length_policy": "truncate", "num_frames": half},
        ),
        Variant("last", "length", "last state", {"temporal_pooling": "last"}),
        Variant("mean", "length", "mean of the states", {"temporal_pooling": "mean"}),
        Variant(
            "attention", "length", "attention over the states", {"temporal_pooling": "attention"}
        ),
    ]


def _frames(base: TrainArguments) -> list[Variant]:
    frames, rate = base.num_frames, base.sampling_fps
    half = max(frames // 2, 1)
    return [
        Variant("t-half", "frames", f"T {half}: longer clips thinned evenly", {"num_frames": half}),
        Variant(
            "t-double",
            "frames",
            f"T {2 * frames}: padding for every clip",
            {"num_frames": 2 * frames},
        ),
        Variant(
            "rate-half",
            "frames",
            f"{rate / 2:g} a second, T {half}",
            {"sampling_fps": rate / 2, "num_frames": half},
        ),
        Variant(
            "rate-double",
            "frames",
            f"{2 * rate:g} a second, T {2 * frames}",
            {"sampling_fps": 2 * rate, "num_frames": 2 * frames},
        ),
    ]


def _extractors() -> list[Variant]:
    """Single-task extractors against the same channels of the multi-task one; its own ties against none."""
    single = {
        "va": ("valence-arousal", VALENCE_AROUSAL),
        "expr": ("expressions", EXPRESSIONS),
        "au": ("action units", ACTION_UNITS),
    }
    ties = {
        "dm-off": ("no distribution matching", {"distribution_matching": "off"}),
        "dm-bce": ("distribution matching, cross-entropy", {"distribution_matching": "bce"}),
        "dm-literal": ("distribution matching, literal form", {"distribution_matching": "literal"}),
        "co-soft": ("soft co-annotation beside matching", {"co_annotation": "soft"}),
        "co-hard": ("hard co-annotation beside matching", {"co_annotation": "hard"}),
    }
    return [
        *(
            Variant(
                f"single-{name}",
                "extractor",
                f"an extractor of {words} alone",
                {"channels": channels},
                {"channels": channels, "distribution_matching": "off"},
                against=name,
            )
            for name, (words, channels) in single.items()
        ),
        *(Variant(name, "extractor", words, {}, change) for name, (words, change) in ties.items()),
    ]


def _slug(data: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in data).strip("-")
