"""What pools tell one another and what they believe, rule by rule, and at random with delay and loss."""

import itertools
from typing import Any, Dict, List, Optional, Tuple

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from syncfailover.endpoint import Endpoint
from syncfailover.policy import outcome
from syncfailover.policy.entry import (
    BREAKER,
    HEALTH,
    KEY,
    KINDS,
    LONGEST_S,
    RESTS,
    STRIKES,
    Entry,
    decoded,
    encoded,
)
from syncfailover.policy.health import HealthStatus
from syncfailover.policy.sharing import Gossip, identity
from syncfailover.testing import ManualClock

#: What the peers' common clock says when a test begins.
WALL = 1_800_000_000.0


def about(seconds: float) -> Any:
    """Allow for the moments that the talk takes."""
    return pytest.approx(seconds, abs=0.02)


class Store:
    """Keeps the newest entry of each kind, as a store does."""

    def __init__(self) -> None:
        self.wall = ManualClock(WALL)
        self.kept: Dict[Tuple[str, str], Tuple[float, bytes]] = {}

    def write(self, entries: List[Entry]) -> None:
        """Keep what is newer than what is there."""
        for entry in entries:
            old = self.kept.get(entry[:2])
            if old is None or old[0] < entry.at:
                self.kept[entry[:2]] = entry.at, encoded(entry)

    def read(self) -> List[Entry]:
        """Return all there is, read anew."""
        return [decoded(*place, data, self.wall()) for place, (_at, data) in self.kept.items()]

    def value(self, kind: str) -> Any:
        """Return the one value there is of a kind; None where there is none."""
        found = [entry.value for entry in self.read() if entry.kind == kind]
        return found[0] if found else None


class Peer:
    """One process: a pool on a clock of its own, and its share in the talk."""

    def __init__(self, bench: Any, store: Store, name: str, chance: float = 0.0) -> None:
        self.bench, self.store, self.name = bench, store, name
        self.pool, self.clock = bench.pool, bench.clock
        self.gossip = Gossip(bench.pool, lambda: chance)

    @property
    def offset(self) -> float:
        """What the common clock is ahead."""
        return self.store.wall() - self.clock()

    def news(self) -> List[Entry]:
        """Return what it has to tell."""
        return self.gossip.tell(self.clock(), self.offset)

    def tell(self) -> List[Entry]:
        """Write what it has to tell, and return that."""
        entries = self.news()
        self.store.write(entries)
        self.gossip.written()
        return entries

    def hear(self) -> None:
        """Read what others have told."""
        assert self.gossip.hear(self.store.read(), self.clock(), self.offset) == []

    def node(self, name: str = "a") -> Any:
        """Return what it knows of an endpoint."""
        return self.pool.nodes[name]

    def breaker(self, name: str = "a") -> str:
        """Tell the state of a breaker."""
        return self.bench.breaker(name)

    def begin(self, name: str = "a") -> Any:
        """Begin a call to an endpoint, whether it is up or not."""
        attempt = self.pool.choose(self.clock(), None, frozenset(self.pool.nodes) - {name})
        return attempt or self.pool.begin(self.clock(), None)

    def fail(self, times: int = 1, name: str = "a") -> None:
        """Let calls fail."""
        for _ in range(times):
            self.bench.report(self.begin(name), outcome.SERVER_ERROR)

    def succeed(self, name: str = "a") -> None:
        """Let a call succeed."""
        self.bench.report(self.begin(name))

    def refuse_key(self, name: str = "a") -> None:
        """Let a call find that the key is refused."""
        self.bench.report(self.begin(name), outcome.KEY_REFUSED)

    def limit(self, model: Optional[str], seconds: float, name: str = "a") -> None:
        """Let a call find that a model is to be left alone for a while."""
        attempt = self.pool.choose(self.clock(), model, frozenset(self.pool.nodes) - {name})
        self.bench.report(attempt, outcome.RATE_LIMIT, retry_after_s=seconds)


class Circle:
    """Some peers, and the store where they meet."""

    def __init__(self, bench: Any, endpoints: Any) -> None:
        self._bench, self._endpoints = bench, endpoints
        self.store = Store()
        self.peers: List[Peer] = []

    def join(self, chance: float = 0.0, **options: Any) -> Peer:
        """Let one more process begin, on a clock that has nothing to do with those of the others."""
        bench = self._bench(*self._endpoints, **options)
        bench.clock = ManualClock(1000.0 * (len(self.peers) + 1) ** 2)
        peer = Peer(bench, self.store, f"peer {len(self.peers)}", chance)
        self.peers.append(peer)
        return peer

    def advance(self, seconds: float) -> None:
        """Let time pass for all."""
        for clock in (self.store.wall, *(peer.clock for peer in self.peers)):
            clock.advance(seconds)

    def talk(self) -> None:
        """Let all tell and hear until nobody has anything to say."""
        for _ in range(10):
            self.advance(0.001)
            told = [entry for peer in self.peers for entry in peer.tell()]
            for peer in self.peers:
                peer.hear()
            if not told and not any(peer.gossip.has_news() for peer in self.peers):
                break
        else:
            pytest.fail("they never stop talking")


