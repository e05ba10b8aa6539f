"""A folder -> a repository on the Hugging Face Hub: a model, or a Space of static pages.

Uploading twice is uploading once: the Hub's client sends only what the Hub lacks and makes no empty commit. So whatever
went wrong, the same call goes on from there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import HfApi, RepoCard, get_token
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # not in its __all__

from osdtw_models import __version__
from osdtw_models.checksums import sha256
from osdtw_models.doors import first_line
from osdtw_models.hub import refusal
from osdtw_models.releases import CONFIG
from osdtw_models.saved_files import FAMILY

Kind = Literal["model", "space"]
PICKLES = (".bin", ".ckpt", ".joblib", ".pickle", ".pkl", ".pt", ".pth")
EMPTY = {".gitattributes", "README.md"}  # what a repository may hold before anything was published
# Made anew with the weights: a file of these that the folder lacks belongs to older ones.
DERIVED = ["onnx/*.onnx", "figures/*.png"]


@dataclass(frozen=True)
class Published:
    """What the Hub holds now.

    Args:
        url: Address of the repository.
        revision: Its newest commit.
        changed: Whether this upload made it.
    """

    url: str
    revision: str
    changed: bool


def upload(folder: Path, repo: str, kind: Kind = "model", private: bool = False) -> Published:
    """Upload a folder; the repository is made if there is none.

    Args:
        folder: The folder, with ``README.md``.
        repo: "org/name".
        kind: "model", or "space" for a folder of static pages.
        private: Whether only the organisation may see it; one that all can see already is not taken.

    Returns:
        What the Hub holds now.

    Raises:
        ValueError: If the folder cannot be one of that kind, or holds a pickle.
        FileExistsError: If the name is taken by something else.
        OSError: If the Hub cannot or will not; says why and what to do.
    """
    check_repo(repo)
    check_uploadable(folder, kind)
    api = HfApi(library_name="osdtw-models", library_version=__version__)
    sdk = "static" if kind == "space" else None
    with _told(repo):
        url = api.create_repo(repo, repo_type=kind, private=private or None, space_sdk=sdk, exist_ok=True)
        before = api.repo_info(repo, repo_type=kind)
    if private and not before.private:
        raise FileExistsError(
            f"{repo} exists and everybody can see it; make it private on the Hub, or leave --private."
        )
    _check_owner(api, repo, before, kind)
    with _told(repo):
        api.upload_folder(
            repo_id=repo,
            repo_type=kind,
            folder_path=folder,
            delete_patterns=DERIVED if kind == "model" else None,
            commit_message=f"Publish with osdtw-models {__version__}",
        )
        after = api.repo_info(repo, repo_type=kind, files_metadata=True)
    _check_arrived(folder, repo, after)
    return Published(str(url), str(after.sha), after.sha != before.sha)


def check_repo(repo: str) -> None:
    """Refuse what cannot be uploaded to, before any work is done.

    Args:
        repo: "org/name".

    Raises:
        ValueError: If the name has another form.
        PermissionError: If nobody is logged in.
    """
    check_name(repo)
    if not get_token():
        raise PermissionError(
            f"No token to write to {repo} with; log in with 'hf auth login', or set HF_TOKEN to one with write access."
        )


def check_name(repo: str) -> None:
    """Refuse a name that is not "org/name", or that the Hub does not allow."""
    if repo.count("/") != 1:
        raise ValueError(
            f"The repository is {repo!r}; give it as org/name, org being an organisation or your own name."
        )
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise ValueError(f"The repository is no name on the Hub: {first_line(error)}") from error


def check_uploadable(folder: Path, kind: Kind) -> None:
    """Refuse a folder that the Hub could not show, or that holds what runs code when it is opened.

    Args:
        folder: The folder.
        kind: What it is to be.

    Raises:
        FileNotFoundError: If there is no such folder, or it has no ``README.md``.
        ValueError: If it holds a pickle, or is no Space although it is to be one.
    """
    card = folder / "README.md"
    if not card.is_file():
        raise FileNotFoundError(f"{folder} has no README.md, which the Hub shows; give the folder that holds it.")
    pickles = [path for path in sorted(folder.rglob("*")) if path.suffix in PICKLES]
    if pickles:
        raise ValueError(f"{pickles[0]} may be a pickle, which can run code; publish safetensors and ONNX alone.")
    if kind == "space" and _sdk(card) != "static":
        raise ValueError(f"The header of {card} does not say 'sdk: static'; give a folder of static pages.")


def _sdk(card: Path) -> Any:
    """What a Space runs on, by the YAML at the top of its card."""
    try:
        return RepoCard(card.read_text(encoding="utf-8"), ignore_metadata_errors=True).data.get("sdk")
    except Exception as error:  # YAML has errors of its own
        raise ValueError(f"The header of {card} is not YAML; it must stand between two lines of '---'.") from error


def _check_owner(api: HfApi, repo: str, found: Any, kind: Kind) -> None:
    """Refuse a name that is taken by something else: its files would be overwritten."""
    names = {file.rfilename for file in found.siblings or []}
    if kind == "space":
        ours = found.sdk in (None, "static")
    elif CONFIG in names:
        with _told(repo):
            config = json.loads(Path(api.hf_hub_download(repo, CONFIG, revision=found.sha)).read_text(encoding="utf-8"))
        ours = str(config.get("architecture", "")).startswith(FAMILY) if isinstance(config, dict) else False
    else:
        ours = names <= EMPTY
    if not ours:
        raise FileExistsError(
            f"The name {repo} is taken by something else ({len(names)} files); choose another --repo."
        )


def _check_arrived(folder: Path, repo: str, found: Any) -> None:
    """Compare the Hub's list of files with the folder: names, and SHA-256 of the large ones."""
    there = {file.rfilename: file for file in found.siblings or []}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        large = there[name].lfs if name in there else None
        if name not in there or (large is not None and large.sha256 != sha256(path)):
            raise OSError(f"{name} did not arrive in {repo} as it was sent; publish again.")


@contextmanager
def _told(repo: str) -> Iterator[None]:
    """Turn what the Hub's client raises into one sentence."""
    try:
        yield
    except Exception as error:
        raise refusal(error, repo, "write to") from error
