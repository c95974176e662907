"""Background tasks of syft: checking the health of its peers, and sending e-mails that wait.

syft's own option `background_tasks` is not used. It starts threads that end for good at the first error,
and one thread that keeps the process from ending.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

PEERS_SECONDS = 30.0
"""Time between two checks of each peer: one check costs the peer half a second of work."""

EMAIL_SECONDS = 60.0
"""Time until syft's own loop is started again after it has failed. That loop checks every 15 seconds."""

log = logging.getLogger(__name__)


def start(server: Any) -> None:
    """Start the tasks in threads that end with the process."""
    tasks: dict[str, tuple[Callable[[], object], float]] = {
        "the health of the peers": (partial(look_at_peers, server), PEERS_SECONDS),
        "e-mails": (server.email_notification_dispatcher, EMAIL_SECONDS),
    }
    for what, (task, seconds) in tasks.items():
        threading.Thread(target=_for_ever, args=(what, task, seconds), name=what, daemon=True).start()


def look_at_peers(server: Any) -> None:
    """Ask each peer whether it still knows this node, and record its answer."""
    from syft.service.context import AuthedServiceContext
    from syft.service.network.utils import PeerHealthCheckTask
    from syft.service.user.user_roles import ServiceRole

    context = AuthedServiceContext(server=server, credentials=server.verify_key, role=ServiceRole.ADMIN)
    PeerHealthCheckTask().peer_route_heathcheck(context)


def _for_ever(what: str, task: Callable[[], object], seconds: float) -> None:
    told = ""
    while True:
        time.sleep(seconds)
        try:
            task()
            told = ""
        except Exception as error:  # noqa: BLE001 - whatever the error is, the next try may work
            # Log the same error only once: a peer may be unreachable for days.
            if (now := f"{type(error).__name__}: {error}") != told:
                told = now
                log.warning("%s: %s", what, now)
