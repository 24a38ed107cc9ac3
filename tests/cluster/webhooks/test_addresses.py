"""Which addresses a webhook may have."""

from __future__ import annotations

from contextlib import suppress
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashfw.cluster.webhooks.addresses import check_url, is_public
from flashfw.errors import UsageError

INSIDE = (
    *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"),
    *("192.0.2.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
    *(
        "::/128",
        "::1/128",
        "::ffff:0:0/96",
        "64:ff9b::/96",
        "64:ff9b:1::/48",
        "2001::/32",
        "2001:db8::/32",
        "2002::/16",
    ),
    *("fc00::/7", "fe80::/10", "ff00::/8"),
)


def within(network: str) -> st.SearchStrategy[str]:
    found = ip_network(network)
    least, most = int(found.network_address), int(found.broadcast_address)
    kind = type(found.network_address)
    return st.integers(least, most).map(lambda number: str(kind(number)))


@given(st.sampled_from(INSIDE).flatmap(within))
def test_what_is_inside_is_not_public(address: str) -> None:
    assert not is_public(address)


@given(st.one_of(st.ip_addresses(v=4), within("2000::/4").map(ip_address)).map(str))
def test_what_is_public_is_in_none_of_the_networks(address: str) -> None:
    found = ip_address(address)
    inside = any(found in ip_network(network) for network in INSIDE if ip_network(network).version == found.version)

    if is_public(address):
        assert not inside
        assert found.is_global


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.215.14", "2606:4700::1111"])
def test_what_is_public(address: str) -> None:
    assert is_public(address)


def test_this_machine_may_be_allowed_and_nothing_else_with_it() -> None:
    tried = ("127.0.0.1", "127.9.9.9", "::1", "0.0.0.0", "10.0.0.1", "::ffff:127.0.0.1", "fe80::1%lo")

    assert [one for one in tried if is_public(one, allow_loopback=True)] == ["127.0.0.1", "127.9.9.9", "::1"]


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/done?job=1",
        "http://example.com:8080",
        "https://1.1.1.1/",
        "http://[2606:4700::1111]/",
        "http://face.de/",
        "http://127.0.0.1:9000/hook",
        "http://localhost:9000/",
    ],
)
def test_a_webhook_may_be(url: str) -> None:
    check_url(url, allow_loopback=True)


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("", "a webhook is an http or https URL with a host"),
        ("example.com/a", "a webhook is an http or https URL with a host"),
        ("ftp://example.com/", "a webhook is an http or https URL with a host"),
        ("file:///etc/passwd", "a webhook is an http or https URL with a host"),
        ("http://", "a webhook is an http or https URL with a host"),
        ("http://example.com:99999/", "it is no URL: Port out of range 0-65535"),
        ("http://example.com:0/", "there is no port 0"),
        ("http://[::1/", "it is no URL: Invalid IPv6 URL"),
        ("http://user:pass@example.com/", "a webhook's URL may hold no user or password"),
        ("http://@example.com/", "a webhook's URL may hold no user or password"),
        ("http://example.com/a b", "a URL holds printable ASCII without spaces"),
        ("http://example.com/\r\nx: 1", "a URL holds printable ASCII without spaces"),
        ("http://exämple.com/", "a URL holds printable ASCII without spaces"),
        ("http://10.0.0.1/", "10.0.0.1 is no address of the public internet"),
        ("http://169.254.169.254/latest/meta-data", "169.254.169.254 is no address of the public internet"),
        ("http://[::ffff:10.0.0.1]/", "::ffff:10.0.0.1 is no address of the public internet"),
        ("http://[fe80::1%25eth0]/", "fe80::1%25eth0 is no address of the public internet"),
        ("http://10.1/", "10.1 is no address of the public internet"),
        ("http://0xa000001/", "0xa000001 is no address of the public internet"),
        ("http://0/", "0 is no address of the public internet"),
        ("http://example.com/" + "a" * 2048, "a webhook has at most 2048 characters"),
    ],
)
def test_a_webhook_may_not_be(url: str, what: str) -> None:
    with pytest.raises(UsageError) as refused:
        check_url(url, allow_loopback=True)

    assert refused.value.what == what


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.1", "2130706433", "[::1]", "localhost", "localhost.", "a.localhost"]
)
def test_this_machine_is_refused_where_it_is_not_allowed(host: str) -> None:
    check_url(f"http://{host}/", allow_loopback=True)

    with pytest.raises(UsageError):
        check_url(f"http://{host}/", allow_loopback=False)


@given(st.text(max_size=60).map(lambda text: f"http://{text}"))
def test_any_text_is_a_url_or_refused(text: str) -> None:
    with suppress(UsageError):
        check_url(text, allow_loopback=False)
