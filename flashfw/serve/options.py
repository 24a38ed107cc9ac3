"""What the command line asks of `serve`, and how it is asked of the process that answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from flashfw.cluster.logs.files import Rotation
from flashfw.serve.certificates import Certificate


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """One server. `bound` is the project and the environment that it is of, if the command line says so;
    `variables` is the environment that it was started in.
    """

    data: Path
    host: str
    port: int
    certificate: Certificate | None
    database: str | None
    bound: tuple[str, str] | None
    secret_key: Path | None
    grace_s: float
    rotation: Rotation
    quiet: bool
    variables: Mapping[str, str]

    def arguments(self) -> list[str]:
        """The command line that asks for the same, wherever it is given."""
        given: list[tuple[str, object]] = [
            ("--data", self.data),
            ("--host", self.host),
            ("--port", self.port),
            ("--grace", f"{self.grace_s:g}s"),
            ("--log-size", self.rotation.max_bytes),
            ("--log-files", self.rotation.files),
        ]
        if self.certificate is not None:
            given += [("--cert", self.certificate.cert), ("--key", self.certificate.key)]
        if self.database is not None:
            given.append(("--database", self.database))
        if self.bound is not None:
            given.append(("--as", "/".join(self.bound)))
        if self.secret_key is not None:
            given.append(("--secret-key-file", self.secret_key))
        return [*(text for name, value in given for text in (name, str(value))), *(["--quiet"] if self.quiet else [])]

    @property
    def scheme(self) -> str:
        """`https` with a certificate."""
        return "http" if self.certificate is None else "https"
