"""Does a stage-2 model answer the published display of each reaction, and stay low otherwise?

    python benchmarks/simulator_responses.py MODEL

A stimulus of a reaction has the units that most people show in it (Du et al. 2014, Keltner et al.
2019, Cordaro et al. 2018; Anxiety and Adoration are our choice), at full strength, without noise.
Quiet stimuli are a resting face, one that talks, one whose report errs while the head turns, and the
simulator's displays that are no reaction (64 draws of each but the first). All last 1, 3, 5 and 10 s. Outputs are read as they are, and as the rise
over the resting face of the same length. A model that learnt from measured errors is shown their
report. Writes `benchmarks/results/responses.json`.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from mma_mrnnet import MMAMRNNetForIntensity, MMAMRNNetVideoProcessor
from mma_mrnnet.files import write_json
from mma_mrnnet.metrics import rounded
from mma_mrnnet.model.labels import ACTION_UNITS, REACTIONS
from mma_mrnnet.synthetic.display import (
    ASSOCIATIONS,
    DISPLAYS,
    compose_affect,
    look_like,
    sample_speech,
    show_display,
)
from mma_mrnnet.synthetic.domains import domain_named
from mma_mrnnet.synthetic.extractor_noise import (
    ExtractorNoise,
    find_columns,
    noise_from_errors,
    report_affect,
    sample_bias,
    turn_away,
)
from mma_mrnnet.training.extractor_errors import read_errors

RESULT = Path(__file__).parent / "results" / "responses.json"
SECONDS = (1, 3, 5, 10)
DRAWS = 64
MOST_SHOW_IT = 0.5
"""A unit belongs to a display if at least this share of people shows it."""


def learnt_from(folder: Path) -> tuple[ExtractorNoise, str, dict[str, float]]:
    """Return the extractor's errors, in words too, and mean outputs on test reactions."""
    results = json.loads((folder / "results_mrnn.json").read_text("utf-8"))
    data = results["arguments"]["data"]
    domain = domain_named(data.partition(":")[2] or None)
    noise = noise_from_errors(read_errors(str(folder))) if domain.needs_errors else domain.noise
    return noise, data, results["test"]["reactions"]["mean_intensity"]


def without_noise(noise: ExtractorNoise) -> ExtractorNoise:
    """Return the usual report of an extractor: floors, slopes, confusions, cross-talk."""
    silent = (
        "unit_bias",
        "unit_noise",
        "expression_bias",
        "expression_noise",
        "unsupervised_noise",
        "bad_frames",
    )
    silent += ("valence_arousal_bias", "valence_arousal_noise")
    return replace(noise, **dict.fromkeys(silent, 0.0))


def displays(frames: int) -> np.ndarray:
    """Make true affect (7, T, 26): each display grows over a fifth of the clip and stays."""
    rise = (
        (np.arange(frames) / max(0.2 * (frames - 1), 1.0)).clip(0, 1) if frames > 1 else np.ones(1)
    )
    shown = np.eye(len(REACTIONS))[:, None] * rise[:, None]  # (7, T, 7)
    units = np.zeros((len(REACTIONS), frames, len(ACTION_UNITS)))
    for row, reaction in enumerate(REACTIONS):
        for unit, share in ASSOCIATIONS[reaction].items():
            if share >= MOST_SHOW_IT:
                units[row][:, find_columns(unit)] = rise[:, None]
    return compose_affect(shown, np.zeros(shown.shape[:2]), units)


def resting(speech: np.ndarray) -> np.ndarray:
    """Make true affect (N, T, 26) of calm faces with only the units of speech (N, T, 17)."""
    return compose_affect(
        np.zeros((*speech.shape[:2], len(REACTIONS))), np.zeros(speech.shape[:2]), speech
    )


def posed(name: str, frames: int, fps: float, rng: np.random.Generator) -> np.ndarray:
    """Make true affect (N, T, 26) of a display that is no reaction, by people of usual strength."""
    units = show_display(name, np.ones((DRAWS, len(ACTION_UNITS))), np.ones(DRAWS), fps, rng)
    return np.concatenate([look_like(units), units], axis=-1)[:, :frames]


