"""An endpoint refuses what cannot work, naming it, and never shows its key."""

import copy
import pickle
from decimal import Decimal

import pytest

from syncfailover.endpoint import Endpoint
from syncfailover.endpoint_fields import origin
from syncfailover.errors import ConfigurationError
from syncfailover.price import Price

URL = "https://api.example.com/v1"
NAN, INF = float("nan"), float("inf")
SECRET = "sk-very-secret"


def make(**fields):
    """Make an endpoint with the usual name and URL."""
    return Endpoint(**{"name": "a", "base_url": URL, **fields})


BAD = [
    ("name", ""),
    ("name", "  "),
    ("name", None),
    ("name", 3),
    ("name", "a\nb"),
    ("base_url", ""),
    ("base_url", None),
    ("base_url", "api.example.com/v1"),
    ("base_url", "ftp://api.example.com"),
    ("base_url", "https://"),
    ("base_url", "https:///v1"),
    ("base_url", "https://api.example.com/v 1"),
    ("base_url", "https://api.example.com:0/v1"),
    ("base_url", "https://api.example.com:99999/v1"),
    ("base_url", "https://api.example.com:x/v1"),
    ("base_url", "https://[::1/v1"),
    ("weight", -1),
    ("weight", NAN),
    ("weight", INF),
    ("weight", "2"),
    ("weight", True),
    ("weight", None),
    ("priority", -1),
    ("priority", 1.5),
    ("priority", "0"),
    ("priority", True),
    ("health_check_path", ""),
    ("health_check_path", "/"),
    ("health_check_path", None),
    ("health_check_path", "/a b"),
    ("health_check_path", "https://elsewhere.example.com/health"),
    ("max_latency_ms", 0),
    ("max_latency_ms", -5),
    ("max_latency_ms", NAN),
    ("max_latency_ms", "fast"),
    ("models", "gpt-4.1"),
    ("models", {}),
    ("models", []),
    ("models", 5),
    ("models", [{}]),
    ("models", {"gpt-4.1": 5}),
    ("models", {"gpt-4.1": ""}),
    ("models", {"": "gpt-4.1"}),
    ("models", [None]),
    ("models", {"*-mini": "m"}),
    ("models", {"gpt-*-mini": "m"}),
    ("models", {"m": "openai/*"}),
    ("models", {"gpt-*": "*/gpt-*"}),
    ("context_window", 0),
    ("context_window", 1.5),
    ("context_window", "128k"),
    ("context_window", {"gpt-4.1": 0}),
    ("auth", "basic"),
    ("auth", None),
    ("prices", 8.0),
    ("prices", [("gpt-4.1", 8.0)]),
    ("prices", {"": 8.0}),
    ("prices", {"gpt-4.1": -1}),
    ("prices", {"gpt-4.1": NAN}),
    ("prices", {"gpt-4.1": None}),
    ("prices", {"gpt-4.1": "8"}),
    ("prices", {"gpt-4.1": (1,)}),
    ("prices", {"gpt-4.1": (1, 2, 3, 4)}),
    ("prices", {"gpt-4.1": (1, -2)}),
    ("prices", {"gpt-4.1": {"input": 1}}),
    ("prices", {"gpt-4.1": {"input": 1, "output": 2, "total": 3}}),
    ("prices", {"gpt-4.1": Decimal(-1)}),
    ("prices", {"gpt-4.1": Decimal("NaN")}),
    ("prices", {"gpt-4.1": Decimal("Infinity")}),
    ("max_concurrency", 0),
    ("max_concurrency", 2.0),
    ("verify", None),
    ("verify", 1),
    ("verify", "/no/such/bundle.pem"),
    ("call_path", ""),
    ("call_path", 5),
    ("call_path", "deployments/{model}"),
    ("call_path", "/deployments/{model}/{path}"),
    ("call_path", "deployments/{deployment}/{path}"),
    ("call_path", "{path}/{path}"),
    ("call_path", "a?b={model}&c={path}"),
    ("call_path", "a b/{path}"),
    ("call_path", "a\\b/{path}"),
    ("fields", "messages"),
    ("fields", []),
    ("fields", [""]),
    ("fields", [None]),
    ("fields", {"seed": True}),
    ("fields", 5),
]


