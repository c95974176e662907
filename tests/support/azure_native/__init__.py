"""`pulumi-resource-azure-native`, for tests: Pulumi's protocol towards the engine, ARM's towards a cloud.

The real plugin is a download that tests must not need. This one takes the same inputs from the same SDK and
turns them into the requests that the real one would send, to the ARM at GRIDUP_TEST_ARM_ENDPOINT. It knows
only ARM's public shapes, so that any emulator can stand behind it.

- kinds: the resource types, their paths and API versions, and what replaces them.
- shapes: from the SDK's inputs to ARM's bodies and back; shapes.json is made by make_shapes.
- differing: what differs, and what a refresh carries over.
- credentials, client: tokens; calls and long-running operations.
- server: the protocol.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

NAME = "pulumi-resource-azure-native"

TESTS = Path(__file__).resolve().parents[2]


def install(folder: Path) -> Path:
    """Puts the plugin into a folder, for PATH."""
    plugin = folder / NAME
    paths = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    plugin.write_text(
        "#!/bin/sh\n"
        f"PYTHONPATH={shlex.quote(paths)} exec {shlex.quote(sys.executable)} -m support.azure_native\n"
    )
    plugin.chmod(0o755)
    return plugin