def stimuli(frames: int, fps: float, noise: ExtractorNoise) -> dict[str, np.ndarray]:
    """Return the report of each stimulus, (N, T, 26)."""
    rng = np.random.default_rng(0)
    clear = without_noise(noise)
    still = np.zeros((DRAWS, frames, len(ACTION_UNITS)))
    speech = sample_speech(np.ones(DRAWS, bool), fps, rng)[:, :frames]

    def seen(true: np.ndarray, mouth: np.ndarray) -> np.ndarray:
        nobody = np.zeros((len(true), true.shape[-1]))
        return report_affect(true, mouth[..., find_columns(25)], nobody, clear, rng, fps)

    calm, people = resting(still), np.stack([sample_bias(noise, rng) for _ in range(DRAWS)])
    turn = rng.uniform(0, 0.8, (DRAWS, 1)) * np.sin(np.linspace(0, np.pi, frames))
    moving = turn_away(calm, people, turn, noise, rng)
    return {
        "displays": seen(displays(frames), still[: len(REACTIONS)]),
        "neutral_still": seen(calm[:1], still[:1]),
        "neutral_talking": seen(resting(speech), speech),
        "neutral_moving": report_affect(
            moving[0], still[..., find_columns(25)], moving[1], noise, rng, fps
        ),
        **{name: seen(posed(name, frames, fps, rng), still) for name in DISPLAYS},
    }


def responses(
    model: MMAMRNNetForIntensity, processor: MMAMRNNetVideoProcessor, affect: np.ndarray
) -> np.ndarray:
    """Return intensities (N, 7)."""
    padded, mask = processor.pad(list(affect.astype(np.float32)))
    with torch.inference_mode():
        return model(affect=padded, frame_mask=mask).intensities.numpy()


def named(values: np.ndarray) -> dict[str, float]:
    """Name seven numbers by their reactions."""
    return dict(zip(REACTIONS, values.tolist(), strict=True))


def of_length(outputs: dict[str, np.ndarray], usual: dict[str, float]) -> dict:
    """Return the answers to the stimuli of one length."""
    shown, still = outputs["displays"], outputs["neutral_still"][0]
    rise = shown - still
    quiet = {name: values for name, values in outputs.items() if name != "displays"}
    return {
        "displays": {name: named(shown[row]) for row, name in enumerate(REACTIONS)},
        "rise_over_neutral_still": {name: named(rise[row]) for row, name in enumerate(REACTIONS)},
        "own_output_highest": [
            name for row, name in enumerate(REACTIONS) if shown[row].argmax() == row
        ],
        "own_output_rises_most": [
            name for row, name in enumerate(REACTIONS) if rise[row].argmax() == row
        ],
        "own_display_best": [
            name for row, name in enumerate(REACTIONS) if shown[:, row].argmax() == row
        ],
        "quiet": {
            name: {
                "mean": named(values.mean(0)),
                "highest_draw": named(values.max(0)),
                "share_of_reactions_mean": {
                    reaction: float(values.mean(0)[REACTIONS.index(reaction)] / usual[reaction])
                    for reaction in ("Fear", "Disgust")
                },
            }
            for name, values in quiet.items()
        },
    }


def main(folder: Path, out: Path) -> None:
    """Show the model all stimuli and write its answers."""
    torch.set_num_threads(1)
    noise, data, usual = learnt_from(folder)
    model = MMAMRNNetForIntensity.from_pretrained(folder).eval()
    processor = MMAMRNNetVideoProcessor.from_pretrained(folder)
    fps = model.config.sampling_fps
    result: dict = {
        "what": "made stimuli: the published display of each reaction, and quiet faces; "
        "nobody was recorded",
        "learnt_from": data,
        "mean_output_on_simulated_test_reactions": usual,
        "seconds": {},
    }
    for seconds in SECONDS:
        made = stimuli(int(seconds * fps) + 1, fps, noise)
        outputs = {name: responses(model, processor, affect) for name, affect in made.items()}
        result["seconds"][str(seconds)] = of_length(outputs, usual)
    write_json(out, rounded(result))
    print(json.dumps(json.loads(out.read_text("utf-8")), indent=1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--out", type=Path, default=RESULT)
    chosen = parser.parse_args()
    main(chosen.model, chosen.out)
