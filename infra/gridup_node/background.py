"""What syft does by itself, beside what it is asked: the health of its peers, and e-mails that wait.

syft's own switch for it, `background_tasks`, starts threads that end for good at the first error, and one
that keeps the process from ending.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

PEERS_SECONDS = 30.0
"""Between two looks at each peer: what it answers to costs a peer half a second of work."""

EMAIL_SECONDS = 60.0
"""After syft's own loop has failed; it looks each 15 seconds for itself."""

log = logging.getLogger(__name__)


def start(server: Any) -> None:
    """Begin; the threads end with the process."""
    tasks: dict[str, tuple[Callable[[], object], float]] = {
        "the health of the peers": (partial(look_at_peers, server), PEERS_SECONDS),
        "e-mails": (server.email_notification_dispatcher, EMAIL_SECONDS),
    }
    for what, (task, seconds) in tasks.items():
        threading.Thread(target=_for_ever, args=(what, task, seconds), name=what, daemon=True).start()


def look_at_peers(server: Any) -> None:
    """Ask each peer whether it still knows this node, and note what it says."""
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
        except Exception as error:  # noqa: BLE001 - whatever it is, the next time it may work
            # Each kind of it once: a peer that is away stays away for days.
            if (now := f"{type(error).__name__}: {error}") != told:
                told = now
                log.warning("%s: %s", what, now)
