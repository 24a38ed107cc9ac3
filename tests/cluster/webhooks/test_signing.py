"""The secret of webhooks and what it signs."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook

from flashfw.cluster.webhooks.signing import headers, kept_secret, key_of, new_secret
from flashfw.errors import TargetError


@given(
    st.binary(min_size=24, max_size=64), st.text("abcdef0123456789_", min_size=1), st.dictionaries(st.text(), st.text())
)
def test_the_vendors_own_code_takes_what_is_signed(key: bytes, message: str, value: dict[str, str]) -> None:
    import base64
    import json

    secret = "whsec_" + base64.b64encode(key).decode()
    body = json.dumps(value, ensure_ascii=True).encode()

    signed = headers(secret, message=message, at=time.time(), body=body)

    assert Webhook(secret).verify(body, signed) == value


def test_a_secret_is_made_once_and_for_this_user_alone(tmp_path: Path) -> None:
    file = tmp_path / "webhook-secret"

    secret = kept_secret(file)

    assert kept_secret(file) == secret
    assert file.stat().st_mode & 0o777 == 0o600
    assert len(key_of(secret)) == 32
    assert new_secret() != secret
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("text", ["", "whsec_", "whsec_AAAA", "hunter2", "whsec_!!!!", "A" * 32, "whsec_ä"])
def test_a_file_that_holds_no_secret_is_told(tmp_path: Path, text: str) -> None:
    file = tmp_path / "webhook-secret"
    file.write_text(text, encoding="utf-8")

    with pytest.raises(TargetError) as refused:
        kept_secret(file)

    assert str(file) in refused.value.what
    assert "remove" in refused.value.hint
    assert file.read_text("utf-8") == text


def test_a_secret_of_ones_own_is_taken(tmp_path: Path) -> None:
    (tmp_path / "webhook-secret").write_text("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n")

    assert kept_secret(tmp_path / "webhook-secret") == "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
