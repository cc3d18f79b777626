"""Export a checkpoint and push it to the Hub as one atomic commit.

Not by `HfApi.upload_folder`: its errors do not tell a failed upload from a commit with a lost
response, and its delete patterns would remove other people's files. `http_backoff` retries
URLs, not the calls of `HfApi`.
"""

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
"""Waits between tries of calls that huggingface_hub does not retry itself."""
FILES_OF_A_NEW_REPOSITORY = frozenset({".gitattributes", "README.md"})


class PublishError(OSError):
    """A failed push; the message says why, what to do, and what is on the Hub now."""


@dataclasses.dataclass(frozen=True)
class Published:
    """A finished push.

    `files` is the number of files, `size` their bytes. `removed` names files of an earlier push.
    `changed` is False if the repository already held exactly these files.
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
    """Progress of a push, for error messages."""

    created: bool = False
    sent: bool = False


class _ExhaustedError(Exception):
    """Wraps an error after huggingface_hub's own retries."""


def publish_checkpoint(
    source: str | os.PathLike[str],
    repo_id: str,
    *,
    private: bool = False,
    revision: str | None = None,
    message: str | None = None,
    create_pr: bool = False,
) -> Published:
    """Export a checkpoint and push it to a model repository in one commit.

    Creates the repository if needed. The commit also removes files of an earlier push that
    are no longer exported; other files stay. A failed call can be repeated.

    Args:
        source: a stage-1 or stage-2 checkpoint, such as `runs/mrnn/model`.
        repo_id: `namespace/name`, or a name in your own namespace.
        private: create a private repository; an existing one must be private.
        revision: a branch, created from `main` if needed.
        message: title of the commit.
        create_pr: open a pull request with the commit, which the owners of an existing
            repository can merge; needs no right to write. Its address becomes `url`.

    Raises:
        ValueError: both `revision` and `create_pr`.
        CheckpointError: the source cannot be loaded.
        PublishError: the push failed: no valid token, no write access, an invalid name, a
            repository with other contents, no connection, or a failure of the Hub.
    """
    if revision is not None and create_pr:
        raise ValueError(f"a pull request is made for main; got a revision too: {revision!r}")
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
            f"{repo_id}: not logged in; run `hf auth login`, "
            "or set HF_TOKEN to a token that may write"
        )
    with tempfile.TemporaryDirectory(prefix="mma-mrnnet-push-") as scratch:
        folder = export_checkpoint(source, Path(scratch) / "export")
        state = _State()
        with _one_line_errors(repo_id, state):
            return _push(
                folder,
                repo_id,
                private,
                revision,
                message or f"Upload {_model_type(folder)} model",
                create_pr,
                state,
            )


def _push(
    folder: Path,
    repo_id: str,
    private: bool,
    revision: str | None,
    message: str,
    create_pr: bool,
    state: _State,
) -> Published:
    api = HfApi(library_name="mma_mrnnet")
    if "/" not in repo_id:
        # Without a namespace, the Hub may match an old repository of that name.
        repo_id = f"{_retry(api.whoami)['name']}/{repo_id}"
    found = _retry(lambda: _look(api, repo_id, revision))
    if found is None and create_pr:
        raise PublishError(
            f"{repo_id}: no such repository that you may read, so no pull request; nothing was "
            "uploaded"
        )
    if found is None:
        _retry(lambda: api.create_repo(repo_id, private=private or None, exist_ok=True))
        state.created = True
    else:
        _check_repository(api, found, folder, private)
    if revision is not None and not revision.startswith("refs/"):
        _retry(lambda: api.create_branch(repo_id, branch=revision, exist_ok=True))

    def commit() -> Published:
        # Look again: after a lost response the commit may already exist.
        head = api.model_info(repo_id, revision=revision)
        _check_repository(api, head, folder, private)
        made = _commit(api, head, folder, revision, message, create_pr, state)
        return dataclasses.replace(made, changed=found is None or made.commit != found.sha)

    # A second try after a lost response would open a second pull request.
    return commit() if create_pr else _retry(commit)