@pytest.fixture
def circle(bench: Any) -> Circle:
    """A circle of nobody yet, around one endpoint."""
    return Circle(bench, ["a"])


# Who is meant


def test_peers_know_an_endpoint_by_its_name_place_and_key() -> None:
    """Another name, place, health path or key is another endpoint; weight and priority are one's own affair."""
    one = Endpoint("a", "http://h/v1", "sk-1")
    same = one.replace(weight=5, priority=3, max_latency_ms=1.0)
    others = [one.replace(name="b"), one.replace(base_url="http://i/v1"), one.replace(api_key="sk-2")]
    others += [one.replace(health_check_path="/up"), one.replace(api_key=None)]
    assert identity(same) == identity(one)
    assert len({identity(endpoint) for endpoint in (one, *others)}) == 6


def test_an_identity_shows_no_key() -> None:
    """What a store sees of a key is a part of a digest."""
    assert "sk" not in identity(Endpoint("a", "http://h/v1", "sk-secret"))
    assert identity(Endpoint("a", "http://h/v1", lambda: "sk-1")) == identity(
        Endpoint("a", "http://h/v1", lambda: "sk-2")
    )


def test_of_an_endpoint_that_is_not_ours_nothing_is_heard(circle: Circle) -> None:
    """The identity is given back, and nothing changes."""
    peer = circle.join()
    entry = Entry("unknown", STRIKES, WALL, WALL + 60, {"failures": 2, "since": WALL})
    assert peer.gossip.hear([entry], peer.clock(), peer.offset) == ["unknown"]
    assert peer.node().breaker.failures == 0


def test_what_is_over_is_not_heard(circle: Circle) -> None:
    """An entry past its end changes nothing."""
    one, two = circle.join(), circle.join()
    one.bench.probe("a", "-")
    one.tell()
    circle.advance(one.node().health.stale_after_s + 0.1)
    two.hear()
    assert two.node().health.status is HealthStatus.UNKNOWN


# Health


def test_whoever_probed_last_is_right(circle: Circle) -> None:
    """A peer's later probe counts, an earlier one does not, whenever it is told."""
    one, two = circle.join(), circle.join()
    one.bench.probe("a", "-")
    late = one.news()
    circle.advance(1.0)
    two.bench.probe("a", "+")
    circle.store.write(late)
    two.hear()
    assert two.node().health.status is HealthStatus.HEALTHY
    two.tell()
    one.hear()
    assert one.node().health.status is HealthStatus.HEALTHY


def test_a_peer_goes_on_where_the_prober_left_off(circle: Circle) -> None:
    """Two failed probes of one process and one of its successor make three."""
    one, two = circle.join(), circle.join()
    one.bench.probe("a", "+--")
    circle.talk()
    circle.advance(1.0)
    assert two.node().health.status is HealthStatus.HEALTHY
    two.bench.probe("a", "-")
    assert two.node().health.status is HealthStatus.UNHEALTHY


def test_an_endpoint_that_peers_probe_does_not_go_stale(circle: Circle) -> None:
    """Hearsay is as fresh as the probe was, on the hearer's clock."""
    one, two = circle.join(), circle.join()
    for _ in range(6):
        one.bench.probe("a", "+")
        circle.talk()
        circle.advance(5.0)
        assert two.pool.snapshot(two.clock())["a"].status is HealthStatus.HEALTHY
    circle.advance(2.1)
    assert two.pool.snapshot(two.clock())["a"].status is HealthStatus.UNKNOWN


def test_a_recovery_that_a_peer_probed_lets_a_trial_pass(circle: Circle) -> None:
    """Probes that had failed succeed again: a breaker that is open here goes half-open early."""
    one, two = circle.join(), circle.join()
    one.bench.probe("a", "---")
    two.fail(3)
    two.node().breaker.failed_trials = 1  # or the peer's word of CLOSED would do it as well
    circle.talk()
    assert two.breaker() == "open"
    circle.advance(1.0)
    one.bench.probe("a", "+")
    circle.talk()
    assert two.breaker() == "open", "one good probe is no recovery"
    circle.advance(1.0)
    one.bench.probe("a", "+")
    circle.talk()
    assert two.breaker() == "half_open"


def test_a_new_prober_that_never_saw_it_fail_is_no_recovery_at_once(circle: Circle) -> None:
    """A peer's first good probe does not make up for what was seen to fail here."""
    one, two = circle.join(), circle.join()
    two.bench.probe("a", "---")
    two.fail(3)
    circle.advance(10.0)
    one.bench.probe("a", "+")
    one.tell()
    two.hear()
    assert two.breaker() == "open"
    circle.advance(1.0)
    one.bench.probe("a", "+")
    one.tell()
    two.hear()
    assert two.breaker() == "half_open"


