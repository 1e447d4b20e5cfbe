"""The upstream of the streams: as cheap as Python allows, in a process of its own, one HTTP chunk per event.

`python stream_upstream.py` says its port and serves until standard input ends. A request says as its `user` what it
wants, "KIND/COUNT": so many chunks with content, between the one with the role and the one that ends the stream.
"""

import json
import os
import re
import socket
import sys
import threading
import time

from upstream import COMPLETION

USUAL, PADDED, LONG, PACED, PAUSED = "usual", "padded", "long", "paced", "paused"

#: Seconds between two chunks that are paced, and before the first one that is kept waiting for.
PACE_S, PAUSE_S = 0.002, 0.020
#: What the chunks of a stream say, over and over.
TOKENS = COMPLETION["choices"][0]["message"]["content"].replace(" ", "\0 ").split("\0")
#: Characters of a long token, and of the padding on either side of a padded one.
LONG_TOKEN, PADDING = 1024, 2048
#: How a request says what it wants.
_WANTED = re.compile(rb'"user": ?"([a-z]+)/([0-9]+)"')
#: Digits of a paced chunk's content: `time.monotonic_ns()` when it was sent, which on Linux all processes share.
_DIGITS = 20
#: Tokens that are sent at a time: a multiple of len(TOKENS).
_BLOCK = 1024 // len(TOKENS) * len(TOKENS)

_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
)
_HEALTHY = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 15\r\n\r\n" + b'{"status":"ok"}'
)


def text_of(kind, count):
    """Return the text of a stream whose content is known beforehand."""
    if kind == LONG:
        return _long(0) * count
    whole, rest = divmod(count, len(TOKENS))
    return "".join(TOKENS) * whole + "".join(TOKENS[:rest])


def bytes_of(kind):
    """Return how many bytes a chunk of a kind has on average, as it is sent."""
    return len(_block(kind, _BLOCK)) / _BLOCK


def _event(delta, finish_reason=None, *, padding="xN4bTq0s", comment="", **more):
    """Return an event as OpenAI sends it, field for field, in a chunk of the body."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    payload = {
        "id": COMPLETION["id"],
        "object": "chat.completion.chunk",
        "created": COMPLETION["created"],
        "model": COMPLETION["model"],
        "service_tier": "default",
        "system_fingerprint": COMPLETION["system_fingerprint"],
        "choices": [choice],
        "usage": None,
        "obfuscation": padding,
        **more,
    }
    return _chunk(comment + "data: " + json.dumps(payload, separators=(",", ":")) + "\n\n")


def _chunk(text):
    return f"{len(text):x}\r\n{text}\r\n".encode("ascii")


def _long(_number):
    return ("x" * 63 + " ") * (LONG_TOKEN // 64)


def _padded(number):
    padding = "p" * PADDING
    return _event({"content": _token(number)}, padding=padding, comment=f": {padding}\n\n")


def _token(number):
    return TOKENS[number % len(TOKENS)]


_CONTENT = {
    USUAL: lambda number: _event({"content": _token(number)}),
    PADDED: _padded,
    LONG: lambda number: _event({"content": _long(number)}),
}


def _block(kind, count):
    return b"".join(_CONTENT[kind](number) for number in range(count))


_ROLE = _event({"role": "assistant", "content": "", "refusal": None})
_USAGE = _event({}, choices=[], usage=COMPLETION["usage"])
_STOP = _event({}, "stop")
_DONE = _chunk("data: [DONE]\n\n")


def _serve(sock):
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    blocks = {}
    with sock, sock.makefile("rb") as lines:
        while True:
            method, body = _request(lines)
            if method == b"POST":
                kind, count = _WANTED.search(body).groups()
                _stream(sock, kind.decode(), int(count), blocks)
                sock.sendall(_STOP + (_USAGE if b'"include_usage"' in body else b"") + _DONE + b"0\r\n\r\n")
            elif method:
                sock.sendall(_HEALTHY)
            else:
                return


def _request(lines):
    """Return the method, empty at the end, and the body of the next request."""
    method, *_ = [*lines.readline().split(), b""]
    length = 0
    for line in iter(lines.readline, b"\r\n"):
        if not line:
            return b"", b""
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    return method, lines.read(length)


def _stream(sock, kind, count, blocks):
    """Send all up to the last content."""
    if kind == PACED:
        sock.sendall(_HEAD + _ROLE)
        _send_paced(sock, count)
        return
    if kind == PAUSED:
        sock.sendall(_HEAD)
        time.sleep(PAUSE_S)
        sock.sendall(_ROLE + _block(USUAL, count))
        return
    whole, rest = divmod(count, _BLOCK)
    if (kind, rest) not in blocks:
        blocks[kind, rest] = _block(kind, _BLOCK if whole else 0), _block(kind, rest)
    block, last = blocks[kind, rest]
    sock.sendall(_HEAD + _ROLE)
    for _ in range(whole):
        sock.sendall(block)
    sock.sendall(last)


def _send_paced(sock, count):
    before, _, after = _event({"content": "#" * _DIGITS}).partition(b"#" * _DIGITS)
    due = time.monotonic()
    for _ in range(count):
        due += PACE_S
        time.sleep(max(0.0, due - time.monotonic()))
        sock.sendall(before + b"%0*d" % (_DIGITS, time.monotonic_ns()) + after)


def _accept(listener):
    while True:
        sock, _ = listener.accept()
        threading.Thread(target=_serve, args=(sock,), daemon=True).start()


def main():
    """Say the port, and serve until standard input ends."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        threading.Thread(target=_accept, args=(listener,), daemon=True).start()
        print(json.dumps({"port": listener.getsockname()[1]}), flush=True)
        sys.stdin.read()
        os._exit(0)  # whoever still streams is let go


if __name__ == "__main__":
    main()
