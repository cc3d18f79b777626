"""The command line of training: `accelerate launch train.py` or `-m mma_mrnnet.train`."""

import logging
import sys
from contextlib import nullcontext

from accelerate import PartialState
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from mma_mrnnet.files import locked
from mma_mrnnet.training.arguments import parse_arguments
from mma_mrnnet.training.checkpoints import refuse_early
from mma_mrnnet.training.loop import fit
from mma_mrnnet.training.stages import mma_stage, mrnn_stage

logger = logging.getLogger(__name__)

STAGES = {"mma": mma_stage, "mrnn": mrnn_stage}


def main(words: list[str] | None = None) -> int:
    """Train one stage and return the exit code of the process.

    Args:
        words: the words of the command line; None: those of the process.
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
        args.output.mkdir(parents=True, exist_ok=True)  # not before: a failed start leaves nothing
        is_main = PartialState().is_main_process
        with locked(args.output, "another training is at work there") if is_main else nullcontext():
            results = fit(stage, args)
    except (ValueError, OSError, RuntimeError, StrictDataclassError, SafetensorError) as error:
        sys.stderr.write(f"train: {_one_line(error)}\n")
        return 1
    if results:
        logger.info("wrote %s", args.output / "model")
    return 0


def _one_line(error: Exception) -> str:
    text = str(error)
    if "Original Traceback" in text:  # from a worker; the last line says what it was
        text = text.strip().splitlines()[-1]
    if isinstance(error, StrictDataclassError):
        text = text.rpartition("ValueError: ")[2]
    return " ".join(text.split())


if __name__ == "__main__":
    sys.exit(main())
