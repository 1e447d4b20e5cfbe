"""Every balancer keeps the contract; each of them, besides, what its name promises."""

from collections import Counter
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncfailover.endpoint import Endpoint
from syncfailover.errors import ConfigurationError
from syncfailover.policy.balancer import (
    BALANCERS,
    Cheapest,
    LeastBusy,
    LowestLatency,
    RoundRobin,
    WeightedRoundRobin,
    balancer_from,
)

NAMES = sorted(BALANCERS)


def minimal(name, weight=1, latency_ms=None, in_flight=0, **fields):
    """Make a candidate that has what DESIGN.md promises and nothing else."""
    endpoint = Endpoint(name, "http://127.0.0.1:1/v1", weight=weight, **fields)
    return SimpleNamespace(endpoint=endpoint, latency_ms=latency_ms, in_flight=in_flight)


def names(balancer, candidates, times):
    """Pick often, and tell the names."""
    return [balancer.pick(candidates).endpoint.name for _ in range(times)]


def seeded():
    """Return a chance of its own: a small linear congruential generator."""
    state = [12345]

    def chance():
        state[0] = (1103515245 * state[0] + 12345) % 2**31
        return state[0] / 2**31

    return chance


@pytest.fixture(params=NAMES)
def balancer(request):
    """Make each of the balancers in turn."""
    return BALANCERS[request.param](seeded())


# The contract


@pytest.mark.parametrize("kind", [tuple, list])
@pytest.mark.parametrize("count", [1, 2, 3, 8, 9, 40])
def test_one_of_the_candidates_is_picked(balancer, kind, count):
    """Whatever holds the candidates, and however many they are, the very object of one comes back."""
    candidates = kind([minimal(f"e{i}") for i in range(count)])
    for _ in range(3 * count):
        picked = balancer.pick(candidates)
        assert any(picked is c for c in candidates)


@pytest.mark.parametrize("kind", [tuple, list])
@pytest.mark.parametrize("count", [2, 5, 8])
def test_equals_are_all_picked_equally(balancer, kind, count):
    """Among candidates alike in everything, nobody starves and nobody is preferred."""
    candidates = kind([minimal(f"e{i}", latency_ms=5.0) for i in range(count)])
    counted = Counter(names(balancer, candidates, 10 * count))
    assert counted == {f"e{i}": 10 for i in range(count)}


def test_a_set_that_changes_each_time_gives_members_of_the_set(balancer):
    """No candidate of an earlier set comes back."""
    everybody = [minimal(f"e{i}") for i in range(6)]
    for turn in range(60):
        some = tuple(c for i, c in enumerate(everybody) if (turn * 7 + i * 3) % 5 > 1) or (everybody[0],)
        assert balancer.pick(some) in some


def test_new_candidates_for_the_same_endpoints_are_the_ones_that_come_back(balancer):
    """A set that is made anew with the same endpoints is answered from itself, not from memory."""
    endpoints = [minimal(f"e{i}").endpoint for i in range(3)]
    for _ in range(9):
        fresh = tuple(SimpleNamespace(endpoint=e, latency_ms=1.0, in_flight=0) for e in endpoints)
        picked = balancer.pick(fresh)
        assert any(picked is c for c in fresh)


def test_a_thousand_candidates_are_no_trouble(balancer):
    """With 1,000 candidates thousands of picks stay within the set and spread over much of it."""
    candidates = tuple(minimal(f"e{i}", latency_ms=5.0) for i in range(1000))
    picked = Counter(names(balancer, candidates, 4000))
    assert len(picked) > 600
    assert max(picked.values()) < 40


def test_its_repr_is_its_name(balancer):
    """A balancer shows itself as the call that makes it."""
    assert repr(balancer) == f"{type(balancer).__name__}()"


