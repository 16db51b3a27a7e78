"""Models on the Hugging Face Hub: from there, and to there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")
"""What models are called there: ``USER/NAME``."""


def fetch(name: str, file: str, commit: str | None = None) -> Path:
    """A file of a model on the Hub, where it is kept on this machine; what is here already is not fetched again.

    Args:
        name: ``USER/NAME``.
        file: The name of the file.
        commit: Of which commit, the name of the folder where others of its files are; None: the newest, or the last
            that was fetched where the Hub cannot be reached.

    Raises:
        ValueError: It is not there, or the Hub cannot be reached.
    """
    from huggingface_hub import hf_hub_download

    with _in_words(f"{name} cannot be fetched from the Hub"):
        return Path(hf_hub_download(name, file, revision=commit, library_name="snapvideo"))


def fetch_if_there(name: str, file: str, commit: str) -> Path | None:
    """As `fetch`; None where the model has no such file, or where the Hub cannot be reached and it is not here.

    Raises:
        ValueError: The Hub refuses it.
    """
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return fetch(name, file, commit)
    except ValueError as error:
        if isinstance(error.__cause__, EntryNotFoundError):
            return None
        raise


def fetch_folder(name: str, patterns: list[str]) -> Path:
    """The folder of a model's files that match, where they are kept on this machine; what is here is not fetched again.

    Without a network it is what was fetched before, which may be less than what matches.

    Args:
        name: ``USER/NAME``.
        patterns: Names of files, with ``*``.

    Raises:
        ValueError: It is not there, or the Hub cannot be reached and nothing of it is here.
    """
    from huggingface_hub import snapshot_download

    with _in_words(f"{name} cannot be fetched from the Hub"):
        return Path(snapshot_download(name, allow_patterns=patterns, library_name="snapvideo"))


def make_place(name: str, private: bool = False) -> None:
    """Make a place for a model on the Hub, unless it is there.

    Args:
        name: ``USER/NAME``.
        private: Whether others don't see it; of a place that is there already it is not changed.

    Raises:
        ValueError: There is no token, it has no right to, or the Hub cannot be reached.
    """
    from huggingface_hub import HfApi, get_token

    if get_token() is None:
        raise ValueError(
            f"{name} cannot be written on the Hub without a token: log in with `hf auth login`, or set HF_TOKEN, to a "
            "token with the right to write (https://huggingface.co/settings/tokens)"
        )
    with _in_words(f"{name} cannot be written on the Hub"):
        HfApi(library_name="snapvideo").create_repo(name, private=private or None, exist_ok=True)


def push(folder: Path, name: str) -> str:
    """Put the files of a folder into the place of a model on the Hub.

    Args:
        folder: The folder.
        name: ``USER/NAME``, of which there is a place (see `make_place`).

    Returns:
        The address of its page.

    Raises:
        ValueError: The token has no right to, or the Hub cannot be reached.
    """
    from huggingface_hub import HfApi

    api = HfApi(library_name="snapvideo")
    with _in_words(f"{folder} cannot be put into {name} on the Hub"):
        api.upload_folder(folder_path=folder, repo_id=name, commit_message="Export of snapvideo")
    return f"{api.endpoint}/{name}"


@contextmanager
def _in_words(what: str) -> Iterator[None]:
    """Errors of the Hub in words that say what to do."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        yield
    except HFValidationError as error:
        raise ValueError(f"{what}: {error}") from error
    except Exception as error:
        kinds = (*HfHubHTTPError.__bases__, RuntimeError)  # of its HTTP library, of files, of threads that send
        if not isinstance(error, kinds):
            raise
        raise ValueError(f"{what}: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    from huggingface_hub import constants, errors

    if isinstance(error, RuntimeError) and error.__cause__ is not None:
        return _reason(error.__cause__)
    if isinstance(error, errors.GatedRepoError):
        return "access has to be granted to you; ask for it on its page, and log in with `hf auth login`"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "there is no such model, or it is private and you are not logged in (`hf auth login`)"
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return "it has no such file"
    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        said = (error.server_message or str(error)).strip().splitlines()[0]
        if status in (401, 403):
            return f"your token has no right to ({said}); `hf auth login` with one that may write there"
        return f"it answered {status}: {said}"
    if constants.is_offline_mode():
        return "HF_HUB_OFFLINE is set, and it has not been fetched before"
    if isinstance(error, errors.LocalEntryNotFoundError):
        return "it cannot be reached, and the model has not been fetched before; is there a network?"
    return f"it cannot be reached ({error or type(error).__name__}); is there a network?"
