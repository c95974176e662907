"""The node's ASGI app: the guard, and behind it syft's own app at `/api/v2` and the portal at other paths."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gridup_node import background, facts, queueing, secrets
from gridup_node.guard.asgi import Asgi
from gridup_node.guard.routes import API

STOCK_PASSWORD = "changethis"  # noqa: S105
"""syft's publicly known default password."""

STOCK_ORGANIZATION, STOCK_DESCRIPTION = "OpenMined", "This is the default description"
"""syft's defaults for the organization and description of a node."""

log = logging.getLogger(__name__)


def create(folder: facts.NodeDir, node: facts.Facts, proxies: Sequence[str]) -> Asgi:
    """Start syft's server for this node and return the app that serves it, behind the guard.

    Expects the variables of `serve.environment` and the node's folder as working directory.

    Args:
        proxies: the reverse proxy's addresses, or the name of its host; empty if it runs on this machine
            and connects to the node's own socket.
    """
    from gridup_node.database import Database, watched
    from gridup_node.guard import holes
    from gridup_node.guard.asgi import Guard, Limits
    from gridup_node.guard.known import Known
    from gridup_node.guard.origins import Origins
    from gridup_node.guard.remembered import Remembered
    from gridup_node.guard.syft import SyftServer
    from gridup_node.guard.throttle import Throttle
    from gridup_node.portal.web import portal
    from gridup_node.sandbox import approved, frames

    # The path is relative to the working directory, so that the path of the socket is short.
    approved.install(Path(frames.FOLDER), node.job_seconds)
    holes.close(
        guests=node.guests,
        network=node.server_type == "gateway",
        server=secrets.read(folder.secrets, secrets.SERVER_UID),
    )
    server = start_server(folder, node)
    background.start(server)
    session_key = secrets.read(folder.secrets, secrets.SESSION_KEY).encode()
    throttle = Throttle(remembered=Remembered(folder.signed_in, session_key))
    guard = Guard(
        api=syft_app(server, node),
        rest=portal(server, folder, session_key, throttle),
        syft=SyftServer(server, folder.secrets),
        limits=Limits(max_upload=node.max_upload, guests=node.guests),
        origins=Origins(proxies, partial(own_names, folder, node)),
        throttle=throttle,
        known=Known(session_key),
    )
    return watched(guard, Database(folder).problem)


def own_names(folder: facts.NodeDir, node: facts.Facts) -> frozenset[str]:
    """Return the host names under which users open this node. node.json may have changed since the start."""
    with contextlib.suppress(facts.FactsError):
        node = facts.load(folder.facts)
    hosts = {urlsplit(where).hostname or "" for where in node.endpoints.values()}
    return frozenset(host for host in (*hosts, *node.host_names) if host)


def syft_app(server: Any, node: facts.Facts) -> Asgi:
    """Create the app that syft's `app_factory` makes, for an existing server. No other origin may read it."""
    from fastapi import APIRouter, FastAPI
    from syft.server.routes import make_routes
    from syft.server.uvicorn import get_lifetime

    # Disable /docs: that page loads scripts from a public host.
    app = FastAPI(
        title=node.name, lifespan=get_lifetime(worker=server), docs_url=None, redoc_url=None, openapi_url=None
    )
    router = APIRouter()
    router.include_router(make_routes(worker=server))
    app.include_router(router, prefix=API)
    made: Asgi = app
    return made


def start_server(folder: facts.NodeDir, node: facts.Facts) -> Any:
    """Start syft's server on this node's data, in production mode, with the settings in `node`.

    This function does not use syft's `app_factory` for two reasons. `app_factory` takes the database as a
    URL, which a `#` or `?` in a folder's name breaks. And it takes the secrets from the environment, which
    every program that a job starts would inherit.

    Raises:
        RuntimeError: the administrator's password is empty or syft's default.
    """
    from syft.server.credentials import SyftSigningKey
    from syft.server.datasite import Datasite
    from syft.server.gateway import Gateway
    from syft.store.db.sqlite import SQLiteDBConfig
    from syft.types.uid import UID

    password = secrets.read(folder.secrets, secrets.ADMIN_PASSWORD)
    if not password or password == STOCK_PASSWORD:
        raise RuntimeError("the administrator's password is empty or syft's stock one")
    queueing.bind_to_unix_socket()
    kind = {"datasite": Datasite, "gateway": Gateway}[node.server_type]
    server = kind(
        name=node.name,
        id=UID.from_string(secrets.read(folder.secrets, secrets.SERVER_UID)),
        signing_key=SyftSigningKey.from_string(secrets.read(folder.secrets, secrets.SERVER_KEY)),
        root_email=node.admin_email,
        root_username="Administrator",
        root_password=password,
        server_type=node.server_type,
        db_config=SQLiteDBConfig(path=folder.data, filename=folder.database.name),
        processes=0,
        dev_mode=False,
        reset=False,
        create_producer=True,
        n_consumers=1,
        # syft requires a number; `queueing` does not use it.
        queue_port=0,
        in_memory_workers=True,
        # `background` runs these tasks.
        background_tasks=False,
    )
    lost = queueing.end_lost_jobs(server)
    if lost:
        log.warning("%d jobs were running when the node ended; they are marked as interrupted", lost)
    queueing.attach_workers(server)
    # `gridup_node.admin` may have replaced the password while the node created its database.
    now = secrets.read(folder.secrets, secrets.ADMIN_PASSWORD)
    apply_settings(server, node, password=now if now != password else "")
    return server


def apply_settings(server: Any, node: facts.Facts, password: str = "") -> None:
    """Update the settings in syft's database to those in node.json.

    Args:
        password: the administrator's new password; empty to leave it unchanged.
    """
    from syft.service.settings.settings import ServerSettingsUpdate
    from syft.service.user.user import UserUpdate

    from gridup_node.account import Account, Refused

    root = Account(server, server.signing_key)
    try:
        had = server.settings
        # If node.json has no value, a value that the administrator has set stays.
        organization, description = had.organization, had.description
        if node.organization is not None or organization == STOCK_ORGANIZATION:
            organization = node.organization or node.name
        if node.description is not None or description.startswith(STOCK_DESCRIPTION):
            description = node.description or ""
        wanted = {"name": node.name, "organization": organization, "description": description}
        changed = {key: text for key, text in wanted.items() if getattr(had, key) != text}
        if changed:
            root.call("settings.update", settings=ServerSettingsUpdate(**changed))
            server.name = node.name
        me = root.call("user.get_current_user")
        if me.email != node.admin_email:
            root.call("user.update", uid=me.id, user_update=UserUpdate(email=node.admin_email))
        if password:
            root.call("user.update", uid=me.id, user_update=UserUpdate(password=password))
    except Refused as error:
        # The node can serve without this update; `gridup status` shows what differs.
        log.error("could not apply the node's name or administrator: %s", error)