# By name


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("round_robin", RoundRobin),
        ("weighted", WeightedRoundRobin),
        ("lowest_latency", LowestLatency),
        ("least_busy", LeastBusy),
        ("cheapest", Cheapest),
    ],
)
def test_a_name_stands_for_a_balancer(name, kind):
    """Each public name makes its balancer."""
    assert type(balancer_from(name, lambda: 0.0)) is kind


def test_any_object_that_picks_is_a_balancer():
    """The caller's own object is used as it is."""
    own = SimpleNamespace(pick=lambda candidates: candidates[-1])
    assert balancer_from(own, lambda: 0.0) is own


@pytest.mark.parametrize("value", ["fastest", "", None, 3, RoundRobin, SimpleNamespace(pick=3)])
def test_anything_else_is_refused(value):
    """An unknown word, a class instead of an object, or something that cannot pick: a clear error."""
    with pytest.raises(ConfigurationError, match=r"^balancer: .*weighted") as caught:
        balancer_from(value, lambda: 0.0)
    assert caught.value.field == "balancer"


# RoundRobin


def test_round_robin_goes_round():
    """Everybody in turn, in the given order, whatever the weights."""
    candidates = (minimal("a", weight=9), minimal("b"), minimal("c"))
    assert "".join(names(RoundRobin(), candidates, 7)) == "abcabca"


def test_round_robin_keeps_its_place_when_somebody_leaves():
    """After a, with b gone, it is c's turn, not a's again; b is next when it comes back."""
    a, b, c = (minimal(name) for name in "abc")
    balancer = RoundRobin()
    assert names(balancer, (a, b, c), 1) == ["a"]
    assert names(balancer, (a, c), 3) == ["c", "a", "c"]
    assert names(balancer, (a, b, c), 3) == ["b", "a", "c"]


def test_round_robin_starves_nobody_when_two_sets_alternate():
    """One who is in every second set only (two models, say) still gets its turns."""
    a, b, c = (minimal(name) for name in "abc")
    balancer = RoundRobin()
    both, some = (a, b, c), (b, c)
    picked = Counter()
    for _ in range(60):
        picked[balancer.pick(both).endpoint.name] += 1
        picked[balancer.pick(some).endpoint.name] += 1
    assert min(picked["a"], picked["b"], picked["c"]) >= 30


@given(turns=st.lists(st.sets(st.integers(0, 4), min_size=1), min_size=1, max_size=60))
def test_round_robin_picks_whoever_waited_longest(turns):
    """Over any changing sets, the one picked is the eligible one whose last turn is longest ago."""
    everybody = [minimal(f"e{i}") for i in range(5)]
    last = dict.fromkeys(range(5), -1)
    balancer = RoundRobin()
    for now, members in enumerate(turns):
        order = sorted(members)
        picked = balancer.pick(tuple(everybody[i] for i in order))
        index = int(picked.endpoint.name[1:])
        assert last[index] == min(last[i] for i in order)
        last[index] = now


# WeightedRoundRobin


class Nginx:
    """Smooth weighted round robin as nginx writes it: every peer is visited in every step."""

    def __init__(self):
        self.current = {}

    def pick(self, peers):
        """Pick a name from (name, weight) pairs."""
        best = None
        for name, weight in peers:
            self.current[name] = self.current.get(name, 0) + weight
            if best is None or self.current[name] > self.current[best]:
                best = name
        self.current[best] -= sum(weight for _, weight in peers)
        return best


def weighted(*weights):
    """Make candidates named a, b, c, ..."""
    return tuple(minimal(chr(97 + i), weight=w) for i, w in enumerate(weights))


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ((5, 1, 1), "aabacaa"),
        ((1, 1), "ababab"),
        ((2, 1), "abaaba"),
        ((3, 2, 1), "abacba"),
        ((1, 5), "bbabbb"),
    ],
)
def test_weights_are_shared_smoothly(weights, expected):
    """The order is nginx's own: {5, 1, 1} gives a a b a c a a, and then the same again."""
    candidates = weighted(*weights)
    assert "".join(names(WeightedRoundRobin(), candidates, 2 * len(expected))) == expected * 2


