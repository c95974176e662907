"""node.json and the admin commands where no node need run."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from gridup_node import admin, facts, secrets

TOLD = {
    "name": "Inst",
    "node_type": "domain",
    "ports": {"api": 1},
    "endpoints": {},
    "admin_email": "admin@inst.example",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> facts.NodeDir:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "node.json").write_text(json.dumps(TOLD))
    monkeypatch.setenv("GRIDUP_NODE_HOME", str(tmp_path))
    return facts.NodeDir(tmp_path)


def run(*argv: str, stdin: str = "") -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    code = admin.main(list(argv), io.StringIO(stdin), out, err)
    return code, out.getvalue(), err.getvalue()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("[]", "lacks something"),
        ("{", "not JSON"),
        (json.dumps({**TOLD, "node_type": "x"}), "domain, network"),
    ],
)
def test_a_wrong_node_json_is_one_clear_line(folder: facts.NodeDir, change: str, said: str) -> None:
    folder.facts.write_text(change)
    with pytest.raises(facts.FactsError, match=said):
        facts.load(folder.facts)
    code, out, err = run("secrets")
    assert (code, out, err.count("\n")) == (1, "", 1)


def test_secrets_are_shown_once_the_node_has_made_them(folder: facts.NodeDir) -> None:
    code, out, err = run("secrets")
    assert (code, out) == (1, "")
    assert "at its first start" in err
    secrets.ensure(folder.secrets)
    code, out, err = run("secrets")
    assert (code, err) == (0, "")
    assert json.loads(out) == {
        "admin_email": "admin@inst.example",
        "admin_password": secrets.read(folder.secrets, "admin_password"),
        "jupyter_token": secrets.read(folder.secrets, "jupyter_token"),
    }


@pytest.mark.parametrize(
    ("stdin", "said"),
    [
        ("", "must hold JSON"),
        ("[]", "must hold JSON"),
        ('{"password": 7}', "must hold JSON"),
        ('{"password": "aaaaaaaaaaaa"}', "a password has 10 to 72 bytes"),
    ],
)
def test_a_bad_password_is_refused_in_one_line(folder: facts.NodeDir, stdin: str, said: str) -> None:
    code, out, err = run("set-password", stdin=stdin)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert said in err
    assert "aaaaaaaaaaaa" not in err


def test_a_node_that_is_down_is_named_and_nothing_is_changed(
    folder: facts.NodeDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin, "START_SECONDS", 0.3)
    secrets.ensure(folder.secrets)
    folder.data.mkdir()
    folder.database.touch()
    before = secrets.read(folder.secrets, "admin_password")
    code, _, err = run("set-password", stdin='{"password": "S3cret!x9Qz"}')
    assert code == 1
    assert "does not answer on 127.0.0.1:1" in err
    assert secrets.read(folder.secrets, "admin_password") == before


def test_what_the_deployer_imports_needs_the_standard_library_only() -> None:
    modules = "secrets, facts, admin, catalog, services"
    code = (
        f"from gridup_node import {modules}; import sys; "
        "print([name for name in ('syft', 'jinja2', 'starlette') if name in sys.modules])"
    )
    infra = Path(admin.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-S", "-E", "-c", f"import sys; sys.path.insert(0, {str(infra)!r}); {code}"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
