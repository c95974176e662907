"""A stand-in for the Python language host of a person's own Pulumi, which no registry carries.

With it the suite runs `pulumi preview` and `pulumi up` from the repository's root as a person does.
`install` writes the executable that the engine looks for on PATH.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

NAME = "pulumi-language-python"


def install(folder: Path) -> Path:
    """Write the language host into `folder` and return that folder, to be put on PATH."""
    folder.mkdir(parents=True, exist_ok=True)
    server = Path(__file__).with_name("server.py")
    # The host's own Python is the tests'; the program's is the one that the person's PATH gives.
    launcher = folder / NAME
    launcher.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {shlex.quote(str(server))} "$@"\n')
    launcher.chmod(0o755)
    return folder
