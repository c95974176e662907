"""The node's ASGI app: syft's own app under `/api/v2`, the portal everywhere else."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from gridup_node import facts, queueing, secrets

API_PREFIX = "/api/v2"
STOCK_PASSWORD = "changethis"  # noqa: S105
"""syft's own default, which the whole world knows."""

Scope = MutableMapping[str, Any]
Asgi = Callable[[Scope, Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]]

log = logging.getLogger(__name__)


def create(folder: facts.Folder, node: facts.Facts) -> Asgi:
    """Start syft's server for this node and the app that serves it.

    Expects the environment of `serve.environment` and the node's folder as working folder.
    """
    from gridup_node.portal.web import portal

    server = start_server(folder, node)
    session_key = secrets.read(folder.secrets, secrets.SESSION_KEY).encode()
    return beside(syft_app(server, node), portal(server, folder, session_key))


def beside(api: Asgi, rest: Asgi) -> Asgi:
    """`api` for its own paths and for start and stop, `rest` for all others.

    The portal is not mounted inside syft's app: that answers every origin's requests, with
    credentials, which our session cookie must have no part in.
    """

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        path = scope.get("path", "")
        if scope["type"] == "lifespan" or path == API_PREFIX or path.startswith(API_PREFIX + "/"):
            await api(scope, receive, send)
        else:
            await rest(scope, receive, send)

    return app


def syft_app(server: Any, node: facts.Facts) -> Asgi:
    """What syft's own `app_factory` makes, for a server that is already there."""
    from fastapi import APIRouter, FastAPI
    from starlette.middleware.cors import CORSMiddleware
    from syft.server.routes import make_routes
    from syft.server.uvicorn import get_lifetime

    # No /docs: the page loads its program from a public host.
    app = FastAPI(
        title=node.name, lifespan=get_lifetime(worker=server), docs_url=None, redoc_url=None, openapi_url=None
    )
    router = APIRouter()
    router.include_router(make_routes(worker=server))
    app.include_router(router, prefix=API_PREFIX)
    app.add_middleware(
        CORSMiddleware,
        allow_origins=["*"],
        allow_credentials=True,
        allow_methods=["*"],
        allow_headers=["*"],
    )
    made: Asgi = app
    return made


def start_server(folder: facts.Folder, node: facts.Facts) -> Any:
    """syft's server on this node's data, in production mode, as the deployer's facts want it.

    syft's `app_factory` is not used since it takes the database as an address, which a folder
    with a `#` or `?` in its name breaks, and the secrets from the environment, which every
    program that a job starts would inherit.
    """
    from syft.server.credentials import SyftSigningKey
    from syft.server.datasite import Datasite
    from syft.server.gateway import Gateway
    from syft.store.db.sqlite import SQLiteDBConfig
    from syft.types.uid import UID

    password = secrets.read(folder.secrets, secrets.ADMIN_PASSWORD)
    if not password or password == STOCK_PASSWORD:
        raise RuntimeError("the administrator's password is empty or syft's stock one")
    queueing.confine()
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
        # syft insists on a number; `queueing` makes no use of it.
        queue_port=0,
        in_memory_workers=True,
        background_tasks=False,
    )
    lost = queueing.end_lost_jobs(server)
    if lost:
        log.warning("%d jobs were running when the node ended; they are marked as interrupted", lost)
    queueing.attach_workers(server)
    # `gridup_node.admin` may have given the node that was just making its database another one.
    now = secrets.read(folder.secrets, secrets.ADMIN_PASSWORD)
    settle(server, node, password=now if now != password else "")
    return server


def settle(server: Any, node: facts.Facts, password: str = "") -> None:
    """Bring what syft keeps in its database, and reads from there, to what node.json says.

    Args:
        password: the administrator's new one; empty to leave it.
    """
    from syft.service.settings.settings import ServerSettingsUpdate
    from syft.service.user.user import UserUpdate

    from gridup_node.account import Account, Refused

    root = Account(server, server.signing_key)
    try:
        if server.settings.name != node.name:
            root.call("settings.update", settings=ServerSettingsUpdate(name=node.name))
            server.name = node.name
        me = root.call("user.get_current_user")
        if me.email != node.admin_email:
            root.call("user.update", uid=me.id, user_update=UserUpdate(email=node.admin_email))
        if password:
            root.call("user.update", uid=me.id, user_update=UserUpdate(password=password))
    except Refused as error:
        # The node is of use all the same; `gridup status` tells what differs.
        log.error("could not apply the node's name or administrator: %s", error)
