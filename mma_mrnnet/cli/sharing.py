"""`mma-mrnnet export` and `push`: write a folder for the Hub, and upload it."""

import logging
import sys
from typing import Annotated, Literal

import typer

from mma_mrnnet.cli.options import option, silence_transformers

EXPORT_EXAMPLES = """examples:
  mma-mrnnet export runs/mrnn/model my-model               # mma-mrnnet push does both steps
  mma-mrnnet export runs/mrnn/model my-onnx --format onnx  # a folder that needs no PyTorch
  mma-mrnnet export runs/mrnn/model runs/mrnn/model --format onnx  # adds the files to it"""

PUSH_EXAMPLES = """examples (after `hf auth login`, or with HF_TOKEN set):
  mma-mrnnet push runs/mrnn/model me/my-model --private
  mma-mrnnet push runs/mrnn/model me/my-model --revision longer-clips --message "T = 60" """

Checkpoint = Annotated[
    str, typer.Argument(metavar="CHECKPOINT", help="A trained checkpoint, such as runs/mrnn/model.")
]


def export_checkpoint(
    checkpoint: Checkpoint,
    folder: Annotated[
        str,
        typer.Argument(
            metavar="FOLDER",
            help="Where to write; must not exist, or be empty; for onnx also CHECKPOINT.",
        ),
    ],
    format: Annotated[  # noqa: A002 - the name of the option
        Literal["hub", "onnx"],
        option("KIND", "hub: a folder for the Hub; onnx: models that run without PyTorch."),
    ] = "hub",
) -> int:
    """Write a folder for the Hub: weights, config, processor, code and card; or ONNX models."""
    silence_transformers()
    if format == "onnx":
        from mma_mrnnet.hub.onnx import export_onnx as export
    else:
        from mma_mrnnet.hub.export import export_checkpoint as export

    files = list((written := export(checkpoint, folder)).iterdir())
    size = sum(path.stat().st_size for path in files)
    print(f"wrote {written}: {len(files)} files, {size / 1e6:.1f} MB")
    return 0


def push_checkpoint(
    checkpoint: Checkpoint,
    repository: Annotated[
        str,
        typer.Argument(
            metavar="REPOSITORY", help="namespace/name on the Hub; created if it does not exist."
        ),
    ],
    private: Annotated[
        bool,
        typer.Option("--private", help="Make it private; refused if it exists and is public."),
    ] = False,
    revision: Annotated[
        str | None, option("BRANCH", "A branch; created if it does not exist. Default: main.")
    ] = None,
    message: Annotated[str | None, option("TEXT", "Title of the commit.")] = None,
    create_pr: Annotated[
        bool,
        typer.Option(
            "--create-pr", help="Open a pull request, also on a repository that is not yours."
        ),
    ] = False,
) -> int:
    """Upload a checkpoint to the Hub as export writes it, in one commit."""
    from huggingface_hub.utils import enable_progress_bars

    from mma_mrnnet.hub.push import publish_checkpoint

    silence_transformers()
    # Its warnings give the reason and length of a wait.
    logging.getLogger("mma_mrnnet.hub.push").setLevel(logging.WARNING)
    if sys.stderr.isatty():
        enable_progress_bars()
    done = publish_checkpoint(
        checkpoint,
        repository,
        private=private,
        revision=revision,
        message=message,
        create_pr=create_pr,
    )
    if not done.changed:
        print(f"{done.url} holds exactly this already; nothing was committed")
        return 0
    access = "private" if done.private else "public"
    print(
        f"pushed to {done.url} ({access}): {done.files} files, {done.size / 1e6:.1f} MB, "
        f"commit {done.commit[:8]}"
    )
    if done.removed:
        print(f"removed, as no longer part of it: {', '.join(done.removed)}")
    return 0