def parts(value):
    """Give a value and all that it is made of, any of which may be what is wrong."""
    yield value
    for item in value if isinstance(value, (dict, list, tuple)) else ():
        yield from parts(item)
        if isinstance(value, dict):
            yield from parts(value[item])


@pytest.mark.parametrize(("field", "value"), BAD, ids=repr)
def test_a_bad_field_is_refused(field, value):
    """The error names the field first, shows the value, and says what is expected."""
    with pytest.raises(ConfigurationError) as caught:
        make(**{field: value})
    message = str(caught.value)
    assert message.startswith(field)
    assert "expected " in message
    assert caught.value.field.startswith(field)
    assert any(repr(shown) in message for shown in parts(value))


SECRETS = [
    ("api_key", SECRET + "\n"),
    ("api_key", SECRET + "\r\nX-Other: 1"),
    ("api_key", " " + SECRET),
    ("api_key", SECRET + "é"),
    ("api_key", SECRET + "\x00"),
    ("api_key", SECRET.encode()),
    ("api_key", [SECRET]),
    ("api_key", ""),
    ("api_key", 5),
    ("headers", {"X-Key": SECRET + "\n"}),
    ("headers", {"X:Key": SECRET}),
    ("headers", {"": SECRET}),
    ("headers", {"X-Key": SECRET.encode()}),
    ("headers", [("X-Key", SECRET)]),
    ("headers", {5: SECRET}),
    ("params", {"key": 5}),
    ("params", "key=" + SECRET),
    ("params", {"key": [SECRET]}),
    ("proxies", SECRET),
    ("proxies", {"https": [SECRET]}),
    ("base_url", f"https://user:{SECRET}@api.example.com/v1"),
    ("base_url", f"https://{SECRET}@api.example.com:99999/v1"),
    ("base_url", f"https://api.example.com/v1?key={SECRET}"),
    ("base_url", f"https://api.example.com:x/v1?key={SECRET}"),
    ("base_url", f"https://api.example.com/v1?key=a@{SECRET}"),
    ("base_url", f"https://api.example.com:x/v1?key=a@{SECRET}"),
    ("base_url", f"https://api.example.com/v1#{SECRET}"),
    ("base_url", f"https://api.example.com:x/v1#{SECRET}"),
    ("base_url", f"api.example.com/v1?key={SECRET}"),
    ("base_url", f"user:{SECRET}@api.example.com/v1"),
    ("base_url", f"ftp://api.example.com/v1?key={SECRET}"),
    ("base_url", f"https:///v1?key={SECRET}"),
]


@pytest.mark.parametrize(("field", "value"), SECRETS, ids=lambda value: repr(value).replace(SECRET, "..."))
def test_a_secret_that_cannot_work_is_never_shown(field, value):
    """The error names the field and says what is expected, and nowhere holds the secret."""
    with pytest.raises(ConfigurationError) as caught:
        make(**{field: value})
    error = caught.value
    assert str(error).startswith(field)
    assert "expected " in str(error)
    for shown in (str(error), repr(error), repr(error.args), repr(vars(error)), repr(error.__cause__)):
        assert SECRET not in shown


def test_a_repr_shows_no_key_header_or_parameter():
    """It is a status line: where it is and how it counts."""
    made = make(api_key=SECRET, headers={"X": SECRET}, params={"k": SECRET}, proxies={"https": SECRET})
    assert repr(made) == "<Endpoint a https://api.example.com/v1 priority=0 weight=1 key=set>"
    assert repr(make(weight=0.5, priority=2)).endswith("priority=2 weight=0.5 key=none>")
    assert repr(make(api_key=lambda: SECRET)).endswith("key=callable>")


def test_a_key_that_was_passed_as_text_does_not_pickle():
    """A key never crosses a boundary unasked; the error shows none. See test_pickling.py for those that may."""
    with pytest.raises(TypeError, match="endpoint 'a': api_key: a key that was passed as text") as caught:
        pickle.dumps(make(api_key=SECRET))
    assert SECRET not in str(caught.value)


