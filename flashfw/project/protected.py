"""Which files never leave the machine: credentials, by name and by content, and what tools keep beside a project.

No ignore file, no `include` and no other setting lets them travel.
"""

from __future__ import annotations

import json
import re
from fnmatch import translate
from typing import Literal

Reason = Literal["credentials", "state of a tool"]

CREDENTIAL_FILES = (
    *(".env*", "*.env", ".netrc", "_netrc", ".npmrc", ".yarnrc*", ".pypirc", ".pgpass", ".my.cnf", ".boto", ".s3cfg"),
    *(".git-credentials", ".dockercfg", ".htpasswd", ".vault-token", "*.tfstate", "*.tfstate.*", "*.tfvars"),
    *("*.pem", "*.key", "*.p12", "*.pfx", "*.jks", "*.keystore", "*.ppk", "*.kdbx", "*.gpg"),
    *("id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*", "kubeconfig*", "*.kubeconfig"),
    *("credentials.json", "credentials.toml", "client_secret*.json", "application_default_credentials.json"),
    *("service-account*.json", "service_account*.json", "*-service-account.json", "*_service_account.json"),
    *("secrets.json", "secrets.toml", "secrets.yaml", "secrets.yml"),
)
"""Names of files, whatever their case, in any folder."""

CREDENTIAL_FOLDERS = (
    *(".aws", ".azure", ".ssh", ".gnupg", ".kube", ".docker", ".gcloud", ".oci", ".terraform", ".password-store"),
)

TOOL_FOLDERS = (
    *(".git", ".hg", ".svn", ".jj", ".flashfw", ".venv", "__pycache__", "node_modules", ".mypy_cache"),
    *(".pytest_cache", ".ruff_cache", ".hypothesis", ".tox", ".nox", ".ipynb_checkpoints", ".idea", ".vscode"),
)
"""So is any folder with a `pyvenv.cfg` in it, a virtual environment by another name."""

TOOL_FILES = ("*.pyc", "*.pyo", ".DS_Store", "Thumbs.db", ".coverage", "*.swp")


def _matcher(names: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(map(translate, names)), re.IGNORECASE)


_CREDENTIAL_FILE, _TOOL_FILE = _matcher(CREDENTIAL_FILES), _matcher(TOOL_FILES)
_CREDENTIAL_FOLDER, _TOOL_FOLDER = _matcher(CREDENTIAL_FOLDERS), _matcher(TOOL_FOLDERS)


def folder(name: str) -> Reason | None:
    """Why nothing in folders of that name travels, None if it does.

    >>> folder(".aws"), folder(".venv"), folder("lib")
    ('credentials', 'state of a tool', None)
    """
    if _CREDENTIAL_FOLDER.fullmatch(name):
        return "credentials"
    return "state of a tool" if _TOOL_FOLDER.fullmatch(name) else None


def file(name: str) -> Reason | None:
    """Why a file of that name never travels, None if it does.

    >>> file(".env.local"), file("ID_RSA"), file("x.pyc"), file("credentials.py")
    ('credentials', 'credentials', 'state of a tool', None)
    """
    if _CREDENTIAL_FILE.fullmatch(name):
        return "credentials"
    return "state of a tool" if _TOOL_FILE.fullmatch(name) else None


def path(below: str) -> Reason | None:
    """Why a file never travels, by all the names on its way from the project's root.

    >>> path("deploy/.ssh/config"), path("lib/.venv/x.py"), path("lib/model.py")
    ('credentials', 'state of a tool', None)
    """
    *folders, name = below.split("/")
    return next((reason for part in folders if (reason := folder(part))), None) or file(name)


def content(name: str, data: bytes) -> Reason | None:
    """Why a file never travels by what is in it: a private key alone in a file, or the JSON of a service account.

    >>> content("deploy_key", b"-----BEGIN OPENSSH PRIVATE KEY-----\\n"), content("key.py", b"KEY = 1")
    ('credentials', None)
    """
    if re.match(rb"\s*-----BEGIN [A-Z ]*PRIVATE KEY-----", data):
        return "credentials"
    if not name.lower().endswith(".json") or b'"private_key"' not in data:
        return None
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return "credentials" if isinstance(value, dict) and value.get("type") == "service_account" else None
