"""The container's files, read by the tools that will read them; no engine is needed for that."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tiergate.config import load

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
KEY = "0123456789abcdef0123456789abcdef"


def tool(name: str) -> str:
    found = shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if found is None:
        pytest.skip(f"{name} is there on Linux on x86-64 only (requirements/dev.in)")
    return found


def composed(tmp_path: Path, *profiles: str, key: str | None = KEY) -> subprocess.CompletedProcess[str]:
    """What the real `docker compose` makes of the file, in a copy of the folder with a .env beside it."""
    folder = tmp_path / "deploy"
    if not folder.exists():
        shutil.copytree(DEPLOY, folder)
    (folder / ".env").write_text("" if key is None else f"TIERGATE_CALLER_KEY={key}\n")
    chosen = [word for profile in profiles for word in ("--profile", profile)]
    command = [tool("docker-compose"), "-f", str(folder / "compose.yaml"), *chosen]
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    return subprocess.run(
        [*command, "config", "--format", "json"], capture_output=True, text=True, env=environ, check=False
    )


def test_the_dockerfile_has_no_fault_that_the_linter_knows() -> None:
    """Not even a small one."""
    done = subprocess.run(
        [tool("hadolint"), "--failure-threshold", "style", str(DEPLOY / "Dockerfile")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_the_linter_finds_faults(tmp_path: Path) -> None:
    """Silence of it means something."""
    bad = tmp_path / "Dockerfile"
    bad.write_text("FROM debian:latest\nRUN cd /tmp && apt-get install curl\n")
    assert subprocess.run([tool("hadolint"), str(bad)], capture_output=True, check=False).returncode == 1


def test_what_the_image_is_built_from_is_there_and_let_in() -> None:
    """Every file that is copied exists, and none is shut out by the ignore list."""
    text = (DEPLOY / "Dockerfile").read_text()
    let_in = {
        line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] == "!"
    }
    copied = [line.split()[1:-1] for line in re.findall(r"^COPY (?!--from).*$", text, re.MULTILINE)]
    for name in [name for names in copied for name in names]:
        assert (ROOT / name).exists() and name in let_in, name


def test_the_last_user_is_not_root() -> None:
    """By number, so that Kubernetes can tell without the image's own list of users."""
    stages = (DEPLOY / "Dockerfile").read_text().split("\nFROM ")
    users = re.findall(r"^USER (\S+)$", stages[-1], re.MULTILINE)
    assert users == ["10001:10001"]


def test_compose_takes_the_file(tmp_path: Path) -> None:
    """One gateway: nothing to write on but its volume, no capability, published to this machine only."""
    done = composed(tmp_path)
    assert done.returncode == 0, done.stderr
    services: dict[str, Any] = json.loads(done.stdout)["services"]
    assert set(services) == {"tiergate"}
    gateway = services["tiergate"]
    assert gateway["read_only"] is True and gateway["cap_drop"] == ["ALL"]
    assert gateway["security_opt"] == ["no-new-privileges:true"]
    assert [port["host_ip"] for port in gateway["ports"]] == ["127.0.0.1"]
    writable = [volume["target"] for volume in gateway["volumes"] if not volume.get("read_only")]
    assert writable == ["/data"]
    assert gateway["environment"]["TIERGATE_CALLER_KEY"] == KEY


def test_compose_takes_the_databases_when_asked(tmp_path: Path) -> None:
    """Each with a check of its health."""
    done = composed(tmp_path, "postgres", "redis")
    assert done.returncode == 0, done.stderr
    services = json.loads(done.stdout)["services"]
    assert set(services) == {"tiergate", "postgres", "redis"}
    assert all("healthcheck" in services[name] for name in ("postgres", "redis"))


def test_without_a_key_for_callers_compose_says_what_to_do(tmp_path: Path) -> None:
    """Nobody starts an open gateway by forgetting."""
    done = composed(tmp_path, key=None)
    assert done.returncode != 0 and "put one into deploy/.env" in done.stderr


def test_the_containers_settings_are_right(tmp_path: Path) -> None:
    """They load without a notice, and the ledger lies on the volume."""
    loaded = load(DEPLOY / "settings.yaml", {"TIERGATE_CALLER_KEY": KEY, "DEEPSEEK_API_KEY": "sk-test"})
    assert loaded.notices == () and loaded.settings.auth == "keys"
    assert loaded.settings.data_dir == Path("/data")
    assert (loaded.settings.listen.host, loaded.settings.listen.port) == ("0.0.0.0", 4400)
