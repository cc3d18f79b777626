"""How a prediction is shown: its intensities as lines, and what must stand wherever a number is shown."""

import math
import os
import sys


def print_prediction(prediction: object) -> None:
    """Intensities on stdout, warnings and errors beside."""
    if prediction.warning:
        print(f"mma-mrnnet: {prediction.file}: {prediction.warning}", file=sys.stderr)
    if prediction.error is not None:
        print(f"mma-mrnnet: {prediction.file}: {prediction.error}", file=sys.stderr)
        return
    length = "" if math.isnan(prediction.duration_s) else f"{prediction.duration_s:.1f} s, "
    faces = f"a face in {prediction.frames_with_face} of {prediction.frames_sampled} frames"
    print(f"{prediction.file}: {length}{faces}")
    rows = prediction.ranked() if prediction.calibrated else prediction.intensities.items()
    for name, value in rows:
        print(f"  {name:<14} {value:5.2f}  {'#' * round(20 * min(max(value, 0.0), 1.0))}")


def print_notes(config: object, *, frames_too: bool) -> None:
    """What must stand wherever a number is shown."""
    from mma_mrnnet.model.labels import action_unit_name

    notes = []
    if config.simulated_labels:
        notes.append("these intensities were learnt from a simulator, not from people's reports")
    if config.relative_labels:
        notes.append("they are relative within a clip: in training the strongest reaction of one was 1, however faint")
    if not config.calibrated:
        notes.append(
            "this checkpoint is not calibrated: outputs of different targets do not compare and are not ranked"
        )
    prior_only = list(map(action_unit_name, config.prior_only_action_units))
    if frames_too and prior_only:
        notes.append(f"{', '.join(prior_only)} of the frames' table are prior only: no label ever reached them")
    if config.untrained_outputs:
        notes.append(f"nothing taught the extractor {', '.join(config.untrained_outputs)}: arbitrary numbers")
    for note in notes:
        print(f"note: {note}", file=sys.stderr)


def discard_stdout() -> None:
    """The reader left (| head), which is no error: what is still printed goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
