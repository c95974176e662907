"""uv, and the surroundings it installs Python packages in."""

from __future__ import annotations

import os

PIP_NAMES = {
    "PIP_INDEX_URL": ("UV_DEFAULT_INDEX", "UV_INDEX_URL"),
    "PIP_EXTRA_INDEX_URL": ("UV_INDEX", "UV_EXTRA_INDEX_URL"),
    "PIP_CERT": ("SSL_CERT_FILE",),
}
"""pip's variables -> those of uv that say the same, the one to set first."""


def uv() -> str:
    """The uv that came with us."""
    from uv import find_uv_bin

    return str(find_uv_bin())


def environment() -> dict[str, str]:
    """What uv runs with: the person's proxies and mirrors, also those that were set up for pip alone."""
    # Without compiled bytecode `import syft` takes twice as long; UV_* and proxies are the person's.
    drop = ("PYTHONDONTWRITEBYTECODE", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "UV_PROJECT_ENVIRONMENT")
    made = {name: value for name, value in os.environ.items() if name not in drop}
    made["UV_NO_PROGRESS"] = "1"
    # uv's own variables win.
    for theirs, ours in PIP_NAMES.items():
        if theirs in made and not any(name in made for name in ours):
            made[ours[0]] = made[theirs]
    return made
