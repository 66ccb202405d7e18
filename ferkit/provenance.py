"""Where a result comes from: the commit of the code and the versions of the packages."""

import platform
import subprocess
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]  # of the repository, if the code is in one


def made_with(*packages: str) -> dict[str, Any]:
    """The versions, the commit and the present time, as facts for a saved model."""
    return {
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
        "commit": commit(),
        "saved": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def commit(root: Path = ROOT) -> str | None:
    """The commit of the code, with "-dirty" if Python files have changed since; None if `root` is no git repository."""
    if not (root / ".git").exists():  # an installed package may be inside another repository
        return None

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=root, capture_output=True, text=True).stdout.strip()

    try:
        name = git("describe", "--always")
        # Only Python files count, because files of results change during a training.
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ":(glob)**/*.py")
    except OSError:
        return None
    return f"{name}-dirty" if changed else name or None