# Breaker


def test_a_peers_open_opens(circle: Circle) -> None:
    """Whoever has not asked yet sends nothing to what is broken, and says why."""
    one, two = circle.join(), circle.join()
    one.fail(3)
    circle.talk()
    assert two.breaker() == "open"
    state = two.pool.snapshot(two.clock())["a"]
    assert not state.eligible
    assert state.reason == "server_error"
    assert ("breaker_opened", "a") in two.bench.events()


def test_who_had_an_answer_since_knows_better(circle: Circle) -> None:
    """An answer to a call begun after the failures keeps a breaker closed, and peers hear of that."""
    one, two, three = circle.join(), circle.join(), circle.join()
    one.fail()
    circle.advance(1.0)
    two.succeed()
    circle.advance(1.0)
    one.fail(2)
    one.tell()
    for peer in (two, three):
        peer.hear()
    assert (two.breaker(), three.breaker()) == ("closed", "open")
    circle.talk()
    assert (one.breaker(), three.breaker()) == ("half_open", "closed")


def test_an_answer_to_an_older_call_says_nothing(circle: Circle) -> None:
    """What was asked before the failures began, and answered after, does not contradict them."""
    one, two = circle.join(), circle.join()
    attempt = two.begin()
    circle.advance(1.0)
    one.fail(3)
    circle.advance(1.0)
    one.tell()
    two.hear()
    two.bench.report(attempt)
    assert two.breaker() == "open"


def test_an_answer_that_comes_later_contradicts_too(circle: Circle) -> None:
    """A call begun after the failures, under way when OPEN was heard, closes it, for the others as well."""
    one, two, three = circle.join(), circle.join(), circle.join()
    one.fail(3)
    circle.advance(0.1)
    attempt = two.begin()
    circle.talk()
    assert (two.breaker(), three.breaker()) == ("open", "open")
    circle.advance(1.0)
    two.bench.report(attempt)
    assert two.breaker() == "closed"
    circle.talk()
    assert (one.breaker(), three.breaker()) == ("half_open", "closed")


def test_the_opener_tries_first(circle: Circle) -> None:
    """On a peer's word one waits 5 to 20 % of the recovery timeout longer than the peer itself."""
    one, early, late = circle.join(), circle.join(0.0), circle.join(1.0)
    one.fail(3)
    circle.talk()
    waits = [peer.node().breaker.next_try_at(peer.clock()) - peer.clock() for peer in (one, early, late)]
    assert waits == [about(30.0), about(31.5), about(36.0)]
    circle.advance(30.0)
    assert not early.pool.snapshot(early.clock())["a"].eligible
    one.succeed()
    circle.talk()
    assert [peer.breaker() for peer in circle.peers] == ["closed"] * 3


def test_a_trial_that_fails_lengthens_what_was_believed(circle: Circle) -> None:
    """The others wait for the next trial of whoever is trying, and count its failures for their own."""
    one, two = circle.join(recovery_backoff=2.0), circle.join(recovery_backoff=2.0)
    one.fail(3)
    circle.talk()
    circle.advance(30.0)
    one.fail()
    circle.talk()
    assert two.breaker() == "open"
    assert two.node().breaker.next_try_at(two.clock()) - two.clock() == about(60.0 + 1.5)
    circle.advance(61.5)
    two.fail()
    assert two.node().breaker.next_try_at(two.clock()) - two.clock() == about(120.0)


def test_a_peers_closed_never_closes_what_was_found_out_here(circle: Circle) -> None:
    """It lets a trial pass early, once: after one that failed here, only time does."""
    one, two = circle.join(), circle.join()
    one.fail(3)
    two.fail(3)
    circle.talk()
    circle.advance(30.0)
    one.succeed()
    circle.talk()
    assert (one.breaker(), two.breaker()) == ("closed", "half_open")
    two.fail()
    assert two.breaker() == "open"
    circle.advance(0.1)
    one.succeed()
    circle.talk()
    assert two.breaker() == "open"


def test_what_peers_open_starts_slowly_when_it_is_closed(circle: Circle) -> None:
    """After an outage that was only heard of, weight grows back as after one's own."""
    one, two = circle.join(), circle.join()
    one.fail(3)
    circle.talk()
    circle.advance(30.0)
    one.succeed()
    circle.talk()
    assert two.node().weight(two.clock()) == about(0.1)