@pytest.mark.parametrize("kind", [tuple, list])
def test_the_shares_are_exact_over_a_cycle(kind):
    """Over the sum of the weights everybody gets exactly its weight."""
    candidates = kind(weighted(7, 4, 2, 1))
    assert Counter(names(WeightedRoundRobin(), candidates, 14 * 50)) == {
        "a": 350,
        "b": 200,
        "c": 100,
        "d": 50,
    }


@given(weights=st.lists(st.integers(1, 20), min_size=1, max_size=10), times=st.integers(1, 80))
def test_any_weights_are_shared_as_nginx_shares_them(weights, times):
    """For any weights, each single pick is nginx's."""
    candidates = tuple(minimal(f"e{i}", weight=w) for i, w in enumerate(weights))
    oracle = Nginx()
    peers = [(f"e{i}", w) for i, w in enumerate(weights)]
    assert names(WeightedRoundRobin(), candidates, times) == [oracle.pick(peers) for _ in range(times)]


@given(
    turns=st.lists(
        st.tuples(st.sets(st.integers(0, 5), min_size=1), st.integers(1, 12)), min_size=1, max_size=12
    ),
    weights=st.lists(st.integers(1, 9), min_size=6, max_size=6),
    ramp=st.lists(st.sampled_from([0.25, 0.5, 1.0]), min_size=12, max_size=12),
)
def test_changing_sets_and_weights_are_shared_as_nginx_shares_them(turns, weights, ramp):
    """Also while members come and go and a slow start changes a weight, each pick is nginx's."""
    endpoints = [minimal(f"e{i}", weight=w).endpoint for i, w in enumerate(weights)]
    balancer, oracle = WeightedRoundRobin(), Nginx()
    for (members, times), share in zip(turns, ramp):
        now = [(i, weights[i] * (share if i == 0 else 1.0)) for i in sorted(members)]
        candidates = tuple(
            SimpleNamespace(endpoint=endpoints[i], latency_ms=None, in_flight=0, weight=w) for i, w in now
        )
        peers = [(f"e{i}", w) for i, w in now]
        assert names(balancer, candidates, times) == [oracle.pick(peers) for _ in range(times)]


@pytest.mark.parametrize("count", [17, 30])
def test_many_distinct_weights_are_shared_exactly_and_evenly(count):
    """Beyond 16 distinct weights the order may differ from nginx's, the shares do not, at any time."""
    candidates = weighted(*range(1, count + 1))
    total = sum(range(1, count + 1))
    balancer, counted = WeightedRoundRobin(), Counter()
    for step in range(1, 3 * total + 1):
        counted[balancer.pick(candidates).endpoint.weight] += 1
        if step % 7 == 0:
            assert all(abs(counted[w] - step * w / total) < 1.5 for w in range(1, count + 1))
    assert counted == {w: 3 * w for w in range(1, count + 1)}


def test_shares_survive_the_change_from_many_weights_to_few_and_back():
    """Crossing the bound of 16 weights begins nothing anew: the heavy get no more than is due, the light not none."""
    many = weighted(*range(1, 21))
    balancer, counted, due = WeightedRoundRobin(), Counter(), Counter()
    for turn in range(60):
        times = 5 + turn % 13
        candidates = many[:10] if turn % 2 else many
        counted.update(names(balancer, candidates, times))
        for c in many if candidates is many else ():
            due[c.endpoint.name] += times * c.endpoint.weight / 210
    assert all(counted[c.endpoint.name] > 0 for c in many)
    assert all(abs(counted[c.endpoint.name] - due[c.endpoint.name]) < 1.5 for c in many[10:])


