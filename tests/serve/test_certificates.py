"""Certificate files that can be used, and all that can be wrong with them."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from flashfw.errors import Exit, UsageError
from flashfw.serve.certificates import Certificate
from tests.serve.certificate import DAY, NOW, write


def test_a_good_one_gives_a_context_of_tls_1_2_and_later(tmp_path: Path) -> None:
    context = write(tmp_path).context(NOW)

    assert context.minimum_version == ssl.TLSVersion.TLSv1_2


def refused(certificate: Certificate, words: str) -> None:
    with pytest.raises(UsageError, match=words) as error:
        certificate.context(NOW)
    assert error.value.exit == Exit.USAGE


def test_one_that_is_over_or_not_begun_is_told_with_its_date(tmp_path: Path) -> None:
    refused(write(tmp_path, ends=NOW - DAY / 2), rf"server.pem expired on {NOW - DAY / 2:%Y-%m-%d}")
    refused(write(tmp_path, begins=NOW + DAY, ends=NOW + 2 * DAY), f"begins on {NOW + DAY:%Y-%m-%d}")


def test_a_key_of_another_certificate_is_told(tmp_path: Path) -> None:
    one, other = write(tmp_path, "one"), write(tmp_path, "other")

    refused(Certificate(one.cert, other.key), "other.key is not the key of the certificate .*one.pem")


def test_files_that_cannot_be_read_or_are_something_else_are_told(tmp_path: Path) -> None:
    good, missing, text = write(tmp_path), tmp_path / "missing", tmp_path / "text"
    text.write_text("-----BEGIN CERTIFICATE-----\nnone\n")

    refused(Certificate(missing, good.key), "cannot read the certificate .*missing: No such file")
    refused(Certificate(good.cert, missing), "cannot read the key .*missing: No such file")
    refused(Certificate(tmp_path, good.key), "cannot read the certificate .*: Is a directory")
    refused(Certificate(text, good.key), "text holds no certificate in PEM")
    refused(Certificate(good.key, good.key), "server.key holds no certificate in PEM")
    refused(Certificate(good.cert, text), "text holds no private key in PEM")
    refused(Certificate(good.cert, good.cert), "server.pem holds no private key in PEM")


def test_a_key_with_a_password_is_told(tmp_path: Path) -> None:
    refused(write(tmp_path, password="pass"), "server.key has a password")