def test_what_an_operator_ordered_is_told_nobody(circle: Circle) -> None:
    """Neither `force_open`, nor `disable`, nor the `reset` that ends them, nor one that ends a peer's OPEN."""
    one, two = circle.join(), circle.join()
    for order in ("force_open", "reset", "disable", "reset"):
        one.pool.control("a", order, one.clock())
        assert one.tell() == []
    two.refuse_key()
    two.fail(3)
    circle.talk()
    assert one.breaker() == "open"
    one.pool.control("a", "reset", one.clock())
    assert (one.breaker(), one.tell()) == ("closed", [])
    two.hear()
    assert two.breaker() == "open"
    assert not two.node().open_to_calls(two.clock())


@pytest.mark.parametrize(("order", "state"), [("force_open", "forced_open"), ("disable", "disabled")])
def test_an_operators_order_stands_whatever_peers_tell(circle: Circle, order: str, state: str) -> None:
    """OPEN and CLOSED of others change nothing until reset."""
    one, two = circle.join(), circle.join()
    two.pool.control("a", order, two.clock())
    one.fail(3)
    circle.talk()
    assert two.breaker() == state
    circle.advance(30.0)
    one.succeed()
    circle.talk()
    assert two.breaker() == state


def test_an_open_of_long_ago_is_a_trial_for_whoever_comes_now(circle: Circle) -> None:
    """When the time of an OPEN is over, a program that starts tries once, and the others wait for it."""
    one = circle.join()
    one.fail(3)
    one.tell()
    circle.advance(40.0)
    two = circle.join()
    two.hear()
    assert two.pool.begin(two.clock(), None).grant.trial == 1
    assert two.breaker() == "half_open"


def test_nobody_stays_open_longer_than_its_own_configuration_allows(circle: Circle) -> None:
    """A peer that waits for hours does not make this one wait for hours."""
    one, two = circle.join(recovery_timeout=5000.0), circle.join(max_recovery_timeout=60.0)
    one.fail(3)
    circle.talk()
    assert two.node().breaker.next_try_at(two.clock()) - two.clock() == about(66.0 + 1.5)


def test_a_trial_under_way_is_not_disturbed(circle: Circle) -> None:
    """While a trial is out its result decides, not what a peer tells meanwhile."""
    one, two = circle.join(), circle.join()
    one.fail(3)
    two.fail(3)
    circle.talk()
    circle.advance(33.0)
    attempt = two.begin()
    one.fail()
    circle.talk()
    assert two.breaker() == "half_open"
    two.bench.report(attempt)
    assert two.breaker() == "closed"


def test_what_waits_for_a_trial_waits_on_where_a_peers_has_failed(circle: Circle) -> None:
    """Let half-open early by a peer that had closed, it is open again when that peer is."""
    one, two = circle.join(), circle.join()
    one.fail(3)
    two.fail(3)
    circle.talk()
    circle.advance(30.0)
    one.succeed()
    circle.talk()
    assert two.breaker() == "half_open"
    circle.advance(1.0)
    one.fail(3)
    circle.talk()
    assert two.breaker() == "open"


def test_a_second_peers_shorter_word_shortens_nothing(circle: Circle) -> None:
    """Of two that say OPEN, the one that waits longer is believed."""
    one, two, three = circle.join(), circle.join(recovery_timeout=5.0), circle.join()
    one.fail(3)
    one.tell()
    three.hear()
    circle.advance(1.0)
    two.fail(3)
    two.tell()
    three.hear()
    assert three.node().breaker.next_try_at(three.clock()) - three.clock() == about(29.0 + 1.5)


# Strikes


def test_short_programs_go_on_counting(circle: Circle) -> None:
    """Of three programs that each fail once, the third opens the breaker for the fourth."""
    for strikes in range(3):
        program = circle.join()
        program.hear()
        assert program.node().breaker.failures == strikes
        program.fail()
        program.tell()
        circle.advance(60.0)
    fourth = circle.join()
    fourth.hear()
    assert fourth.breaker() == "open"


def test_who_has_asked_already_counts_for_himself(circle: Circle) -> None:
    """Strikes of a peer do not add to those of a pool that knows the endpoint."""
    one, two, three = circle.join(), circle.join(), circle.join()
    two.succeed()
    three.fail()
    one.fail(2)
    one.tell()
    for peer in (two, three):
        peer.hear()
    assert (two.node().breaker.failures, three.node().breaker.failures) == (0, 1)


def test_strikes_alone_open_nothing(circle: Circle) -> None:
    """Whoever opens sooner than a peer still has to see it fail itself."""
    one, two = circle.join(failure_threshold=9), circle.join(failure_threshold=3)
    one.fail(8)
    circle.talk()
    assert (two.breaker(), two.node().breaker.failures) == ("closed", 2)
    two.fail()
    assert two.breaker() == "open"


@pytest.mark.parametrize("teller", [0, 1])
def test_an_answer_wipes_out_strikes(circle: Circle, teller: int) -> None:
    """Whoever had it, and whoever had counted them: only failures in a row count."""
    one, two = circle.join(), circle.join()
    one.fail(2)
    circle.talk()
    circle.advance(1.0)
    circle.peers[teller].succeed()
    circle.talk()
    fresh = circle.join()
    fresh.hear()
    assert fresh.node().breaker.failures == 0
    assert two.breaker() == "closed"


