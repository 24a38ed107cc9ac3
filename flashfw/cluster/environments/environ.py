"""The variables that a worker gets: a few of the machine's, the endpoint's own, and its secrets; nothing else."""

from __future__ import annotations

from collections.abc import Mapping

from flashfw.errors import Exit, FlashfwError
from flashfw.manifest import Endpoint

INHERITED = frozenset(
    ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR", "TERM")
    + ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
    + ("HF_HOME", "HF_HUB_OFFLINE", "TORCH_HOME")
)
INHERITED_PREFIXES = ("LC_", "XDG_", "CUDA_", "NVIDIA_", "OMP_", "MKL_", "OPENBLAS_")
_PROXIES = ("_proxy", "_PROXY")


class SecretMissing(FlashfwError):
    """An endpoint names a secret that this environment does not have."""

    exit = Exit.PROBLEMS


def worker_environ(endpoint: Endpoint, *, machine: Mapping[str, str], secrets: Mapping[str, str]) -> dict[str, str]:
    """The whole environment of a worker of this endpoint.

    What else the server's shell exports stays out, so that code that works here does not miss it
    elsewhere; name it under `env` or `secrets`.

    Raises:
        SecretMissing: a secret that the endpoint names is not there.
    """
    inherited = {name: value for name, value in machine.items() if is_inherited(name)}
    own = {variable.name: variable.value for variable in endpoint.env}
    return {**inherited, **own, **_secrets(endpoint, secrets)}


def is_inherited(name: str) -> bool:
    """Whether a worker sees this variable of its machine.

    >>> [is_inherited(name) for name in ("PATH", "LC_ALL", "https_proxy", "AWS_SECRET_ACCESS_KEY", "PYTHONPATH")]
    [True, True, True, False, False]
    """
    return name in INHERITED or name.startswith(INHERITED_PREFIXES) or name.endswith(_PROXIES)


def _secrets(endpoint: Endpoint, secrets: Mapping[str, str]) -> dict[str, str]:
    missing = [variable.value for variable in endpoint.secrets if variable.value not in secrets]
    if missing:
        raise SecretMissing(
            f"{endpoint.id} needs the secret{'s' if len(missing) > 1 else ''} {', '.join(sorted(missing))}",
            hint="in dev a secret is a variable of that name or a line of .env; else: flashfw secret set ENV NAME",
        )
    return {variable.name: secrets[variable.value] for variable in endpoint.secrets}
