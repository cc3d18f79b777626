"""A checkpoint onto the Hub: exported, and sent as one commit, so that a repository never holds half of it."""

import dataclasses
import json
import logging
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    ModelCard,
    ModelInfo,
    constants,
    get_token,
)
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

from mma_mrnnet.hub.cards import RESULT_FILES
from mma_mrnnet.hub.errors import describe_trouble, explain_error, is_transient, shorten
from mma_mrnnet.hub.export import PIPELINE_FILE, export_checkpoint

logger = logging.getLogger(__name__)
Result = TypeVar("Result")

WAITS_S = (1, 2, 4, 8)
"""Between tries of what huggingface_hub asks once only: repositories, branches, the card's check, the commit."""
FROM_THE_FORM = frozenset({".gitattributes", "README.md"})
"""What the Hub's form for a new repository leaves in it: no reason to refuse one."""


class PublishError(OSError):
    """A push that did not happen; the message says why, what to do, and what is on the Hub now."""


@dataclasses.dataclass(frozen=True)
class Published:
    """Where a checkpoint went.

    Attributes:
        repo_id: with its namespace.
        url: what a browser opens.
        commit: the hash of the commit that holds it.
        files: how many it consists of.
        size: of these together, in bytes.
        removed: names of files of an earlier push that belong to it no longer.
        private: whether others are kept out.
        changed: False where the repository held exactly this already.
    """

    repo_id: str
    url: str
    commit: str
    files: int
    size: int
    removed: tuple[str, ...]
    private: bool
    changed: bool


@dataclasses.dataclass
class _State:
    """How far a push came, for what its error has to say."""

    created: bool = False
    sent: bool = False


class _ExhaustedError(Exception):
    """Wraps an error on which huggingface_hub has waited and tried again itself, several times."""


def publish_checkpoint(
    source: str | os.PathLike[str],
    repo_id: str,
    *,
    private: bool = False,
    revision: str | None = None,
    message: str | None = None,
) -> Published:
    """Exports a checkpoint (`hub.export_checkpoint`) and makes it a model repository's content, by one commit.

    The repository is made where there is none. Files of an earlier push that no longer belong to the export go by the
    same commit; whatever else lies there stays. It can be called again after any failure.

    Args:
        source: a stage-1 or stage-2 checkpoint, such as `runs/mrnn/model`.
        repo_id: `namespace/name`, or a name alone in one's own namespace.
        private: of a repository that is made by this; one that is there must be private already.
        revision: a branch, made from `main` where there is none.
        message: the commit's title.

    Raises:
        CheckpointError: the source cannot be loaded.
        PublishError: it was not uploaded: no (valid) token, no right to write, a name that the Hub does not accept, a
            repository that holds something else, no connection, a Hub out of order.
    """
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise PublishError(
            f"{repo_id!r} cannot be a repository's name: {shorten(error)}"
        ) from error
    if constants.is_offline_mode():
        raise PublishError(
            f"{repo_id}: HF_HUB_OFFLINE is set, so nothing was sent; unset it to push"
        )
    if get_token() is None:
        raise PublishError(
            f"{repo_id}: not logged in; run `hf auth login`, or set HF_TOKEN to a token that may write"
        )
    with tempfile.TemporaryDirectory(prefix="mma-mrnnet-push-") as scratch:
        folder = export_checkpoint(source, Path(scratch) / "export")
        state = _State()
        with _explained(repo_id, state):
            return _push(
                folder,
                repo_id,
                private,
                revision,
                message or f"Upload {_model_type(folder)} model",
                state,
            )


def _push(
    folder: Path, repo_id: str, private: bool, revision: str | None, message: str, state: _State
) -> Published:
    api = HfApi(library_name="mma_mrnnet")
    if "/" not in repo_id:
        repo_id = f"{_patiently(api.whoami)['name']}/{repo_id}"  # a name alone could be read as one of the old ones
    found = _patiently(lambda: _look(api, repo_id, revision))
    if found is None:
        _patiently(lambda: api.create_repo(repo_id, private=private or None, exist_ok=True))
        state.created = True
    else:
        _refuse_what_is_not_ours(api, found, folder, private)
    if revision is not None and not revision.startswith("refs/"):
        _patiently(lambda: api.create_branch(repo_id, branch=revision, exist_ok=True))

    def commit() -> Published:
        # Looked at again: after an answer that was lost, this finds the commit made, and has nothing left to do.
        head = api.model_info(repo_id, revision=revision)
        _refuse_what_is_not_ours(api, head, folder, private)
        made = _commit(api, head, folder, revision, message, state)
        return dataclasses.replace(made, changed=found is None or made.commit != found.sha)

    return _patiently(commit)


