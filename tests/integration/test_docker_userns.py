"""A daemon whose containers have user namespaces: root in one is nobody on its machine."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from gridup_node.image import BASE_IMAGE
from support.cli import Cli
from support.containers import Things, stack_id
from support.docker_rig import Daemon, base_archive

pytestmark = [pytest.mark.tier("deep"), pytest.mark.engine, pytest.mark.timeout(1800)]


def test_a_node_is_built_lives_and_goes_there(bare_home: Cli, cache: Path) -> None:
    cli = bare_home
    with (
        Daemon(cache / "docker-userns", {"userns-remap": "default"}) as daemon,
        closing(daemon.client()) as client,
    ):
        assert "name=userns" in client.info()["SecurityOptions"]
        archive, changes = base_archive(cache)
        repository, tag = BASE_IMAGE.split(":")
        client.api.timeout = 300
        client.api.import_image(str(archive), repository=repository, tag=tag, changes=changes)
        cli.environment["DOCKER_HOST"] = daemon.host
        things = Things(daemon.host)
        try:
            cli("deploy", "--name", "Inst", "--cloud", "docker", "--yes").ok()
            cli("check", "Inst", "--wait").ok()
            pids = [one["State"]["Pid"] for one in things.containers(stack_id(cli)).values()]
            # Below them is a range of the machine's users that it has for nothing else.
            owners = {Path(f"/proc/{pid}").stat().st_uid for pid in pids}
            assert pids and min(owners) >= 65_536, owners
            assert "Nothing changed" in cli("deploy", "--name", "Inst").ok().err
            cli("stop", "Inst").ok()
            cli("start", "Inst").ok()
            cli("check", "Inst", "--wait").ok()
        finally:
            cli.destroy_all()
        assert things.marked() == []
