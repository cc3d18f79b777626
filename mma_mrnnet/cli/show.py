"""How a prediction is shown: its intensities as lines, and what must stand wherever a number is shown."""

import math
import os
import sys


def print_prediction(prediction: object, *, all_faces: bool = False) -> None:
    """Intensities on stdout, warnings and errors beside.

    Args:
        prediction: of one person.
        all_faces: everybody in the clip is shown, so that it takes a number to say who this is.
    """
    from mma_mrnnet.prediction import shown

    file = shown(prediction.file)
    name = f"{file}, track {prediction.track}" if all_faces else file
    if prediction.warning:
        print(f"mma-mrnnet: {name}: {prediction.warning}", file=sys.stderr)
    if prediction.error is not None:
        print(f"mma-mrnnet: {name}: {prediction.error}", file=sys.stderr)
        return
    length = "" if math.isnan(prediction.duration_s) else f"{prediction.duration_s:.1f} s, "
    faces = f"a face in {prediction.frames_with_face} of {prediction.frames_sampled} frames"
    print(f"{name}: {length}{faces}")
    if prediction.people > 1 and not all_faces:
        others = f"{prediction.people} people were seen; this is who is in most frames, --all-faces shows the others"
        print(f"mma-mrnnet: {name}: {others}", file=sys.stderr)
    print_neutral(prediction, name)
    rows = prediction.ranked() if prediction.calibrated else prediction.intensities.items()
    for target, value in rows:
        without = f" ({prediction.uncorrected[target]:.2f})" if prediction.uncorrected else ""
        print(
            f"  {target:<14} {value:5.2f}{without}  {'#' * round(20 * min(max(value, 0.0), 1.0))}"
        )


def print_neutral(prediction: object, name: str) -> None:
    """That affect was calibrated by the person's own neutral, where it was."""
    if prediction.neutral_s is not None:
        start, end = prediction.neutral_s
        neutral = f"the person's own neutral from {start:.3g} to {end:.3g} s was taken out; without that: in brackets"
        print(f"mma-mrnnet: {name}: {neutral}", file=sys.stderr)


def print_notes(config: object, *, frames_too: bool) -> None:
    """What must stand wherever a number is shown."""
    from mma_mrnnet.model.labels import action_unit_name

    notes = []
    if config.simulated_labels:
        notes.append("these intensities were learnt from a simulator, not from people's reports")
    if config.relative_labels:
        notes.append(
            "they are relative within a clip: in training the strongest reaction of one was 1, however faint"
        )
    if not config.calibrated:
        notes.append(
            "this checkpoint is not calibrated: outputs of different targets do not compare and are not ranked"
        )
    prior_only = list(map(action_unit_name, config.prior_only_action_units))
    if frames_too and prior_only:
        notes.append(
            f"{', '.join(prior_only)} of the frames' table are prior only: no label ever reached them"
        )
    if config.untrained_outputs:
        notes.append(
            f"nothing taught the extractor {', '.join(config.untrained_outputs)}: arbitrary numbers"
        )
    for note in notes:
        print(f"note: {note}", file=sys.stderr)


def discard_stdout() -> None:
    """The reader left (| head), which is no error: what is still printed goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
