"""Health by probes: rise, fall, degraded, stale, slow start."""

import pytest

from syncfailover.errors import ConfigurationError
from syncfailover.policy.health import Health, HealthConfig, HealthStatus, ProbeResult, judge, slow_start

HEALTHY, DEGRADED = HealthStatus.HEALTHY, HealthStatus.DEGRADED
UNHEALTHY, UNKNOWN = HealthStatus.UNHEALTHY, HealthStatus.UNKNOWN


def health(max_latency_ms=100.0, **config):
    """Make what is known of an endpoint that was never probed."""
    return Health(HealthConfig(**config), max_latency_ms)


def probe(known, signs, now=0.0, latency_ms=10.0):
    """Feed probes, + for alive and - for dead; return the status after each."""
    return [
        known.observe(ProbeResult("a", sign == "+", "seen", latency_ms if sign == "+" else None), now)
        for sign in signs
    ]


@pytest.mark.parametrize(
    ("signs", "expected"),
    [
        ("+", [HEALTHY]),
        ("-", [UNHEALTHY]),
        ("+--", [HEALTHY] * 3),
        ("+---", [HEALTHY] * 3 + [UNHEALTHY]),
        ("+--+--", [HEALTHY] * 6),
        ("-+", [UNHEALTHY] * 2),
        ("-++", [UNHEALTHY] * 2 + [HEALTHY]),
        ("-+-+", [UNHEALTHY] * 4),
        ("+---+-++", [HEALTHY] * 3 + [UNHEALTHY] * 4 + [HEALTHY]),
    ],
)
def test_rise_and_fall(signs, expected):
    """The first check decides at once; then three bad ones in a row bring down and two good ones bring back."""
    assert probe(health(), signs) == expected


@pytest.mark.parametrize(("rise", "fall"), [(1, 1), (3, 2), (5, 5)])
def test_rise_and_fall_are_the_callers(rise, fall):
    """Exactly as many checks as were configured."""
    known = health(rise=rise, fall=fall)
    probe(known, "+")
    assert probe(known, "-" * fall) == [HEALTHY] * (fall - 1) + [UNHEALTHY]
    assert probe(known, "+" * rise) == [UNHEALTHY] * (rise - 1) + [HEALTHY]


def test_unknown_before_the_first_check():
    """What was never probed is UNKNOWN, never stale, and says so."""
    known = health()
    assert known.status is UNKNOWN
    assert known.detail == "not checked yet"
    assert known.goes_stale_at() is None
    assert not known.expire(1e9)


@pytest.mark.parametrize(("latency_ms", "expected"), [(99.9, HEALTHY), (100.0, DEGRADED), (500.0, DEGRADED)])
def test_slow_is_degraded(latency_ms, expected):
    """At or above the endpoint's maximum it is DEGRADED, below it HEALTHY."""
    assert probe(health(100.0), "+", latency_ms=latency_ms) == [expected]


def test_latency_is_smoothed():
    """One slow probe among quick ones degrades nothing, several do, and quick ones heal it again."""
    known = health(100.0)
    probe(known, "+++")
    assert probe(known, "+", latency_ms=250.0) == [HEALTHY]
    assert known.latency_ms == pytest.approx(10.0 + 0.3 * 240.0)
    assert probe(known, "+", latency_ms=250.0) == [DEGRADED]
    assert probe(known, "+++++", latency_ms=10.0)[-1] is HEALTHY


def test_a_failed_probe_has_no_latency():
    """It leaves the smoothed latency as it was."""
    known = health()
    probe(known, "+-")
    assert known.latency_ms == 10.0


def test_a_recovered_endpoint_may_be_degraded():
    """Rising with slow probes leads to DEGRADED, not to HEALTHY."""
    assert probe(health(), "-++", latency_ms=300.0)[-1] is DEGRADED


def test_what_is_too_old_is_unknown():
    """After three intervals and a timeout, and not before, it is forgotten."""
    known = health(interval_s=2.0, timeout_s=1.0)
    probe(known, "+", now=100.0)
    assert known.goes_stale_at() == 107.0
    assert not known.expire(106.9)
    assert known.status is HEALTHY
    assert known.expire(107.0)
    assert known.status is UNKNOWN
    assert known.detail == "last checked 7 s ago"
    assert not known.expire(200.0)


def test_after_growing_stale_the_next_check_decides_at_once():
    """Neither rise nor fall is asked for again."""
    known = health()
    probe(known, "-+", now=0.0)
    known.expire(100.0)
    assert probe(known, "+", now=100.0) == [HEALTHY]
    known.expire(200.0)
    assert probe(known, "-", now=200.0) == [UNHEALTHY]


def test_a_call_that_succeeds_keeps_it_fresh():
    """Live traffic postpones staleness, but is no probe for one that was never checked."""
    known = health(interval_s=2.0, timeout_s=1.0)
    known.confirm(5.0)
    assert known.goes_stale_at() is None
    probe(known, "+", now=100.0)
    known.confirm(106.0)
    assert known.goes_stale_at() == 113.0


@pytest.mark.parametrize(
    ("status", "alive", "key_refused"),
    [
        (200, True, False),
        (204, True, False),
        (301, True, False),
        (401, True, True),
        (403, True, True),
        (404, True, False),
        (405, True, False),
        (429, True, False),
        (500, False, False),
        (503, False, False),
        (529, False, False),
    ],
)
def test_what_a_status_proves(status, alive, key_refused):
    """Below 500 the host is alive; 401 and 403 say besides that the key is refused."""
    result = judge("a", status, 12.0)
    assert (result.alive, result.key_refused) == (alive, key_refused)
    assert (result.endpoint, result.status, result.latency_ms) == ("a", status, 12.0)
    assert str(status) in result.detail


@pytest.mark.parametrize(
    ("since_s", "share"),
    [(0.0, 0.1), (0.5, 0.1), (1.0, 0.1), (2.0, 0.2), (5.0, 0.5), (10.0, 1.0), (99.0, 1.0)],
)
def test_slow_start(since_s, share):
    """After a recovery the weight grows from a tenth to the whole over 10 s."""
    assert slow_start(100.0, 100.0 + since_s) == pytest.approx(share)


def test_without_a_recovery_there_is_no_slow_start():
    """One that was never down has its whole weight."""
    assert slow_start(None, 0.0) == 1.0


@pytest.mark.parametrize(
    ("option", "field"),
    [("rise", "rise"), ("fall", "fall"), ("interval_s", "probe_interval"), ("timeout_s", "probe_timeout")],
)
def test_a_number_that_cannot_work_is_refused(option, field):
    """The error names the field as the caller of a client knows it."""
    with pytest.raises(ConfigurationError, match=f"^{field}: 0 "):
        HealthConfig(**{option: 0})
