"""What a platform's variables say: which service this is (scope), which deployment, how long a stop may take."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf
from pathlib import Path

LOCAL_SCOPE = "local"
"""A laptop, plain Docker: no platform says which service this is."""

_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_GENERATED = "[bcdfghjklmnpqrstvwxz2456789]"  # Kubernetes makes names without vowels, so that they spell no words
_DEPLOYMENT_POD = re.compile(rf"-{_GENERATED}{{6,10}}-{_GENERATED}{{5}}$")  # <workload>-<template hash>-<pod>
_STATEFUL_POD = re.compile(r"-\d+$")  # <workload>-<ordinal>


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """Where we run."""

    name: str = "local"
    scope: str = LOCAL_SCOPE
    deployment: str | None = None
    grace_s: float | None = None
    """From the stop signal to SIGKILL; None where the platform does not say."""
    grace_unset: bool = False
    """Railway kills at once unless its draining seconds are set: worth a warning."""


def _railway(env: Mapping[str, str]) -> Platform:
    service = env.get("RAILWAY_SERVICE_ID") or env.get("RAILWAY_SERVICE_NAME", "")
    environment = env.get("RAILWAY_ENVIRONMENT_ID") or env.get("RAILWAY_ENVIRONMENT_NAME", "")
    draining = _seconds(env.get("RAILWAY_DEPLOYMENT_DRAINING_SECONDS", ""))
    return Platform(
        name="railway",
        scope=f"railway:{service}:{environment}",
        deployment=env.get("RAILWAY_DEPLOYMENT_ID"),
        grace_s=draining,
        grace_unset=not draining,
    )


def _fly(env: Mapping[str, str]) -> Platform:
    return Platform(
        name="fly",
        scope=f"fly:{env['FLY_APP_NAME']}",
        deployment=env.get("FLY_MACHINE_VERSION") or env.get("FLY_RELEASE_VERSION"),
        grace_s=5.0,  # kill_timeout's default
    )


def _render(env: Mapping[str, str]) -> Platform:
    return Platform(
        name="render",
        scope=f"render:{env.get('RENDER_SERVICE_ID') or env.get('RENDER_SERVICE_NAME', '')}",
        deployment=env.get("RENDER_INSTANCE_ID") or env.get("RENDER_GIT_COMMIT"),
        grace_s=30.0,  # maxShutdownDelaySeconds' default
    )


def _heroku(env: Mapping[str, str]) -> Platform:
    return Platform(
        name="heroku",
        scope=f"heroku:{env.get('HEROKU_APP_ID') or env.get('HEROKU_APP_NAME', '')}",
        deployment=env.get("HEROKU_RELEASE_VERSION"),
        grace_s=30.0,
    )


def _kubernetes(env: Mapping[str, str]) -> Platform:
    try:
        namespace = env.get("POD_NAMESPACE") or _NAMESPACE_FILE.read_text().strip()
    except OSError:
        namespace = "default"  # automountServiceAccountToken: false
    pod = env.get("POD_NAME") or env.get("HOSTNAME", "")
    workload = _DEPLOYMENT_POD.sub("", pod)
    if workload == pod:
        workload = _STATEFUL_POD.sub("", pod)
    return Platform(name="kubernetes", scope=f"kubernetes:{namespace}:{workload}", deployment=pod, grace_s=30.0)


# The first whose variable is set; the specific ones before Kubernetes, on which some of them run.
_PLATFORMS: tuple[tuple[str, Callable[[Mapping[str, str]], Platform]], ...] = (
    ("RAILWAY_SERVICE_ID", _railway),
    ("RAILWAY_SERVICE_NAME", _railway),
    ("RAILWAY_ENVIRONMENT_NAME", _railway),
    ("FLY_APP_NAME", _fly),
    ("RENDER_SERVICE_ID", _render),
    ("RENDER", _render),
    ("DYNO", _heroku),
    ("KUBERNETES_SERVICE_HOST", _kubernetes),
)


def detect(env: Mapping[str, str]) -> Platform:
    """The platform that ``env`` names."""
    for variable, describe in _PLATFORMS:
        if env.get(variable):
            return describe(env)
    return Platform()


def _seconds(text: str) -> float | None:
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if 0 <= seconds < inf else None  # a NaN is neither
