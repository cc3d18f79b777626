"""Classify Hub errors: transient or not, with a reason; looks through wrapped exceptions."""

import json
import os
from collections.abc import Iterator

from huggingface_hub import constants, get_token
from huggingface_hub.errors import (
    DisabledRepoError,
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

PASSING_STATUS = frozenset({408, 429, 500, 502, 503, 504})
"""Status codes that are worth another try; huggingface_hub retries the same ones."""


def is_transient(error: BaseException) -> bool:
    """Return whether the Hub or the connection failed, so that a retry may succeed."""
    # The card check parses a response as JSON before its status; a broken
    # Hub sends a page.
    garbled = isinstance(error, json.JSONDecodeError)
    return garbled or _unconnected(error) or _status(error) in PASSING_STATUS


def explain_error(error: BaseException) -> str | None:
    """Return why the Hub refused and what helps; None if the error is not from the Hub."""
    status, said = _status(error), _server_message(error)
    if constants.is_offline_mode():
        missing = any(
            isinstance(each, LocalEntryNotFoundError | OfflineModeIsEnabled)
            for each in _chain(error)
        )
        return (
            "HF_HUB_OFFLINE is set, and it is not in the cache; unset it to download"
            if missing
            else None
        )
    by_kind = {
        GatedRepoError: f"gated ({said}); ask for access on the repository's page, "
        "and log in (`hf auth login`)",
        DisabledRepoError: "the Hub has disabled this repository",
        RevisionNotFoundError: f"no such branch, tag or commit ({said})",
        RepositoryNotFoundError: "no such repository, or a private one that your token may not see"
        if get_token()
        else "no such repository, or a private one (then `hf auth login`, or set HF_TOKEN)",
    }
    for kind, text in by_kind.items():
        if any(isinstance(each, kind) for each in _chain(error)):
            return text
    by_status = {
        401: "the Hub does not accept your token (revoked or expired?); "
        f"get a new one{_source_of_token()}",
        403: f"your token has no right to do that ({said}); take one that has",
        412: "somebody else has committed meanwhile; look at what is there now, and try again",
        429: "too many requests (429); try again later",
    }
    if status in by_status:
        return by_status[status]
    if is_transient(error):
        return f"{describe_trouble(error)}; try again later"
    if status is None or isinstance(_answer(error), RemoteEntryNotFoundError):
        return None
    return f"the Hub refused it ({status}): {said}"


def describe_trouble(error: BaseException) -> str:
    """Describe a transient error of the Hub or the connection."""
    status = _status(error)
    if status is not None:
        return (
            "too many requests (429)"
            if status == 429
            else f"the Hub is out of order (it answered {status})"
        )
    if _unconnected(error):
        first = [each for each in _chain(error) if isinstance(each, HTTPError)][-1]
        cause = shorten(first) or type(first).__name__
        return f"no connection to {constants.ENDPOINT}, or it broke ({cause})"
    return "the Hub is out of order (its answer made no sense)"


def shorten(text: object) -> str:
    """Return a text on one line, of at most 300 characters."""
    return " ".join(str(text).split())[:300]


def _source_of_token() -> str:
    if os.environ.get("HF_TOKEN"):
        return " and put it into HF_TOKEN, which goes before what `hf auth login` stored"
    return " by `hf auth login`"


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and its causes."""
    for _ in range(20):  # a chain may be cyclic
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__


def _answer(error: BaseException) -> HfHubHTTPError | None:
    """Return the error that holds the Hub's response, or None."""
    return next((each for each in _chain(error) if isinstance(each, HfHubHTTPError)), None)


def _status(error: BaseException) -> int | None:
    answer = _answer(error)
    return None if answer is None else answer.response.status_code


def _server_message(error: BaseException) -> str:
    answer = _answer(error)
    return shorten((answer.server_message if answer else None) or error)


def _unconnected(error: BaseException) -> bool:
    """Return whether no complete response arrived."""
    return _answer(error) is None and any(isinstance(each, HTTPError) for each in _chain(error))
