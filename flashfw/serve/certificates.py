"""From certificate files to a TLS context, with every way in which they can be wrong said before anything starts."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from flashfw.errors import UsageError

if TYPE_CHECKING:  # it takes a fifth of a second, and most servers have no certificate of their own
    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
    from cryptography.x509 import Certificate as X509


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate with its chain, and the key of its own, as files in PEM."""

    cert: Path
    key: Path

    def context(self, now: datetime) -> ssl.SSLContext:
        """A context for a server: TLS 1.2 and later.

        Raises:
            UsageError: a file cannot be read or is no PEM, the certificate is over or not begun, or the key is not its.
        """
        self.check(now)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(self.cert, self.key)
        except (OSError, ssl.SSLError) as error:
            raise UsageError(f"the certificate {self.cert} cannot be used: {error}", hint=_MAKE) from error
        return context

    def check(self, now: datetime) -> datetime:
        """When the certificate ends, if it can be used now.

        Raises:
            UsageError: as `context`.
        """
        found = self._certificate()
        key = self._key()
        if key != _public(found.public_key()):
            raise UsageError(
                f"{self.key} is not the key of the certificate {self.cert}",
                hint="--cert takes the server's own certificate first, then its chain",
            )
        begins, ends = found.not_valid_before_utc, found.not_valid_after_utc
        if ends <= now:
            raise UsageError(f"the certificate {self.cert} expired on {ends:%Y-%m-%d %H:%M} UTC", hint="renew it")
        if begins > now:
            raise UsageError(
                f"the certificate {self.cert} begins on {begins:%Y-%m-%d %H:%M} UTC only", hint="is the clock right?"
            )
        return ends

    def _certificate(self) -> X509:
        from cryptography import x509

        try:
            return x509.load_pem_x509_certificates(self.cert.read_bytes())[0]
        except OSError as error:
            raise UsageError(f"cannot read the certificate {self.cert}: {error.strerror or error}") from error
        except (ValueError, IndexError) as error:
            raise UsageError(f"{self.cert} holds no certificate in PEM", hint=_MAKE) from error

    def _key(self) -> bytes:
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        try:
            return _public(load_pem_private_key(self.key.read_bytes(), password=None).public_key())
        except OSError as error:
            raise UsageError(f"cannot read the key {self.key}: {error.strerror or error}") from error
        except TypeError as error:
            raise UsageError(
                f"the key {self.key} has a password", hint="nobody is there to type it: store it without"
            ) from error
        except Exception as error:  # the library has many: no PEM, damaged, of a kind that it does not know
            raise UsageError(f"{self.key} holds no private key in PEM", hint=_MAKE) from error


def _public(key: PublicKeyTypes) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


_MAKE = "it begins with -----BEGIN; `openssl x509 -in FILE -text` shows what it is"
