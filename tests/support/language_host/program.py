"""Runs a project's program in this fresh process, as Pulumi's own `pulumi-language-python-exec` does."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import runpy
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor

import pulumi
import pulumi.runtime

SHOWN = 32
"""Our exit code when the engine was told of the error."""


def main(program: str) -> int:
    """Run it. Returns the exit code for the host."""
    told = json.loads(os.environ.pop("LANGUAGE_HOST_TOLD"))
    pulumi.runtime.set_all_config(
        pulumi.runtime.get_config_env(), pulumi.runtime.get_config_secret_keys_env()
    )
    pulumi.runtime.configure(pulumi.runtime.Settings(**told))
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    # This script's own folder is no place for the program's imports.
    del sys.path[0]
    sys.argv = [program]
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    executor = ThreadPoolExecutor(max_workers=max(told["parallel"], 1) * 4)
    loop.set_default_executor(executor)

    def run() -> None:
        runpy.run_path(program, run_name="__main__")

    try:
        loop.run_until_complete(pulumi.runtime.run_in_stack(run))
    except pulumi.RunError as error:
        pulumi.log.error(str(error))
        return 1
    except Exception:  # noqa: BLE001 - whatever the program raises
        pulumi.log.error("Program failed with an unhandled exception:\n" + traceback.format_exc())
        return SHOWN
    finally:
        executor.shutdown(wait=True)
        loop.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
