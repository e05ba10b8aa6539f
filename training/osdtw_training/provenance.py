"""Where a run's numbers come from: machine, versions, commit, day."""

from __future__ import annotations

import platform
import subprocess
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from osdtw_training.distributed import processes
from osdtw_training.recipe import Recipe


def provenance(recipe: Recipe) -> dict[str, Any]:
    """What a run depends on besides its recipe.

    Args:
        recipe: Says what was asked of the hardware.

    Returns:
        For ``results.json``: hardware, versions, commit (None outside a git checkout) and date.
    """
    return {
        "hardware": {
            "processor": processor(),
            "processes": processes(),
            "threads": recipe.threads,
            "device": recipe.device,
            "amp": recipe.amp,
        },
        "versions": {name: version(name) for name in ("torch", "timm", "numpy")},
        "commit": commit(Path(__file__).parent),
        "date": time.strftime("%Y-%m-%d"),
    }


def processor() -> str:
    """Name of this machine's processor."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def commit(folder: Path) -> str | None:
    """The commit that a folder of this project is checked out at, "+" behind it where code was changed since.

    Args:
        folder: A folder inside the checkout.

    Returns:
        The short hash; None where the folder is in no checkout (an installed package), or git is not there.
    """

    def git(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=False)

    try:
        # An installed package may lie inside somebody else's checkout, which says nothing about it.
        if git("ls-files", "--error-unmatch", "provenance.py").returncode:
            return None
        changed = git("diff", "--quiet", "HEAD", "--", ":(top)*.py").returncode
        return git("rev-parse", "--short=8", "HEAD").stdout.strip() + ("+" if changed else "")
    except OSError:
        return None