def test_whoever_knows_nothing_wipes_out_nothing(circle: Circle) -> None:
    """A pool without failures that has had no answer since leaves the strikes of others alone."""
    one, two = circle.join(), circle.join()
    two.succeed()
    circle.advance(1.0)
    one.fail(2)
    circle.talk()
    two.bench.probe("a", "+")
    circle.talk()
    assert circle.store.value(STRIKES)["failures"] == 2


# Keys


def test_a_key_that_is_refused_rests_everywhere(circle: Circle) -> None:
    """One process finds it out, all leave the key alone and say why."""
    one, two = circle.join(), circle.join()
    one.refuse_key()
    circle.talk()
    state = two.pool.snapshot(two.clock())["a"]
    assert (state.eligible, state.reason) == (False, "key rests: key_refused")
    assert two.node().key_rests_until - two.clock() == about(3600.0)
    assert ("key_rests", "a") in two.bench.events()


def test_a_call_that_was_answered_with_the_key_ends_its_rest_everywhere(circle: Circle) -> None:
    """It was begun since the key rests, by whoever had only heard of that."""
    one, two, three = circle.join(), circle.join(), circle.join()
    one.refuse_key()
    circle.advance(0.1)
    attempt = two.begin()
    circle.talk()
    assert not any(peer.node().open_to_calls(peer.clock()) for peer in circle.peers)
    circle.advance(1.0)
    two.bench.report(attempt)
    circle.talk()
    assert all(peer.node().open_to_calls(peer.clock()) for peer in circle.peers)
    assert three.node().key_rests_until == 0.0


def test_a_prober_ends_the_rest_that_another_prober_began(circle: Circle) -> None:
    """The key was mended after the prober had died: its successor's probes say so, and all use it again."""
    one, two, three = circle.join(), circle.join(), circle.join()
    one.bench.probe("a", "+", key_refused=True)
    circle.talk()
    circle.advance(5.0)
    assert not three.node().open_to_calls(three.clock())
    two.bench.probe("a", "+")
    circle.talk()
    assert [peer.node().key_rests_until for peer in circle.peers] == [0.0] * 3


def test_a_refusal_of_before_the_answer_is_not_believed(circle: Circle) -> None:
    """Who has had an answer since the key was refused goes on using it."""
    one, two = circle.join(), circle.join()
    one.refuse_key()
    entries = one.news()
    circle.advance(1.0)
    two.succeed()
    circle.store.write(entries)
    two.hear()
    assert two.node().open_to_calls(two.clock())


def test_the_end_of_an_older_rest_ends_no_later_one(circle: Circle) -> None:
    """The latest news counts, not what is heard last."""
    one, two = circle.join(), circle.join()
    one.refuse_key()
    circle.talk()
    circle.advance(1.0)
    attempt = one.bench.pool.begin(one.clock(), None)
    one.bench.report(attempt)
    end = one.news()
    circle.advance(1.0)
    two.pool.control("a", "reset", two.clock())
    two.refuse_key()
    two.gossip.hear(end, two.clock(), two.offset)
    assert not two.node().open_to_calls(two.clock())


def test_a_rest_that_is_over_by_itself_is_no_news(circle: Circle) -> None:
    """When its time has come, nobody need be told."""
    one = circle.join()
    one.refuse_key()
    one.tell()
    circle.advance(3601.0)
    one.bench.probe("a", "+")
    assert {entry.kind for entry in one.tell()} == {HEALTH}


def test_no_key_rests_for_longer_than_six_hours_on_a_peers_word(circle: Circle) -> None:
    """Whatever the peer says."""
    peer = circle.join()
    entry = Entry(
        peer.gossip.identities["a"],
        KEY,
        WALL,
        WALL + LONGEST_S,
        {"until": WALL + 1e8, "by_probe": False, "reason": ""},
    )
    peer.gossip.hear([entry], peer.clock(), peer.offset)
    assert peer.node().key_rests_until - peer.clock() == about(6 * 3600.0)


# Pauses


def rests_until(peer: Peer, model: Optional[str]) -> float:
    """Return for how many seconds a pair still rests there."""
    peer.pool.roster.now = peer.clock()
    return max(0.0, peer.pool.roster.rests.until("a", model) - peer.clock())


def test_a_model_that_is_to_be_left_alone_is_left_alone_by_all(circle: Circle) -> None:
    """For as long as the reply said, on each one's own clock; other models go on."""
    one, two = circle.join(), circle.join()
    one.limit("m", 20.0)
    circle.advance(1.0)
    circle.talk()
    assert rests_until(two, "m") == about(19.0)
    assert rests_until(two, "n") == rests_until(two, None) == 0.0