def _commit(
    api: HfApi,
    head: ModelInfo,
    folder: Path,
    revision: str | None,
    message: str,
    create_pr: bool,
    state: _State,
) -> Published:
    paths = sorted(folder.iterdir())
    kept = {path.name for path in paths}
    removed = sorted(_names(head) & _names_of_exports(head, folder) - kept)
    additions = [CommitOperationAdd(path_in_repo=path.name, path_or_fileobj=path) for path in paths]
    ModelCard.load(folder / "README.md").validate()
    try:
        api.preupload_lfs_files(
            head.id, additions, revision=revision, free_memory=False, create_pr=create_pr
        )
    except Exception as error:
        raise _ExhaustedError(str(error)) from error
    state.sent = True
    made = api.create_commit(
        head.id,
        [*additions, *(CommitOperationDelete(path_in_repo=name) for name in removed)],
        commit_message=message,
        revision=revision,
        parent_commit=head.sha,
        create_pr=create_pr,
    )
    return Published(
        repo_id=head.id,
        url=made.pr_url or f"{api.endpoint}/{head.id}" + (f"/tree/{revision}" if revision else ""),
        commit=made.oid,
        files=len(paths),
        size=sum(path.stat().st_size for path in paths),
        removed=tuple(removed),
        private=bool(head.private),
        changed=made.oid != head.sha,
    )


def _look(api: HfApi, repo_id: str, revision: str | None) -> ModelInfo | None:
    """Return the repository at the branch, or at `main`; None if there is no repository."""
    try:
        return api.model_info(repo_id, revision=revision)
    except RevisionNotFoundError:
        return api.model_info(repo_id)
    except GatedRepoError:
        raise
    except RepositoryNotFoundError:
        return None


def _check_repository(api: HfApi, found: ModelInfo, folder: Path, private: bool) -> None:
    """Raise PublishError if the repository must be private and is not, or has other contents."""
    where = f"{api.endpoint}/{found.id}"
    if private and not found.private:
        raise PublishError(
            f"{found.id}: exists and is public, and --private asks for a private one; nothing was "
            f"uploaded; make it private at {where}/settings, or choose another name"
        )
    if _names(found) <= FILES_OF_A_NEW_REPOSITORY:
        return
    theirs = None
    if "config.json" in _names(found):
        with tempfile.TemporaryDirectory(prefix="mma-mrnnet-push-") as cache:
            api.hf_hub_download(found.id, "config.json", revision=found.sha, local_dir=cache)
            theirs = _model_type(Path(cache))
    ours = _model_type(folder)
    if theirs != ours:
        holds = "files but no model of ours" if theirs is None else f"a model of type {theirs!r}"
        raise PublishError(
            f"{found.id}: holds {holds}, and this checkpoint is of type {ours!r}; nothing was "
            f"uploaded; choose another name, or empty that repository first ({where})"
        )


def _names(found: ModelInfo) -> set[str]:
    return {sibling.rfilename for sibling in found.siblings or ()}


def _names_of_exports(found: ModelInfo, folder: Path) -> set[str]:
    """Return the file names of exports, which a later push may remove."""
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
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
    except ValueError:
        return None
    return config.get("model_type") if isinstance(config, dict) else None


def _retry(ask: Callable[[], Result]) -> Result:
    """Retry `ask` after transient errors, with the waits of `WAITS_S`."""
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
def _one_line_errors(repo_id: str, state: _State) -> Iterator[None]:
    """Turn the client's errors into a one-line `PublishError`."""
    try:
        yield
    except PublishError:
        raise
    except Exception as error:
        if is_transient(error) and state.sent:
            left = "it is not known whether the commit arrived; push again to find out"
        elif state.created:
            left = "the repository was made, and is empty so far; push again"
        else:
            left = "nothing was uploaded"
        raise PublishError(
            f"{repo_id}: {explain_error(error) or shorten(error)}; {left}"
        ) from error
