"""onnxruntime-web: fetched once from npm, held against pinned digests, kept for builds without network.

Nothing of the package is executed here, and nothing but three files of known content leaves it.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from osdtw_models.doors import first_line
from osdtw_models.files import write_bytes

VERSION = "1.30.0"
PACKAGE = f"onnxruntime-web@{VERSION}"
# As `npm view onnxruntime-web@1.30.0 dist.integrity` tells it; to move on, change the version and all digests.
INTEGRITY = "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
FILES = {  # name: SHA-256
    "ort.wasm.min.mjs": "219e6a1fc8a9938268d18efca3c91d310bd2f4a59bbd13744df5b2b7fc6cee3b",
    "ort-wasm-simd-threaded.mjs": "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b",
    "ort-wasm-simd-threaded.wasm": "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
SECONDS = 300  # for 33 MB


def runtime_files(given: Path | None = None) -> dict[str, bytes]:
    """The runtime's files by name.

    Args:
        given: A folder with these files (the package's ``dist``), or the package as npm packs it; by default those
            kept from an earlier call, else npm's.

    Returns:
        Their content, as pinned.

    Raises:
        ValueError: If a file is not the pinned one.
        FileNotFoundError: If there is no such folder or file, or neither network nor npm.
    """
    if given is None:
        kept = cache_folder()
        try:
            return _from_folder(kept)
        except (FileNotFoundError, ValueError):  # not there yet, or damaged
            files = unpacked(_fetched())
        for name, content in files.items():
            write_bytes(kept / name, content)
        return files
    if given.is_dir():
        return _from_folder(given)
    if not given.is_file():
        raise FileNotFoundError(f"There is no runtime {given}; give a folder with {', '.join(FILES)}.")
    return unpacked(given.read_bytes())


def cache_folder() -> Path:
    """Where the files are kept between builds."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "osdtw" / PACKAGE


def unpacked(archive: bytes) -> dict[str, bytes]:
    """The three files out of npm's archive, which is not opened before its digest is right.

    Args:
        archive: The package as npm packs it.

    Returns:
        Their content by name.

    Raises:
        ValueError: If it is another archive.
    """
    found = "sha512-" + base64.b64encode(hashlib.sha512(archive).digest()).decode()
    if found != INTEGRITY:
        raise ValueError(
            f"This is not {PACKAGE} as it was when this version was tested (its SHA-512 differs); get it again with "
            f"npm pack {PACKAGE}."
        )
    files = {}
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as members:
        for name in FILES:
            member = members.extractfile(f"package/dist/{name}")
            files[name] = _checked(name, member.read() if member else b"", PACKAGE)
    return files


def _from_folder(folder: Path) -> dict[str, bytes]:
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"{folder} has no {missing[0]}; give the folder 'dist' of the npm package {PACKAGE}, or its .tgz file."
        )
    return {name: _checked(name, (folder / name).read_bytes(), str(folder)) for name in FILES}


def _checked(name: str, content: bytes, origin: str) -> bytes:
    if hashlib.sha256(content).hexdigest() != FILES[name]:
        raise ValueError(f"{name} of {origin} is not that of {PACKAGE} (its SHA-256 differs); get it again from npm.")
    return content


def _fetched() -> bytes:
    """The package from the registry that npm is set up for; no script of it runs."""
    by_hand = f"get the package {PACKAGE} elsewhere (npm pack {PACKAGE}) and give the .tgz file with --runtime"
    npm = shutil.which("npm")
    if not npm:
        raise FileNotFoundError(
            f"The page needs ONNX Runtime for browsers and npm is not installed; install Node.js, or {by_hand}."
        )
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", "--ignore-scripts", "--silent", PACKAGE]
        try:
            subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=SECONDS)
            return next(Path(folder).glob("*.tgz")).read_bytes()
        except (subprocess.SubprocessError, StopIteration) as error:
            said = ValueError(getattr(error, "stderr", None) or str(error))
            raise FileNotFoundError(f"npm could not fetch {PACKAGE} ({first_line(said)}); {by_hand}.") from error
