"""Run mypy on the package as it is installed.

`qas.envs`, `qas.agents` and `qas.encoders` live in folders beside `qas/`, which hides them from a static tool. A folder
of links that looks like the installed package shows them.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "qas"
        package.mkdir()
        for entry in (ROOT / "qas").iterdir():
            if entry.name != "__pycache__":
                (package / entry.name).symlink_to(entry)
        for name in ("envs", "agents", "encoders"):
            (package / name).symlink_to(ROOT / name)
        command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), "-p", "qas"]
        return subprocess.run(command, cwd=folder, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
