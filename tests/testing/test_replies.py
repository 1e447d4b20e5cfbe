"""A healthy upstream speaks the OpenAI wire."""

import pytest
import requests

from syncfailover.testing import FakeUpstream, Html, Ok, Status


def test_a_chat_completion_is_whole(fake_upstream, ask):
    """A completion has every field that OpenAI's has, the model that was asked for, and counts that add up."""
    reply = ask(payload={"model": "my-model", "messages": [{"role": "user", "content": "Hello"}]})
    data = reply.json()
    assert reply.status == 200
    assert reply.headers["Content-Type"] == "application/json"
    assert (data["object"], data["model"]) == ("chat.completion", "my-model")
    assert data["id"].startswith("chatcmpl-")
    assert isinstance(data["created"], int)
    (choice,) = data["choices"]
    assert choice["message"] == {"role": "assistant", "content": "Hello from upstream."}
    assert (choice["index"], choice["finish_reason"]) == (0, "stop")
    usage = data["usage"]
    assert usage["prompt_tokens"] + usage["completion_tokens"] == usage["total_tokens"]
    assert min(usage.values()) > 0


def test_each_completion_has_an_id_of_its_own(ask):
    """Two completions can be told apart."""
    assert ask().json()["id"] != ask().json()["id"]


def test_the_text_may_name_the_upstream(ask):
    """``{name}`` in the text stands for the name, and other braces are left alone."""
    with FakeUpstream("eu-1", text='{"from": "{name}"}') as upstream:
        assert ask(to=upstream).json()["choices"][0]["message"]["content"] == '{"from": "eu-1"}'


@pytest.mark.parametrize(
    ("path", "asked", "heard"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}]}, "eu-1: Hi"),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "eu-1: "),
        ("/v1/chat/completions", {"messages": []}, "eu-1: "),
        ("/v1/completions", {"prompt": "Hi"}, "eu-1: Hi"),
        ("/v1/responses", {"input": "Hi"}, "eu-1: Hi"),
    ],
)
def test_the_text_may_repeat_what_was_asked(ask, path, asked, heard):
    """``{prompt}`` stands for the last message where that is a text, and for nothing elsewhere."""
    with FakeUpstream("eu-1", text="{name}: {prompt}") as upstream:
        assert f'"{heard}"'.encode() in ask(path, to=upstream, payload=asked).body


def test_an_ok_may_vary_every_part_of_the_completion(fake_upstream, ask):
    """Text, usage, finish_reason, headers and the message itself are the script's to choose."""
    fake_upstream.script(
        Ok("Bye", usage={"total_tokens": 7}, finish_reason=None, headers={"X-Request-Id": "r1"}),
        Ok(message={"role": "assistant", "content": None, "tool_calls": []}),
    )
    first, second = ask(), ask()
    assert first.headers["X-Request-Id"] == "r1"
    assert first.json()["usage"] == {"total_tokens": 7}
    assert first.json()["choices"][0]["message"]["content"] == "Bye"
    assert first.json()["choices"][0]["finish_reason"] is None
    assert second.json()["choices"][0]["message"]["tool_calls"] == []


@pytest.mark.parametrize("path", ["/health", "/v1/health", "/health?deep=1"])
def test_health_is_open_to_all(ask, path):
    """Health answers without a key, even where one is required."""
    with FakeUpstream(api_key="made-up") as upstream:
        assert ask(path, to=upstream, payload=None).json() == {"status": "ok"}


def test_the_model_list_shows_the_models(ask):
    """The model list has OpenAI's shape and the models given."""
    with FakeUpstream(models=("a", "b")) as upstream:
        data = ask("/v1/models", to=upstream, payload=None).json()
        assert data["object"] == "list"
        assert [model["id"] for model in data["data"]] == ["a", "b"]
        assert ask(to=upstream, payload={}).json()["model"] == "a"


def test_embeddings_come_one_for_each_input(ask):
    """As many vectors come back as texts were sent, of the size asked for."""
    data = ask("/v1/embeddings", payload={"model": "e", "input": ["x", "y"], "dimensions": 3}).json()
    assert [entry["index"] for entry in data["data"]] == [0, 1]
    assert [len(entry["embedding"]) for entry in data["data"]] == [3, 3]
    assert data["model"] == "e"
    assert len(ask("/v1/embeddings", payload={"input": "x"}).json()["data"]) == 1


@pytest.mark.parametrize(
    ("path", "options", "status"),
    [
        ("/v1/nothing", {}, 404),
        ("/v1/models", {"method": "DELETE"}, 404),
        ("/v1/chat/completions", {"payload": None}, 404),
        ("/v1/chat/completions", {"payload": ["no", "object"]}, 400),
    ],
)
def test_what_it_does_not_serve_is_refused_in_openai_shape(ask, path, options, status):
    """Unknown routes and unreadable bodies get a JSON error."""
    reply = ask(path, **options)
    assert reply.status == status
    assert set(reply.json()["error"]) == {"message", "type", "param", "code"}


def test_head_is_answered_without_breaking_the_framing(ask):
    """A HEAD request gets a status, and the connection closes instead of carrying a stray body."""
    assert ask("/v1/models", method="HEAD", payload=None).status == 404


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer wrong"}, {"Authorization": "made-up"}])
def test_a_wrong_key_is_refused(ask, headers):
    """With a key set, a request without exactly that bearer token gets OpenAI's 401."""
    with FakeUpstream(api_key="made-up") as upstream:
        reply = ask(to=upstream, **headers)
        assert (reply.status, reply.json()["error"]["code"]) == (401, "invalid_api_key")
        assert ask(to=upstream, Authorization="Bearer made-up").status == 200


def test_it_serves_requests_over_one_connection(fake_upstream, session):
    """A requests session keeps its connection: chunked bodies and errors do not break it."""
    url = fake_upstream.url + "/chat/completions"
    assert session.post(url, json={"model": "m"}).json()["model"] == "m"
    assert session.post(url, data=iter([b'{"model":', b'"n"}'])).json()["model"] == "n"
    assert session.get(fake_upstream.origin + "/nowhere").status_code == 404
    assert session.get(fake_upstream.origin + "/health", headers={"Connection": "close"}).ok
    assert fake_upstream.connections == 1
    assert {request.connection for request in fake_upstream.requests} == {1}
    assert isinstance(session.get(fake_upstream.url + "/models"), requests.Response)
    assert fake_upstream.connections == 2


@pytest.mark.parametrize("fault", [Ok(), Status(503), Html()])
def test_a_client_that_wants_to_close_is_told_so(fake_upstream, ask, fault):
    """A reply to ``Connection: close`` says so too, lest the client keeps a dead connection in its pool."""
    fake_upstream.always(fault)
    assert ask(Connection="close").headers["Connection"] == "close"
    assert "Connection" not in ask().headers