def test_it_is_frozen():
    """Threads read it: nothing can be set, and a copy is the thing itself."""
    made = make()
    with pytest.raises(AttributeError, match=r"frozen.*replace\(weight="):
        made.weight = 3
    assert copy.copy(made) is made
    assert copy.deepcopy(made) is made


def test_replacing_makes_a_new_one():
    """All fields but the changed are kept, the key among them; the change is validated."""
    azures = {"call_path": "deployments/{model}/{path}", "fields": ["stop"]}
    old = make(
        api_key=SECRET, weight=2, models={"m": "n"}, prices={"m": 1.0}, context_window={"m": 5}, **azures
    )
    new = old.replace(weight=3, name="b")
    assert (old.weight, new.weight, new.name, new.key()) == (2, 3, "b", SECRET)
    assert (new.serves("m"), new.price("m"), new.window("m")) == ("n", old.price("m"), 5)
    assert (new.call_path, new.fields) == (old.call_path, {"stop", "messages", "model", "input", "prompt"})
    with pytest.raises(ConfigurationError, match=r"^weight: -1"):
        old.replace(weight=-1)
    with pytest.raises(ConfigurationError, match=r"^field: 'colour'"):
        old.replace(colour="red")
    with pytest.raises(ConfigurationError, match=r"^field: 'origin'"):
        old.replace(origin=("http", "h", 1))


def test_the_callers_mappings_may_change_afterwards():
    """What was passed in is copied."""
    headers, models = {"X": "1"}, {"m": "n"}
    made = make(headers=headers, models=models)
    headers["X"], models["m"] = "2", "o"
    assert (made.headers, made.serves("m")) == ({"X": "1"}, "n")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://api.example.com/v1", ("https", "api.example.com", 443)),
        ("HTTPS://API.Example.com", ("https", "api.example.com", 443)),
        ("http://localhost", ("http", "localhost", 80)),
        ("http://127.0.0.1:8080/v1/", ("http", "127.0.0.1", 8080)),
        ("http://[::1]:11434/v1", ("http", "::1", 11434)),
    ],
)
def test_an_origin_is_scheme_host_and_port(url, expected):
    """It is what a key is bound to, in one notation."""
    assert origin(url) == expected
    assert make(base_url=url).origin == expected
    assert not make(base_url=url).base_url.endswith("/")


@pytest.mark.parametrize(
    ("url", "path", "expected"),
    [
        ("https://h.example/v1", "/health", "https://h.example:443/health"),
        ("https://h.example/api/v1/", "models", "https://h.example/api/v1/models"),
        ("http://[::1]:1/v1", "/health", "http://[::1]:1/health"),
    ],
)
def test_where_the_health_check_asks(url, path, expected):
    """A leading slash counts from the origin's root, none from the base URL."""
    assert make(base_url=url, health_check_path=path).probe_url() == expected


@pytest.mark.parametrize(
    ("auth", "key", "expected"),
    [
        ("bearer", "k", ("Authorization", "Bearer k")),
        ("api-key", "k", ("api-key", "k")),
        ("x-api-key", "k", ("x-api-key", "k")),
        ("none", "k", ("", "")),
        ("bearer", None, ("", "")),
    ],
)
def test_how_the_key_is_sent(auth, key, expected):
    """Each kind of auth has its header; without a key there is none."""
    assert make(auth=auth).auth_header(key) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("chat/completions", ("Authorization", "Bearer k")),
        ("/chat/completions?beta=true", ("Authorization", "Bearer k")),
        ("models", ("x-api-key", "k")),
        ("/v1/models", ("x-api-key", "k")),
        ("messages", ("x-api-key", "k")),
    ],
)
def test_anthropics_key_is_sent_by_the_path(path, expected):
    """Its chat completions take a bearer token, all of its other paths the other header, and neither takes both."""
    assert make(auth="anthropic").auth_header("k", path) == expected
    assert make(auth="anthropic").auth_header(None, path) == ("", "")


