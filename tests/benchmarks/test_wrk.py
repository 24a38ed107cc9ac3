"""What wrk prints, read."""

from __future__ import annotations

import pytest
from wrk import parse

SAID = """\
Running 2s test @ http://127.0.0.1:8000/echo
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     4.60ms    1.02ms  20.31ms   93.26%
    Req/Sec     7.02k   605.14     7.70k    80.00%
  Latency Distribution
     50%  {p50}
     75%    4.76ms
     90%    5.13ms
     99%  {p99}
  13980 requests in 2.00s, 2.64MB read
Requests/sec:   6990.12
Transfer/sec:      1.32MB
"""


@pytest.mark.parametrize(
    ("p50", "p99", "expected"),
    [
        ("  4.41ms", "  9.87ms", (4.41, 9.87)),
        ("223.00us", "  1.20s ", (0.223, 1200.0)),
        ("  1.50s", "  1.02m", (1500.0, 61_200.0)),
    ],
)
def test_figures(p50: str, p99: str, expected: tuple[float, float]) -> None:
    turn = parse(SAID.format(p50=p50, p99=p99), 1.398)

    assert turn.per_s == 6990.12
    assert (turn.p50_ms, turn.p99_ms) == pytest.approx(expected)
    assert turn.cpu_us == pytest.approx(100)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("  Non-2xx or 3xx responses: 6552\n", "Non-2xx or 3xx responses: 6552"),
        ("  Socket errors: connect 0, read 3, write 0, timeout 0\n", "read 3"),
    ],
)
def test_a_request_that_failed_is_no_figure(line: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse(SAID.format(p50="1.00ms", p99="1.00ms").replace("Requests/sec", line + "Requests/sec"), 1.0)


def test_no_request_at_all_is_no_figure() -> None:
    with pytest.raises(ValueError, match="no request was answered"):
        parse(SAID.format(p50="0.00us", p99="0.00us").replace("13980 requests in", "0 requests in"), 1.0)