def test_pauses_of_many_are_merged(circle: Circle) -> None:
    """Two that find out something at once do not write over one another for long."""
    one, two = circle.join(), circle.join()
    one.limit("m", 20.0)
    two.limit("n", 30.0)
    mine = one.news()
    circle.advance(0.1)
    yours = two.news()
    circle.store.write(mine)
    circle.store.write(yours)
    circle.talk()
    fresh = circle.join()
    fresh.hear()
    for peer in circle.peers:
        assert rests_until(peer, "m") == about(19.9)
        assert rests_until(peer, "n") == about(29.9)


def test_a_pause_that_an_answer_ended_is_ended_everywhere(circle: Circle) -> None:
    """And no list of a peer that still holds it brings it back."""
    one, two = circle.join(), circle.join()
    one.limit("m", 20.0)
    circle.advance(0.1)
    attempt = two.pool.choose(two.clock(), "m")
    circle.talk()
    assert rests_until(two, "m") > 0.0
    one.limit("n", 30.0)
    circle.talk()
    circle.advance(0.1)
    two.bench.report(attempt)
    circle.talk()
    fresh = circle.join()
    fresh.hear()
    for peer in circle.peers:
        assert rests_until(peer, "m") == 0.0
        assert rests_until(peer, "n") > 0.0


def test_the_latest_news_of_a_pair_counts(circle: Circle) -> None:
    """A later rest replaces an earlier one, however late the earlier one is told."""
    one, two = circle.join(), circle.join()
    one.limit("m", 60.0)
    early = one.news()
    circle.advance(1.0)
    two.limit("m", 5.0)
    two.gossip.hear(early, two.clock(), two.offset)
    assert rests_until(two, "m") == about(5.0)
    two.tell()
    one.hear()
    assert rests_until(one, "m") == about(5.0)


def test_pauses_that_are_over_are_no_news(circle: Circle) -> None:
    """Of several, one that has come to its end is not worth a word."""
    one = circle.join()
    one.limit("m", 5.0)
    one.limit("n", 60.0)
    one.tell()
    circle.advance(10.0)
    one.bench.probe("a", "+")
    assert {entry.kind for entry in one.tell()} == {HEALTH}


def test_more_pauses_than_an_entry_holds_do_no_harm(circle: Circle) -> None:
    """The longest are told, and the talk comes to an end."""
    one, two = circle.join(), circle.join()
    for n in range(50):
        one.limit(f"model-{n}", 10.0 + n)
        two.limit(f"other-{n}", 10.0 + n)
    circle.talk()
    assert len(circle.store.value(RESTS)["pairs"]) == 32


# No echo


def everything(peer: Peer) -> None:
    """Let one pool find out something of each kind."""
    peer.bench.probe("a", "+--")
    peer.limit("m", 60.0)
    peer.fail(2)
    peer.refuse_key()
    peer.fail(3, "b")


def test_nobody_repeats_what_he_was_told(bench: Any) -> None:
    """Of three pools one finds out something of each kind; the others say nothing, whatever else they have to say."""
    circle = Circle(bench, ["a", "b"])
    one, two, three = (circle.join() for _ in range(3))
    everything(one)
    told = one.tell()
    assert sorted(entry.kind for entry in told) == sorted(KINDS)
    for _ in range(3):
        for peer in (two, three):
            peer.hear()
            for name in ("a", "b"):
                peer.pool.knowledge.news.add(name)
            assert peer.tell() == []
            peer.gossip.retell()
            assert peer.tell() == []
        circle.advance(0.1)
    one.hear()
    assert one.tell() == []


def test_what_was_told_comes_back_as_nothing_new(bench: Any) -> None:
    """Reading one's own words does not turn them into hearsay."""
    circle = Circle(bench, ["a", "b"])
    one = circle.join()
    for _ in range(20):  # times that are rounded up, and times that are rounded down
        circle.advance(0.0314159265)
        everything(one)
        one.tell()
        one.hear()
        assert not one.node().health.hearsay
        assert one.node().key_found_at is not None
        assert not any(rest.hearsay for _model, rest in one.pool.roster.rests.of("a"))
        for name in ("a", "b"):
            one.pool.control(name, "reset", one.clock())


def test_a_program_that_starts_does_not_say_closed(circle: Circle) -> None:
    """Whoever only heard that it was mended does not say so again: it may be broken by then."""
    one, two = circle.join(), circle.join()
    one.fail(3)
    circle.advance(30.0)
    one.succeed()
    one.tell()
    two.hear()
    two.bench.probe("a", "+")
    assert {entry.kind for entry in two.tell()} == {HEALTH}


# Time


