"""The process that the engine starts: it prints its port and serves for as long as the engine is there."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
from pulumi.runtime.proto import provider_pb2_grpc

from support.azure_native.server import Provider

AT_ONCE = 64
MOST_BYTES = 400 * 1024 * 1024
LOOK_SECONDS = 0.2
GRACE_SECONDS = 1.0


def main() -> None:
    over = threading.Event()
    # As the engine ends its plugins: one that does not heed it is waited for 5 s, at the end of every run.
    # A person's Ctrl-C is the engine's alone, which cancels.
    signal.signal(signal.SIGINT, lambda *_: over.set())
    parent = os.getppid()
    server = grpc.server(
        ThreadPoolExecutor(AT_ONCE), options=[("grpc.max_receive_message_length", MOST_BYTES)]
    )
    provider = Provider()
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(provider, server)
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    while os.getppid() == parent and not over.wait(LOOK_SECONDS):
        pass
    # The real one notices within five minutes, and ends what it has begun. No test has the time.
    ends = time.monotonic() + GRACE_SECONDS
    while provider.busy and time.monotonic() < ends:
        time.sleep(LOOK_SECONDS)
    os._exit(0)


if __name__ == "__main__":
    main()
