"""Every packaged checkpoint -> the Hub, under one organisation: what ``make release`` runs.

Afterwards each folder of ``osdtw_models/weights/`` holds ``hub.json``: repository, commit and SHA-256 of the weights.
Commit these files: from then on timm's names carry them, and weights fetched at that commit must be those.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from osdtw_export.publish import assembled, keep
from osdtw_export.upload import Published, check_repo, upload
from osdtw_models.checksums import sha256
from osdtw_models.doors import Parser, run_door
from osdtw_models.files import write_text
from osdtw_models.releases import RECORD, RELEASES, WEIGHTS, Record

ORGANISATION = "osdtw"


def main(argv: Sequence[str] | None = None) -> int:
    """Publish all releases, or write their folders.

    Args:
        argv: Arguments; those of the command line by default.

    Returns:
        Exit code, as `osdtw_models.doors.run_door` gives it.
    """
    return run_door("release", _release, argv)


def _release(arguments: list[str]) -> None:
    parser = Parser("python -m osdtw_export.release", "Publish every packaged checkpoint on the Hugging Face Hub.")
    parser.add_argument("--dry-run", type=Path, metavar="DIR", help="write the folders below DIR, upload nothing")
    options = parser.parse_args(arguments)
    for release in sorted(file.parent.name for file in RELEASES.glob(f"*/{WEIGHTS}")):
        repo = f"{ORGANISATION}/{release}"
        if options.dry_run is None:
            check_repo(repo)
        with assembled(release, repo) as (folder, _):
            if options.dry_run is None:
                print(f"{release}: {note(release, folder, repo, upload(folder, repo))}")
            else:
                keep(folder, options.dry_run / release)
                print(f"{release}: wrote {options.dry_run / release}")


def note(release: str, folder: Path, repo: str, published: Published) -> str:
    """Write down where a release was published.

    Args:
        release: Its name.
        folder: What was uploaded.
        repo: Where to.
        published: What the Hub holds now.

    Returns:
        What was done, in words.
    """
    known = Record(repo, published.revision, sha256(folder / WEIGHTS))
    path = RELEASES / release / RECORD
    write_text(path, json.dumps(known._asdict(), indent=2) + "\n")
    return f"{published.url} is at {published.revision}; commit {path}"


if __name__ == "__main__":
    sys.exit(main())
