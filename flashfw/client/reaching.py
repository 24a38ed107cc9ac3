"""Connections to a server: whose certificates count, and what to say of one that does not come about."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

import httpx

from flashfw.errors import FlashfwError, UsageError

AUTHORITIES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
"""The variables of OpenSSL that name authorities in place of the usual; httpx reads them, for any address."""


def tls(url: str, cafile: Path | None = None) -> ssl.SSLContext:
    """Whose certificates count for a server; `cafile` is a PEM file of authorities beside the usual.

    Raises:
        UsageError: the authorities cannot be read, be they of `cafile` or of a variable.
    """
    if httpx.URL(url).scheme == "http":
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # reading the usual authorities takes 30 ms
    try:
        context = httpx.create_ssl_context()
    except OSError as error:  # which an SSLError is, too
        given = next((f"{name}={os.environ[name]}" for name in AUTHORITIES if os.environ.get(name)), "the authorities")
        raise _unreadable(given, error) from error
    if cafile is not None:
        try:
            context.load_verify_locations(cafile)
        except OSError as error:
            raise _unreadable(f"the cafile {cafile}", error) from error
    return context


def tls_trouble(url: str, error: httpx.HTTPError) -> tuple[str, str] | None:
    """What is wrong, and what to do, if a connection failed because of TLS or for want of it; else None."""
    if flaw := _flaw(error):
        return f"the certificate of {url} is not to be trusted: {flaw[0]}", flaw[1]
    text = str(error)
    if isinstance(error, httpx.ConnectError) and "SSL" in text:
        hint = "is it http:// and not https://? write the url that the server printed"
        return f"{url} does not speak TLS as asked: {text}", hint
    return None


def in_clear(url: str, error: httpx.HTTPError) -> str:
    """What to look at when a server of an `http:` address takes a connection and says nothing: it may wait for TLS."""
    is_dumb = isinstance(error, httpx.RemoteProtocolError | httpx.ReadError) and url.startswith("http:")
    return "does it speak TLS? then its address begins with https://" if is_dumb else ""


def _unreadable(what: str, error: OSError) -> FlashfwError:
    why = error.strerror if not isinstance(error, ssl.SSLError) else "it holds no certificate"
    return UsageError(f"{what} cannot be read: {why or error}", hint="name a PEM file of authorities")


def _flaw(error: BaseException | None) -> tuple[str, str] | None:
    """What is wrong with a certificate, and what to do, if that is what an error comes from."""
    while error is not None and not isinstance(error, ssl.SSLCertVerificationError):
        error = error.__cause__ or error.__context__
    if error is None:
        return None
    message = error.verify_message or str(error)
    if "expired" in message:
        return message, "renew it on the server; a running one reads it anew on SIGHUP"
    if "not yet valid" in message:
        return message, "look at the clocks of both machines"
    if "self" in message or "unable to get local issuer" in message:
        return (
            message,
            'name its authority: cafile = "ca.pem" beside its url in flashfw.toml, or SSL_CERT_FILE=ca.pem',
        )
    return message, "use the host name that the certificate is for"
