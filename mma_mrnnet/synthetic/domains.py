"""Domains of the simulator: the default one, and corpora that differ from it.

All numbers are our choice unless their docstring names a source.
"""

from dataclasses import dataclass, field

from mma_mrnnet.model.configuration_mma_mrnnet import MMAMRNNetConfig
from mma_mrnnet.synthetic.display import LONGEST_S, Looseness
from mma_mrnnet.synthetic.extractor_noise import ExtractorNoise

FPS = MMAMRNNetConfig().sampling_fps  # about the rate of Hume-Reaction's crops


@dataclass(frozen=True)
class Recording:
    """Clip lengths, and frames with a detected face.

    Published for Hume-Reaction: durations of 9.9 to 14.98 s; crops per clip: median 23, mean
    23.6, 95th percentile 29, range 1 to 30, below 16 in 0.8 % of clips. The other defaults are
    our choice, in agreement with that. Unordered durations, or durations above 15 s, raise
    ValueError.
    """

    shortest_s: float = 9.9
    """Published."""
    longest_s: float = 14.98
    """Published."""
    duration: tuple[float, float] = (0.8, 0.8 * 0.6614 / 0.3386)
    """Beta distribution of durations, shortest to longest. Our choice."""
    missed_clips: float = 0.013
    """Share of clips in which many faces are missed. Our choice."""
    found_in_missed: tuple[float, float] = (0.0, 0.9)
    """Range of the share of frames with a face in such a clip. Our choice."""
    found_otherwise: float = 0.997
    """Share of frames with a face in other clips. Our choice."""
    turns: float = 0.0
    """Share of clips in which the head turns away and back, once."""
    turn_s: tuple[float, float] = (1.0, 5.0)
    """Range of the duration of such a turn. Our choice."""
    lost_beyond: float = 0.8
    """A face turned further than this is not detected; 1 is the profile. Our choice."""
    lost_stretches: float = 0.0
    """Mean number of intervals without a face in 15 s."""
    lost_s: float = 1.5
    """Mean duration of such an interval. Our choice."""
    cut_share: float = 0.0
    """Share of short clips that are cut from a longer one; the others are played faster."""
    cut_s: tuple[float, float] = (0.3, 9.0)
    """Range of the duration of a cut clip. Our choice."""

    def __post_init__(self) -> None:
        if not 0 < self.shortest_s <= self.longest_s <= LONGEST_S:
            raise ValueError(
                f"durations must be above 0, the shortest first, and at most {LONGEST_S:g} s; "
                f"got {self.shortest_s} to {self.longest_s}"
            )


@dataclass(frozen=True)
class Domain:
    """A simulated corpus: people, extractor, recording and frame rate.

    Attributes:
        what: how it differs from the default, in words for results.
        fps: frames per second; a value other than `FPS` overrides the rate that a model
            expects.
        short_everywhere: whether all splits have short clips, instead of training only.
        needs_errors: whether the caller must give the measured noise of a trained extractor.
    """

    what: str
    looseness: Looseness = field(default_factory=Looseness)
    noise: ExtractorNoise = field(default_factory=ExtractorNoise)
    recording: Recording = field(default_factory=Recording)
    fps: float = FPS
    short_everywhere: bool = False
    needs_errors: bool = False

    def rate(self, fps: float) -> float:
        """Return the frame rate of its clips for a model that expects `fps`."""
        return fps if self.fps == FPS else self.fps


_OTHER_PEOPLE = Looseness(
    expressivity=(1.5, 2.2),  # mean 0.41 instead of 0.57
    unit_spread=0.6,
    unit_dropped=0.30,
    masking_people=0.55,
    masked=0.60,
    talks=0.60,
    rest_habit=0.30,
)
_WORSE_EXTRACTOR = ExtractorNoise(
    unit_bias=0.75,
    unit_noise=0.75,
    expression_bias=0.6,
    expression_noise=0.6,
    valence_arousal_bias=0.12,
    valence_arousal_noise=0.12,
    memory=0.85,
    bad_frames=0.06,
)
_SHORT_RECORDING = Recording(
    shortest_s=3.0,
    longest_s=10.0,
    duration=(1.0, 1.0),  # uniform
    missed_clips=0.20,
    found_in_missed=(0.1, 0.7),
    found_otherwise=0.98,
)
_OTHER_FPS = 3.0

DOMAINS: dict[str, Domain] = {
    "people": Domain(
        "less expressive people who mask, talk and differ more", looseness=_OTHER_PEOPLE
    ),
    "noise": Domain("an extractor with larger, longer-lasting errors", noise=_WORSE_EXTRACTOR),
    "lengths": Domain("clips of 3 to 10 s, many faces missed", recording=_SHORT_RECORDING),
    "rate": Domain("frames handed over as they come, 3 a second", fps=_OTHER_FPS),
    "other": Domain(
        "other people, a worse extractor, clips of 3 to 10 s with many faces missed, "
        "3 frames a second",
        looseness=_OTHER_PEOPLE,
        noise=_WORSE_EXTRACTOR,
        recording=_SHORT_RECORDING,
        fps=_OTHER_FPS,
    ),
    "measured": Domain(
        "the extractor's own errors as measured on its validation crops, heads that turn, "
        "stretches without a face, more talking and blends",
        looseness=Looseness(talks=0.45, blends=0.25),
        recording=Recording(
            missed_clips=0.0, found_otherwise=1.0, turns=0.30, lost_stretches=0.30, cut_share=0.6
        ),
        short_everywhere=True,
        needs_errors=True,
    ),
}
"""Target corpora for transfer, all our choice: clearly different, yet plausible."""


def domain_named(name: str | None) -> Domain:
    """Return a domain by name (None: the default); an unknown name raises ValueError."""
    if name is None:
        return Domain("shaped like Hume-Reaction")
    if name not in DOMAINS:
        raise ValueError(f"a simulated domain must be one of {', '.join(DOMAINS)}; got {name!r}")
    return DOMAINS[name]
