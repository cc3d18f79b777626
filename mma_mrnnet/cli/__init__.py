"""The command line: mma-mrnnet predict | compare | crop | draw | ablate | evaluate ... Only this part prints."""

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

from mma_mrnnet.cli import compare, corpora, predict, sharing, studies
from mma_mrnnet.cli.show import discard_stdout


class Command(NamedTuple):
    """One command: what it does in a line, examples that work, and the functions that read and run its words."""

    text: str
    examples: str
    add: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


COMMANDS = {
    "predict": Command(
        "intensities of each clip, and affect of its frames",
        predict.EXAMPLES,
        predict.add_predict,
        predict.run_predict,
    ),
    "compare": Command(
        "intensities of two clips side by side",
        compare.EXAMPLES,
        compare.add_compare,
        compare.run_compare,
    ),
    "crop": Command(
        "stores the aligned face crops of every video of a folder, to train on",
        corpora.CROP_EXAMPLES,
        corpora.add_crop,
        corpora.run_crop,
    ),
    "draw": Command(
        "draws simulated reactions as clips of cartoon faces, laid out as Hume-Reaction: no people",
        corpora.DRAW_EXAMPLES,
        corpora.add_draw,
        corpora.run_draw,
    ),
    "ablate": Command(
        "trains the paper's comparisons, each with several seeds, and reports them",
        studies.ABLATE_EXAMPLES,
        studies.add_ablate,
        studies.run_ablate,
    ),
    "diagnose": Command(
        "what is wrong with a training run, by its results, and what to try",
        studies.DIAGNOSE_EXAMPLES,
        studies.add_diagnose,
        studies.run_diagnose,
    ),
    "evaluate": Command(
        "how good an extractor is on labelled face crops, source by source, with intervals",
        studies.EVALUATE_EXAMPLES,
        studies.add_evaluate,
        studies.run_evaluate,
    ),
    "export": Command(
        "a folder for the Hub: weights, config, processor, code and card; or ONNX models",
        sharing.EXPORT_EXAMPLES,
        sharing.add_export,
        sharing.run_export,
    ),
    "push": Command(
        "uploads a checkpoint to the Hub as export writes it, by one commit",
        sharing.PUSH_EXAMPLES,
        sharing.add_push,
        sharing.run_push,
    ),
    "demo": Command(
        "makes a short clip from a public-domain photo and runs the whole job on it",
        sharing.DEMO_EXAMPLES,
        sharing.add_demo,
        sharing.run_demo,
    ),
}


def main(words: Sequence[str] | None = None) -> int:
    """Runs one command; the process's exit code: 0, 1 where something failed, 2 for words that make no command."""
    parser = parser_of_commands()
    args, unknown = parser.parse_known_args(words)
    if unknown:
        hint = "; words of train.py stand behind --" if args.command == "ablate" else ""
        parser.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
    if args.command is None:
        parser.print_help()
        return 2
    _quieten_libraries()
    try:
        code = COMMANDS[args.command].run(args)
        sys.stdout.flush()  # here, where a reader that left is no error
        return code
    except BrokenPipeError:
        discard_stdout()
        return 0
    except (ValueError, OSError) as error:
        print(f"mma-mrnnet: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("mma-mrnnet: interrupted", file=sys.stderr)
        return 130


def _quieten_libraries() -> None:
    """The decoder and transformers speak through logging; a reader of results wants the one line that we print."""
    from transformers.utils import logging as transformers_logging

    logging.getLogger("mma_mrnnet").setLevel(logging.ERROR)
    logging.getLogger("huggingface_hub").setLevel(
        logging.CRITICAL
    )  # its retries; the last error is ours to tell
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def parser_of_commands() -> argparse.ArgumentParser:
    """Reads the words of every command."""
    parser = argparse.ArgumentParser(
        prog="mma-mrnnet",
        description="A video of a face in, the intensities of seven emotional reactions out.",
    )
    commands = parser.add_subparsers(dest="command", metavar="command")
    for name, command in COMMANDS.items():
        command.add(
            commands.add_parser(
                name,
                help=command.text,
                description=command.text,
                epilog=command.examples,
                formatter_class=argparse.RawDescriptionHelpFormatter,
            )
        )
    return parser