# LowestLatency


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ({"a": (100.0, 0), "b": (50.0, 0)}, "b"),
        ({"a": (100.0, 0), "b": (50.0, 2)}, "a"),
        ({"a": (100.0, 0), "b": (None, 0)}, "b"),
        ({"a": (100.0, 3), "b": (None, 1)}, "a"),
        ({"a": (None, 1), "b": (None, 0)}, "b"),
        ({"a": (0.0, 5), "b": (1.0, 0)}, "a"),
    ],
)
def test_the_quickest_that_is_not_busy_is_picked(states, expected):
    """Latency times (in flight + 1) decides; an unknown one is tried first, but not twice at a time."""
    candidates = [minimal(n, latency_ms=ms, in_flight=busy) for n, (ms, busy) in states.items()]
    assert set(names(LowestLatency(), candidates, 6)) == {expected}


def test_the_power_of_choices_among_many():
    """Among many a sample is compared: the slow half of 1,000 hardly ever wins."""
    candidates = tuple(minimal(f"e{i}", latency_ms=10.0 if i % 2 else 1000.0) for i in range(1000))
    picked = names(LowestLatency(chance=seeded()), candidates, 1000)
    assert sum(int(name[1:]) % 2 == 0 for name in picked) < 30


# LeastBusy


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ({"a": (1, 2), "b": (1, 1)}, "b"),
        ({"a": (4, 3), "b": (1, 1)}, "a"),
        ({"a": (4, 8), "b": (1, 1)}, "b"),
        ({"a": (2, 0), "b": (1, 0)}, "a"),
    ],
)
def test_the_least_busy_for_its_weight_is_picked(states, expected):
    """(In flight + 1) / weight decides."""
    candidates = [minimal(n, weight=w, in_flight=busy) for n, (w, busy) in states.items()]
    assert set(names(LeastBusy(), candidates, 6)) == {expected}


# Cheapest


def priced(name, prices, in_flight=0, model="m", models=None):
    """Make a candidate with prices, asked for a model."""
    candidate = minimal(name, in_flight=in_flight, prices=prices, models=models)
    candidate.model = model
    return candidate


@pytest.mark.parametrize(
    ("prices", "expected"),
    [
        ({"a": {"m": 8.0}, "b": {"m": 5.0}}, "b"),
        ({"a": {"m": (1.0, 9.0)}, "b": {"m": (4.0, 4.0)}}, "b"),
        ({"a": None, "b": {"m": 5000.0}}, "b"),
        ({"a": {"other": 0.1}, "b": {"m": 5.0}}, "b"),
        ({"a": {"m": 0.0}, "b": {"m": 0.1}}, "a"),
    ],
)
def test_the_cheapest_is_picked(prices, expected):
    """Input and output price of the model together decide; an unknown price comes last."""
    candidates = tuple(priced(name, table) for name, table in prices.items())
    assert set(names(Cheapest(), candidates, 6)) == {expected}


def test_a_price_under_the_endpoints_own_name_counts():
    """The price may stand under the caller's or under the endpoint's name of the model."""
    cheap = priced("a", {"openai/m": 1.0}, models={"m": "openai/m"})
    assert Cheapest().pick((priced("b", {"m": 2.0}), cheap)) is cheap


def test_the_least_busy_of_the_cheapest_is_picked():
    """Equal prices are told apart by load, now and not as it was at first."""
    a, b, c = priced("a", {"m": 1.0}, 1), priced("b", {"m": 1.0}), priced("c", {"m": 9.0})
    candidates = (a, b, c)
    balancer = Cheapest()
    assert set(names(balancer, candidates, 4)) == {"b"}
    b.in_flight = 5
    assert set(names(balancer, candidates, 4)) == {"a"}


def test_without_any_price_the_load_decides():
    """Where no price is known, all are equally dear."""
    assert names(Cheapest(), (minimal("a", in_flight=2), minimal("b")), 3) == ["b"] * 3


def test_a_list_that_changes_in_place_is_read_anew():
    """A caller may reuse one list; prices of who left do not linger."""
    a, b = priced("a", {"m": 1.0}), priced("b", {"m": 2.0})
    balancer, candidates = Cheapest(), [a, b]
    assert balancer.pick(candidates) is a
    candidates[:] = [b]
    assert balancer.pick(candidates) is b