def test_news_has_the_time_when_it_was_found_out(circle: Circle) -> None:
    """Told late, because the store was away, it is no later news than what others have found out since."""
    one, two, three = circle.join(), circle.join(), circle.join()
    one.fail(3)
    circle.talk()
    circle.advance(30.0)
    one.succeed()  # nobody hears of it yet
    circle.advance(10.0)
    two.fail()
    assert two.breaker() == "open"
    two.tell()
    circle.advance(10.0)
    one.tell()
    for peer in (two, three):
        peer.hear()
    assert (two.breaker(), three.breaker()) == ("open", "open")
    assert circle.store.value(BREAKER)["open"]


def test_an_outage_that_is_told_late_does_not_undo_its_end(circle: Circle) -> None:
    """A peer has seen it answer since."""
    one, two, three = circle.join(), circle.join(), circle.join()
    two.fail(3)
    circle.talk()
    circle.advance(31.5)
    one.fail()
    circle.advance(31.5)
    two.succeed()
    two.tell()
    circle.advance(1.0)
    one.tell()
    three.hear()
    assert three.breaker() == "closed"
    assert circle.store.value(BREAKER) == {"open": False}


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_store_has_lost_is_told_again_as_old_as_it_is(bench: Any, kind: str) -> None:
    """A file that was deleted is filled again, with the times of before."""
    circle = Circle(bench, ["a", "b"])
    one = circle.join()
    everything(one)
    one.tell()
    before = dict(circle.store.kept)
    circle.store.kept.clear()
    circle.advance(3.0)
    one.gossip.retell()
    one.tell()
    places = [place for place in before if place[1] == kind]
    assert places
    for place in places:
        at, data = circle.store.kept[place]
        assert at == pytest.approx(before[place][0], abs=1e-5)
        assert decoded(*place, data, WALL + 3.0).at == at
    assert one.tell() == []


def test_news_that_did_not_arrive_is_told_again(circle: Circle) -> None:
    """And there is news until it has arrived."""
    one = circle.join()
    one.fail(3)
    assert one.gossip.has_news()
    lost = one.news()
    assert one.gossip.has_news()
    one.gossip.retell()
    assert one.tell() == lost
    assert not one.gossip.has_news()


def test_what_cannot_be_told_now_gets_its_time_now(circle: Circle) -> None:
    """Strikes that were counted while a store was away are not newer than what peers say when it is back."""
    one, two = circle.join(), circle.join()
    one.fail(2)
    one.gossip.postpone(one.clock())
    circle.advance(100.0)
    two.hear()
    two.fail()
    two.tell()
    circle.advance(1.0)
    one.tell()
    assert circle.store.value(STRIKES)["failures"] == 1


@pytest.mark.parametrize("seconds", [3600.0, -3600.0])
def test_a_wall_clock_that_is_put_right_does_not_end_the_talk(circle: Circle, seconds: float) -> None:
    """An hour forward or back: what is found out from then on is heard, and what was found out before once retold."""
    one, two = circle.join(), circle.join()
    one.bench.probe("a", "+")
    one.fail(3)
    circle.talk()
    circle.advance(1.0)
    circle.store.wall = ManualClock(circle.store.wall() + seconds)
    circle.store.kept.clear()  # a store drops what comes from the future, and what is over
    for peer in circle.peers:
        peer.gossip.retell()
    one.bench.probe("a", "---")
    circle.talk()
    assert two.node().health.status is HealthStatus.UNHEALTHY
    fresh = circle.join()
    fresh.hear()
    assert fresh.breaker() == "open"
    assert fresh.node().breaker.next_try_at(fresh.clock()) - fresh.clock() == about(29.0 + 1.5)


# At random