def test_a_callable_key_is_asked_each_time_and_checked():
    """A rotated secret is the present one, and one that cannot be sent is refused without being shown."""
    keys = ["first", "second", SECRET + "\n"]
    made = make(api_key=lambda: keys.pop(0))
    assert [made.key(), made.key()] == ["first", "second"]
    with pytest.raises(ConfigurationError, match="line break") as caught:
        made.key()
    assert SECRET not in str(caught.value)
    assert make().key() is None


@pytest.mark.parametrize(
    ("models", "asked", "own"),
    [
        (None, "m", "m"),
        (None, None, ""),
        ({"m": "n"}, "m", "n"),
        ({"m": "n"}, "o", None),
        ({"m": "n"}, None, ""),
        ({"m": "n", "*": "*"}, "o", "o"),
        ({"m": "n", "*": "other"}, "o", "other"),
        (["m", "o"], "m", "m"),
        (["m", "o"], "n", None),
        (iter(["m"]), "m", "m"),
        ({"gpt-*": "openai/gpt-*"}, "gpt-4.1", "openai/gpt-4.1"),
        ({"gpt-*": "openai/gpt-*"}, "gpt-", "openai/gpt-"),
        ({"gpt-*": "openai/gpt-*"}, "my-gpt-4.1", None),
        ({"claude-*": "claude-*"}, "claude-opus-4-6", "claude-opus-4-6"),
        ({"gpt-*": "fixed"}, "gpt-4.1", "fixed"),
        ({"gpt-*": "a/*"}, "gpt-4.1", "a/4.1"),
        ({"*": "openai/*"}, "gpt-4.1", "openai/gpt-4.1"),
        ({"*": "*", "gpt-*": "a", "gpt-4*": "b", "gpt-4.1": "c"}, "gpt-4.1", "c"),
        ({"*": "*", "gpt-*": "a", "gpt-4*": "b", "gpt-4.1": "c"}, "gpt-4o", "b"),
        ({"*": "*", "gpt-*": "a", "gpt-4*": "b", "gpt-4.1": "c"}, "gpt-5", "a"),
        ({"*": "*", "gpt-*": "a", "gpt-4*": "b", "gpt-4.1": "c"}, "o3", "o3"),
        (["gpt-*"], "gpt-4.1", "gpt-4.1"),
    ],
)
def test_what_it_calls_a_model(models, asked, own):
    """The caller's name becomes the endpoint's; a star stands for the rest, the closest counts; a list is each to itself."""
    assert make(models=models).serves(asked) == own


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (0.42, ("0.42", "0.42", "0.42")),
        (8, ("8.0", "8.0", "8.0")),
        ((2.0, 8.0), ("2.0", "8.0", "2.0")),
        ([2.0, 8.0, 0.5], ("2.0", "8.0", "0.5")),
        ({"input": 2.0, "output": 8.0}, ("2.0", "8.0", "2.0")),
        ({"input": 2.0, "output": 8.0, "cached_input": 0.5}, ("2.0", "8.0", "0.5")),
        (Decimal("0.1"), ("0.1", "0.1", "0.1")),
    ],
)
def test_a_price_is_exact(given, expected):
    """Input, output and cached input apart, as the decimal numbers that were written."""
    assert make(prices={"m": given}).price("m") == Price(*map(Decimal, expected))


def test_the_first_name_with_a_price_counts():
    """The caller's, the endpoint's or the provider's name; none is None, never 0."""
    made = make(prices={"n": 1.0})
    assert made.price("m", None, "n").input == Decimal("1.0")
    assert made.price("m") is None
    assert make().price("m") is None


@pytest.mark.parametrize(
    ("window", "model", "expected"),
    [
        (None, "m", None),
        (8000, "m", 8000),
        (8000, None, 8000),
        ({"m": 8000}, "m", 8000),
        ({"m": 8000}, "n", None),
        ({"m": 8000, "*": 4000}, "n", 4000),
        ({"m": 8000}, None, None),
    ],
)
def test_the_context_window_of_a_model(window, model, expected):
    """One number for all, or one per name of the caller's."""
    assert make(context_window=window).window(model) == expected
