"""Parse, build the stage, fit. `accelerate launch train.py` and `accelerate launch -m mma_mrnnet.train` end up here."""

import logging
import sys

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from mma_mrnnet.training.arguments import parse_arguments
from mma_mrnnet.training.checkpoints import refuse_early
from mma_mrnnet.training.loop import fit
from mma_mrnnet.training.stages import mma_stage, mrnn_stage

STAGES = {"mma": mma_stage, "mrnn": mrnn_stage}


def main(words: list[str] | None = None) -> int:
    """Trains one stage; the process's exit code.

    Args:
        words: the command line's words; None takes the process's own.
    """
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", datefmt="%H:%M:%S"
    )
    for library in ("httpx", "accelerate"):
        logging.getLogger(library).setLevel(logging.WARNING)
    try:
        args = parse_arguments(words)
        refuse_early(args)
        stage = STAGES[args.stage](args)
        args.output.mkdir(
            parents=True, exist_ok=True
        )  # only now: a run that cannot begin leaves nothing
        results = fit(stage, args)
    except (ValueError, OSError, RuntimeError, StrictDataclassError, SafetensorError) as error:
        # A reading worker's error comes with its traceback, whose last line says what it was.
        text = (
            str(error).strip().splitlines()[-1]
            if "Original Traceback" in str(error)
            else str(error)
        )
        if isinstance(error, StrictDataclassError):
            text = text.rpartition("ValueError: ")[2]  # without the library's own words around it
        sys.stderr.write(f"train: {' '.join(text.split())}\n")
        return 1
    if results:
        logging.getLogger(__name__).info("wrote %s", args.output / "model")
    return 0


if __name__ == "__main__":
    sys.exit(main())