class Talk(RuleBasedStateMachine):
    """Three processes, two endpoints that come and go, and a store that loses and delays."""

    bench: Any = None

    @initialize()
    def begin(self) -> None:
        """Start three processes and two endpoints."""
        self.circle = Circle(self.bench, ["a", "b"])
        self.up = {"a": True, "b": True}
        self.calls: List[Tuple[Peer, Any]] = []
        self.on_the_way: List[List[Entry]] = []
        for _ in range(3):
            self.circle.join(0.5)

    peers = st.integers(0, 2)
    names = st.sampled_from("ab")

    @rule(name=names)
    def turn(self, name: str) -> None:
        """Let an endpoint die, or come back."""
        self.up[name] = not self.up[name]

    @rule(seconds=st.sampled_from([0.01, 1.0, 5.0, 31.0, 400.0]))
    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.circle.advance(seconds)

    @rule(number=peers, model=st.sampled_from([None, "m"]))
    def begin_call(self, number: int, model: Optional[str]) -> None:
        """Let a call begin."""
        peer = self.circle.peers[number]
        attempt = peer.pool.begin(peer.clock(), model)
        if attempt is not None:
            self.calls.append((peer, attempt))

    @rule(what=st.sampled_from([None, outcome.RATE_LIMIT, outcome.KEY_REFUSED, outcome.REJECTED]))
    def end_call(self, what: Any) -> None:
        """Let the oldest call end, well if its endpoint is up."""
        if self.calls:
            peer, attempt = self.calls.pop(0)
            if not self.up[attempt.endpoint.name]:
                what = outcome.SERVER_ERROR
            peer.bench.report(attempt, what or outcome.OK)

    @rule(number=peers, name=names)
    def call_thrice(self, number: int, name: str) -> None:
        """Let three calls of one process begin and end."""
        for _ in range(3):
            peer = self.circle.peers[number]
            attempt = peer.pool.choose(peer.clock(), None, frozenset("ab") - {name})
            if attempt is not None:
                self.calls.insert(0, (peer, attempt))
                self.end_call(None)

    @rule(number=peers, name=names, refused=st.booleans())
    def probe(self, number: int, name: str, refused: bool) -> None:
        """Let a process probe."""
        self.circle.advance(0.001)
        sign = "+" if self.up[name] else "-"
        self.circle.peers[number].bench.probe(name, sign, key_refused=refused and self.up[name])

    @rule(number=peers, name=names, order=st.sampled_from(["force_open", "disable", "reset"]))
    def order(self, number: int, name: str, order: str) -> None:
        """Let an operator interfere."""
        peer = self.circle.peers[number]
        peer.pool.control(name, order, peer.clock())

    @rule(number=peers)
    def tell(self, number: int) -> None:
        """Let a process send what it has to tell on its way."""
        self.on_the_way.append(self.circle.peers[number].news())

    @rule(number=peers)
    def tell_in_vain(self, number: int) -> None:
        """Let a process find that the store is away."""
        peer = self.circle.peers[number]
        peer.gossip.postpone(peer.clock())

    @rule(nth=st.integers(0, 5))
    def arrive(self, nth: int) -> None:
        """Let what is on its way arrive, in any order."""
        if self.on_the_way:
            self.circle.store.write(self.on_the_way.pop(nth % len(self.on_the_way)))

    @rule(number=peers)
    def hear(self, number: int) -> None:
        """Let a process hear."""
        self.circle.peers[number].hear()

    @rule()
    def lose(self) -> None:
        """Let the store lose everything."""
        self.circle.store.kept.clear()

    @rule(number=peers)
    def restart(self, number: int) -> None:
        """Let a process end, and another one begin."""
        old, new = self.circle.peers[number], self.circle.join(0.5)
        self.circle.peers[number] = self.circle.peers.pop()
        self.calls = [call for call in self.calls if call[0] is not old]
        new.hear()

    def teardown(self) -> None:
        """Let it all end well: everybody is told everything, agrees, and serves again when the endpoints do."""
        if not hasattr(self, "circle"):
            return
        circle = self.circle
        while self.calls:
            self.end_call(None)
        for entries in self.on_the_way:
            circle.store.write(entries)
        circle.advance(0.1)
        self._agree()

        self.up = dict.fromkeys(self.up, True)
        for peer, name in itertools.product(circle.peers, "ab"):
            if peer.breaker(name) in ("forced_open", "disabled"):
                peer.pool.control(name, "reset", peer.clock())
        circle.advance(7 * 3600.0)
        for _ in range(3):
            for peer, name in itertools.product(circle.peers, "ab"):
                peer.bench.probe(name, "++")
                attempt = peer.pool.choose(peer.clock(), None, frozenset("ab") - {name})
                assert attempt is not None, (
                    f"{name} is left alone for ever: {peer.pool.snapshot(peer.clock())}"
                )
                peer.bench.report(attempt)
            self._agree()
            circle.advance(1.0)
        states = {peer.breaker(name) for peer in circle.peers for name in "ab"}
        assert states == {"closed"}

    def _agree(self) -> None:
        """Let all talk until nobody has anything to say, and see that they think the same of the endpoints' health."""
        circle = self.circle
        for peer in circle.peers:
            peer.gossip.retell()
        circle.talk()
        for name in "ab":
            healths = [(peer.node(name).health, peer) for peer in circle.peers]
            times = {round((h.probed_at or -1e9) + peer.offset, 3) for h, peer in healths}
            own = [h.probed_at + peer.offset for h, peer in healths if h.probed_at and not h.hearsay]
            if own and max(own) > circle.store.wall() - 6.9:
                assert len(times) == 1, "all have heard of the latest probe"
            if len(times) == 1:
                statuses = {peer.pool.snapshot(peer.clock())[name].status for _, peer in healths}
                # A call of one's own keeps what is known fresh, or doubts it.
                assert len(statuses - {HealthStatus.UNKNOWN}) <= 1, statuses


def test_talk_at_random(bench: Any) -> None:
    """Nothing crashes, all agree when nobody acts any more, and nobody stays down when the endpoints are up."""
    Talk.bench = bench
    run_state_machine_as_test(Talk, settings=settings(max_examples=60, stateful_step_count=40))
