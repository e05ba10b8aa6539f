"""The Hugging Face Hub, from this side: files fetched and checked, and its many ways to say no in one sentence each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from osdtw_models.checksums import sha256
from osdtw_models.doors import first_line
from osdtw_models.releases import CONFIG, WEIGHTS, records


def fetch(repository: str, cache_dir: str | Path | None = None) -> Path:
    """Fetch configuration and weights of a repository, both of one revision, and nothing else.

    What is in the cache already needs no network. No other weight file is asked for, and the weights are those that
    the Hub announced and, at the revision of a release, those that were released.

    Args:
        repository: "org/name" or "org/name@revision".
        cache_dir: Where files are kept; the Hub's own place by default.

    Returns:
        The folder with both files; one that the repository lacks is missing there, too.

    Raises:
        OSError: If they cannot be had; says why and what to do.
    """
    name, _, revision = repository.partition("@")
    try:
        folder = Path(
            snapshot_download(name, revision=revision or None, allow_patterns=[CONFIG, WEIGHTS], cache_dir=cache_dir)
        )
    except Exception as error:  # no network, no such repository, no access, no such name
        told: OSError = refusal(error, f"hf-hub:{repository}", "read")
        raise told from error
    if (folder / WEIGHTS).is_file():
        _check_sha256(folder / WEIGHTS, repository)
    return folder


def refusal(error: BaseException, repository: str, right: str) -> OSError:
    """What the Hub's client raised, as one sentence that says what to do.

    Args:
        error: The client's error; what caused it is looked at, too.
        repository: What was asked for, for the sentence.
        right: What was to be done with it: "read" or "write to".

    Returns:
        The error to raise instead.
    """
    repository = " ".join(repository.split())  # a bad name may have lines, a sentence has none
    for cause in _causes(error):
        if isinstance(cause, OfflineModeIsEnabled):
            missing = f" is not in the cache ({constants.HF_HUB_CACHE}), and" if right == "read" else ":"
            return FileNotFoundError(
                f"{repository}{missing} HF_HUB_OFFLINE forbids the network; unset it, or take a folder on disk."
            )
        if isinstance(cause, RevisionNotFoundError):
            return FileNotFoundError(f"{repository} has no such revision; give a branch, a tag or a commit of it.")
        if isinstance(cause, RepositoryNotFoundError):
            return FileNotFoundError(
                f"There is no {repository} on the Hub, or it is private; check the name, or run 'hf auth login'."
            )
        if isinstance(cause, HfHubHTTPError) and cause.response is not None:
            return _refused(cause.response.status_code, cause, repository, right)
        if isinstance(cause, HFValidationError):
            return FileNotFoundError(f"{repository} is no name on the Hub: {' '.join(str(cause).split())}")
        if isinstance(cause, ConnectionError | TimeoutError) or type(cause).__module__.startswith("httpx"):
            return ConnectionError(
                f"The Hub ({constants.ENDPOINT}) cannot be reached, or the connection was cut ({first_line(cause)}); "
                f"check the network and try {repository} again: it goes on where it stopped."
            )
    return OSError(
        f"The Hub's client gave up on {repository} ({first_line(error)}); try again: it goes on where it stopped."
    )


def _refused(status: int, error: BaseException, repository: str, right: str) -> OSError:
    """The sentence for an answer of the Hub."""
    again = "try again later: it goes on where it stopped."
    if status == 401:
        return PermissionError(
            f"The Hub does not accept the token for {repository}; log in again with 'hf auth login', or set HF_TOKEN."
        )
    if status == 403:
        return PermissionError(
            f"The token has no right to {right} {repository}; take one that has it, or ask the owner for the right."
        )
    if status == 409:
        return FileExistsError(f"Somebody else is changing {repository} at the moment (409); {again}")
    if status == 429:
        return ConnectionError(f"The Hub has had too many requests from here (429), {repository} not done; {again}")
    if status >= 500:
        return ConnectionError(f"The Hub itself has trouble ({status}), {repository} not done; {again}")
    return OSError(f"The Hub refuses {repository} ({first_line(error)}); check the name and what the token may do.")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and what led to it."""
    while error is not None:
        yield error
        error = error.__cause__


def _check_sha256(weights: Path, repository: str) -> None:
    """Refuse weights that are not the announced or released ones, and remove them: the client checks sizes only."""
    name, _, _ = repository.partition("@")
    kept = weights.resolve()  # the cache keeps large files under their SHA-256
    expected = {kept.name} if len(kept.name) == 64 else set()
    expected |= {known.sha256 for known in records() if known.pinned == f"{name}@{weights.parent.name}"}
    found = sha256(kept)
    if expected - {found}:
        for path in {weights, kept}:
            path.unlink()
        raise OSError(
            f"{WEIGHTS} of hf-hub:{repository} is not the announced file (its SHA-256 is {found[:12]}..., not "
            f"{min(expected - {found})[:12]}...) and was removed from the cache; fetch it again."
        )
