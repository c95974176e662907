"""The host: serves Pulumi's LanguageRuntime protocol to one engine and ends with it.

The engine starts it with its own address as the last argument and reads our port from the first line.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import empty_pb2
from pulumi.runtime.proto import language_pb2, language_pb2_grpc, plugin_pb2

SHOWN = 32
"""The program's exit code when it has told the engine of its error itself, as in Pulumi's own."""

MESSAGE_SIZE = 400 * 1024 * 1024


def python() -> str:
    """The program's interpreter, chosen as Pulumi's own host does where Pulumi.yaml names no environment."""
    found = os.environ.get("PULUMI_PYTHON_CMD") or shutil.which("python3") or shutil.which("python")
    return found or sys.executable


class LanguageHost(language_pb2_grpc.LanguageRuntimeServicer):
    """One engine's."""

    def __init__(self, engine: str) -> None:
        self._engine = engine
        self._programs: set[subprocess.Popen[bytes]] = set()

    def Handshake(self, request: Any, context: Any) -> Any:
        return language_pb2.LanguageHandshakeResponse()

    def GetRequiredPlugins(self, request: Any, context: Any) -> Any:
        return language_pb2.GetRequiredPluginsResponse()

    def GetRequiredPackages(self, request: Any, context: Any) -> Any:
        return language_pb2.GetRequiredPackagesResponse()

    def GetPluginInfo(self, request: Any, context: Any) -> Any:
        return plugin_pb2.PluginInfo(version="0.0.0")

    def About(self, request: Any, context: Any) -> Any:
        return language_pb2.AboutResponse(executable=python(), version=sys.version.split()[0])

    def GetProgramDependencies(self, request: Any, context: Any) -> Any:
        return language_pb2.GetProgramDependenciesResponse()

    def RuntimeOptionsPrompts(self, request: Any, context: Any) -> Any:
        return language_pb2.RuntimeOptionsResponse()

    def InstallDependencies(self, request: Any, context: Any) -> Any:
        yield language_pb2.InstallDependenciesResponse(stdout=b"nothing to install\n")

    def Run(self, request: Any, context: Any) -> Any:
        told = {
            "project": request.project,
            "stack": request.stack,
            "organization": request.organization,
            "monitor": request.monitor_address,
            "engine": self._engine,
            "parallel": request.parallel,
            "dry_run": request.dryRun,
            "root_directory": request.info.root_directory,
        }
        process = subprocess.Popen(
            [python(), "-u", str(Path(__file__).with_name("program.py")), request.info.entry_point],
            cwd=request.info.program_directory,
            env=program_environment(told, request.config, request.configSecretKeys),
        )
        self._programs.add(process)
        code = process.wait()
        self._programs.discard(process)
        if code in (0, SHOWN):
            return language_pb2.RunResponse(bail=code == SHOWN)
        return language_pb2.RunResponse(error=f"Program exited with non-zero exit code: {code}")

    def Cancel(self, request: Any, context: Any) -> Any:
        self.stop()
        return empty_pb2.Empty()

    def stop(self) -> None:
        """End what runs."""
        for process in list(self._programs):
            with contextlib.suppress(ProcessLookupError):
                process.kill()


def program_environment(told: Mapping[str, Any], config: Mapping[str, str], secrets: Any) -> dict[str, str]:
    """As Pulumi's own: the configuration is in two variables of JSON; ours carries the rest in a third."""
    return {
        **os.environ,
        "PULUMI_CONFIG": json.dumps(dict(config)),
        "PULUMI_CONFIG_SECRET_KEYS": json.dumps(list(secrets)),
        "LANGUAGE_HOST_TOLD": json.dumps(told),
    }


def main() -> None:
    """Serve until the engine asks us to end, or has gone."""
    # The engine ends its plugins with SIGINT; a person's Ctrl-C is its own to handle (see Cancel).
    done = threading.Event()
    signal.signal(signal.SIGINT, lambda *_: done.set())
    host = LanguageHost(sys.argv[-1])
    options = [
        ("grpc.max_receive_message_length", MESSAGE_SIZE),
        ("grpc.max_send_message_length", MESSAGE_SIZE),
    ]
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4), options=options)
    language_pb2_grpc.add_LanguageRuntimeServicer_to_server(host, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    threading.Thread(target=_end_with, args=(os.getppid(), host), daemon=True).start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    done.wait()
    host.stop()


def _end_with(parent: int, host: LanguageHost) -> None:
    while os.getppid() == parent:
        time.sleep(0.2)
    host.stop()
    os._exit(1)


if __name__ == "__main__":
    main()
