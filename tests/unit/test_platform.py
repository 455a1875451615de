"""What a platform's variables say: which service this is, which deployment, how long a stop may take."""

from __future__ import annotations

from pathlib import Path

import pytest

from authsync import platform
from authsync.platform import Platform, detect

K8S = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "POD_NAMESPACE": "bots"}


@pytest.mark.parametrize(
    ("env", "expected"),
    [
        pytest.param({}, Platform(name="local", scope="local"), id="laptop"),
        pytest.param({"RAILWAY_SERVICE_ID": "", "DYNO": ""}, Platform(), id="empty variables"),
        pytest.param(
            {
                "RAILWAY_SERVICE_ID": "svc",
                "RAILWAY_ENVIRONMENT_ID": "env",
                "RAILWAY_DEPLOYMENT_ID": "dep",
                "RAILWAY_DEPLOYMENT_DRAINING_SECONDS": "10",
            },
            Platform(name="railway", scope="railway:svc:env", deployment="dep", grace_s=10.0),
            id="Railway",
        ),
        pytest.param(
            {"RAILWAY_SERVICE_NAME": "bot", "RAILWAY_ENVIRONMENT_NAME": "production"},
            Platform(name="railway", scope="railway:bot:production", grace_unset=True),
            id="Railway by names, draining unset",
        ),
        pytest.param(
            {"FLY_APP_NAME": "bot", "FLY_MACHINE_VERSION": "v7"},
            Platform(name="fly", scope="fly:bot", deployment="v7", grace_s=5.0),
            id="Fly",
        ),
        pytest.param(
            {"RENDER": "true", "RENDER_SERVICE_ID": "srv-1", "RENDER_INSTANCE_ID": "srv-1-a"},
            Platform(name="render", scope="render:srv-1", deployment="srv-1-a", grace_s=30.0),
            id="Render",
        ),
        pytest.param(
            {"DYNO": "worker.1", "HEROKU_APP_ID": "app", "HEROKU_RELEASE_VERSION": "v3"},
            Platform(name="heroku", scope="heroku:app", deployment="v3", grace_s=30.0),
            id="Heroku",
        ),
        pytest.param(
            {**K8S, "HOSTNAME": "bot-7d4b9c6f5d-x2x9k"},
            Platform(name="kubernetes", scope="kubernetes:bots:bot", deployment="bot-7d4b9c6f5d-x2x9k", grace_s=30.0),
            id="Kubernetes",
        ),
        pytest.param(
            {**K8S, "FLY_APP_NAME": "bot"},
            Platform(name="fly", scope="fly:bot", grace_s=5.0),
            id="a platform that runs on Kubernetes",
        ),
    ],
)
def test_platform(env: dict[str, str], expected: Platform) -> None:
    """Each platform by its variables; without any it is a laptop or plain Docker."""
    assert detect(env) == expected


@pytest.mark.parametrize(
    ("pod", "workload"),
    [
        pytest.param("bot-7d4b9c6f5d-x2x9k", "bot", id="Deployment"),
        pytest.param("my-chat-bot-7d4b9c6f5d-x2x9k", "my-chat-bot", id="Deployment, several words"),
        pytest.param("bot-0", "bot", id="StatefulSet"),
        pytest.param("my-bot-12", "my-bot", id="StatefulSet, two digits"),
        pytest.param("bot", "bot", id="a pod of its own"),
        pytest.param("chat-service-alpha", "chat-service-alpha", id="a pod of its own, whose name looks generated"),
    ],
)
def test_workload(pod: str, workload: str) -> None:
    """All pods of a workload are one service; a pod without a workload is its own."""
    assert detect({**K8S, "HOSTNAME": pod}).scope == f"kubernetes:bots:{workload}"
    assert detect({**K8S, "HOSTNAME": "other", "POD_NAME": pod}).scope == f"kubernetes:bots:{workload}"


def test_rollout_undo() -> None:
    """Each pod is a deployment of its own, of the same service."""
    first, second = (detect({**K8S, "HOSTNAME": name}) for name in ("bot-7d4b9c6f5d-x2x9k", "bot-66f8f9d5c-k8zvw"))
    assert first.scope == second.scope
    assert first.deployment != second.deployment


def test_namespace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The namespace, which makes two services of one name, is the variable's, else the account's, else ``default``."""
    file = tmp_path / "namespace"
    monkeypatch.setattr(platform, "_NAMESPACE_FILE", file)
    env = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "HOSTNAME": "bot-0"}
    assert detect(env).scope == "kubernetes:default:bot"
    file.write_text("mounted\n")
    assert detect(env).scope == "kubernetes:mounted:bot"
    assert detect({**env, "POD_NAMESPACE": "bots"}).scope == "kubernetes:bots:bot"


@pytest.mark.parametrize(
    ("text", "grace_s", "unset"),
    [
        ("10", 10.0, False),
        ("2.5", 2.5, False),
        ("0", 0.0, True),
        ("", None, True),
        ("soon", None, True),
        ("-5", None, True),
        ("nan", None, True),
        ("inf", None, True),
    ],
)
def test_draining_seconds(text: str, grace_s: float | None, *, unset: bool) -> None:
    """Railway's grace is its draining seconds; none, and what is no number of seconds, is worth a warning."""
    found = detect({"RAILWAY_SERVICE_ID": "svc", "RAILWAY_DEPLOYMENT_DRAINING_SECONDS": text})
    assert (found.grace_s, found.grace_unset) == (grace_s, unset)
