"""The environment in which the real gcloud talks to the local cloud: `gcloud run`, `gcloud storage`, `gcloud pubsub`.

Nothing of it reaches a real project: credentials are off, the configuration is a private folder, and what the local cloud does
not serve is refused here or by the local Cloud Run, which gcloud takes for its proxy.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from local_cloud.addresses import GCLOUD_HOST, PROJECT, Addresses

REGION = "us-central1"
SERVED = ("run", "storage", "pubsub")
OFFLINE = ("config", "help", "info", "topic", "version")
"""Command groups that need no service."""
_TRACKS = ("alpha", "beta", "preview")
_VALUED = (
    "--access-token-file",
    "--account",
    "--billing-project",
    "--configuration",
    "--flags-file",
    "--flatten",
    "--format",
    "--impersonate-service-account",
    "--project",
    "--trace-token",
    "--verbosity",
)
"""gcloud's own options that take the next word as their value."""
_LOOPBACK = "127.0.0.1,localhost"


def gcloud_environment(addresses: Addresses, folder: Path, arguments: Sequence[str] = ()) -> dict[str, str]:
    """The variables to set for one `gcloud ARGUMENTS…`. `folder` becomes its private configuration.

    The proxy setting, which `gcloud run` cannot do without (it puts the region before the host's name), holds for every request of a gcloud
    process; so each command group gets an environment of its own. Raises ValueError for a group that the local cloud does not serve.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    group = _group(arguments)
    if group and group not in SERVED + OFFLINE:
        raise ValueError(f"the local cloud does not serve `gcloud {group}`: it serves {', '.join(SERVED)}")
    direct = group in ("storage", "pubsub")
    return {**_base(folder, addresses), **({} if direct else _proxy(addresses.run))}


def _group(arguments: Sequence[str]) -> str:
    """The first word that is neither an option, nor the value of one, nor a release track."""
    previous = ""
    for word in arguments:
        if not word.startswith("-") and word not in _TRACKS and previous not in _VALUED:
            return word
        previous = word
    return ""


def _base(folder: Path, addresses: Addresses) -> dict[str, str]:
    return {
        "CLOUDSDK_CONFIG": str(folder),
        "CLOUDSDK_ACTIVE_CONFIG_NAME": "NONE",
        "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "True",
        "CLOUDSDK_CORE_PROJECT": PROJECT,
        "CLOUDSDK_CORE_DISABLE_PROMPTS": "1",
        "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "True",
        "CLOUDSDK_CORE_CHECK_GCE_METADATA": "False",
        "CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK": "True",
        "CLOUDSDK_SURVEY_DISABLE_PROMPTS": "True",
        "CLOUDSDK_RUN_REGION": REGION,
        # A proxy of the user's own must not be asked for an address of this machine.
        "NO_PROXY": _LOOPBACK,
        "no_proxy": _LOOPBACK,
        "CLOUDSDK_API_ENDPOINT_OVERRIDES_RUN": f"http://{GCLOUD_HOST}/",
        "CLOUDSDK_API_ENDPOINT_OVERRIDES_STORAGE": f"{addresses.storage}/storage/v1/",
        "CLOUDSDK_API_ENDPOINT_OVERRIDES_PUBSUB": f"{addresses.pubsub_http}/",
    }


def _proxy(run: str) -> dict[str, str]:
    parts = urlsplit(run)
    return {
        "CLOUDSDK_PROXY_TYPE": "http",
        "CLOUDSDK_PROXY_ADDRESS": parts.hostname or "",
        "CLOUDSDK_PROXY_PORT": str(parts.port),
    }