def _commit(
    api: HfApi, head: ModelInfo, folder: Path, revision: str | None, message: str, state: _State
) -> Published:
    paths = sorted(folder.iterdir())
    removed = sorted(_names(head) & _names_of_pushes(head, folder) - {path.name for path in paths})
    additions = [CommitOperationAdd(path_in_repo=path.name, path_or_fileobj=path) for path in paths]
    ModelCard.load(folder / "README.md").validate()
    try:
        api.preupload_lfs_files(head.id, additions, revision=revision, free_memory=False)
    except Exception as error:
        raise _ExhaustedError(str(error)) from error
    state.sent = True
    made = api.create_commit(
        head.id,
        [*additions, *(CommitOperationDelete(path_in_repo=name) for name in removed)],
        commit_message=message,
        revision=revision,
        parent_commit=head.sha,
    )
    return Published(
        repo_id=head.id,
        url=f"{api.endpoint}/{head.id}" + (f"/tree/{revision}" if revision else ""),
        commit=made.oid,
        files=len(paths),
        size=sum(path.stat().st_size for path in paths),
        removed=tuple(removed),
        private=bool(head.private),
        changed=made.oid != head.sha,
    )


def _look(api: HfApi, repo_id: str, revision: str | None) -> ModelInfo | None:
    """The repository at a branch, or at the one that it will start from; None where there is no repository."""
    try:
        return api.model_info(repo_id, revision=revision)
    except RevisionNotFoundError:
        return api.model_info(repo_id)
    except GatedRepoError:
        raise
    except RepositoryNotFoundError:
        return None


def _refuse_what_is_not_ours(api: HfApi, found: ModelInfo, folder: Path, private: bool) -> None:
    """Raises where a push would publish what was to be private, or write over something else."""
    where = f"{api.endpoint}/{found.id}"
    if private and not found.private:
        raise PublishError(
            f"{found.id}: exists and is public, and --private asks for a private one; nothing was uploaded; make it "
            f"private at {where}/settings, or choose another name"
        )
    if _names(found) <= FROM_THE_FORM:
        return
    theirs = None
    if "config.json" in _names(found):
        with tempfile.TemporaryDirectory(prefix="mma-mrnnet-push-") as cache:
            theirs = _model_type(
                Path(
                    api.hf_hub_download(
                        found.id, "config.json", revision=found.sha, local_dir=cache
                    )
                ).parent
            )
    ours = _model_type(folder)
    if theirs != ours:
        holds = "files but no model of ours" if theirs is None else f"a model of type {theirs!r}"
        raise PublishError(
            f"{found.id}: holds {holds}, and this checkpoint is of type {ours!r}; nothing was uploaded; choose another "
            f"name, or empty that repository first ({where})"
        )


def _names(found: ModelInfo) -> set[str]:
    return {sibling.rfilename for sibling in found.siblings or ()}


def _names_of_pushes(found: ModelInfo, folder: Path) -> set[str]:
    """Names that an export can have: what may be removed, other than what people put beside it."""
    weights = re.compile(r"model(-\d+-of-\d+)?\.safetensors(\.index\.json)?")
    code = {
        PIPELINE_FILE,
        *(path.name for path in Path(__file__).parents[1].joinpath("model").glob("*.py")),
    }
    processors = {
        "preprocessor_config.json",
        "video_preprocessor_config.json",
        "processor_config.json",
    }
    return {*code, *processors, *RESULT_FILES} | {
        name for name in _names(found) if weights.fullmatch(name)
    }


def _model_type(folder: Path) -> str | None:
    """What `config.json` says; None where it says nothing."""
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
    except ValueError:
        return None
    return config.get("model_type") if isinstance(config, dict) else None


def _patiently(ask: Callable[[], Result]) -> Result:
    """What `ask` gives, which is called again, after a while, where the Hub or the line to it fails for a moment."""
    for wait in WAITS_S:
        try:
            return ask()
        except Exception as error:
            if isinstance(error, _ExhaustedError) or not is_transient(error):
                raise
            logger.warning("%s; trying again in %d s", describe_trouble(error), wait)
            time.sleep(wait)
    return ask()


@contextmanager
def _explained(repo_id: str, state: _State) -> Iterator[None]:
    """Turns what the client raises into one `PublishError` line: why, what to do, and what is on the Hub now."""
    try:
        yield
    except PublishError:
        raise
    except Exception as error:
        if is_transient(error) and state.sent:
            left = (
                "whether the commit arrived is not known; pushing again finds out, and does no harm"
            )
        elif state.created:
            left = "the repository was made, and is empty so far; push again"
        else:
            left = "nothing was uploaded"
        raise PublishError(
            f"{repo_id}: {explain_error(error) or shorten(error)}; {left}"
        ) from error
