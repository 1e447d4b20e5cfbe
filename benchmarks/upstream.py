"""The upstream that everybody is measured against: nginx with a fixed chat completion, three ports for three origins."""

import json
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

INSTALL = (
    "nginx is needed as the upstream: apt-get install nginx-light (Debian, Ubuntu), or brew install nginx"
)

MODEL = "gpt-4.1"
TEXT = (
    "Failover keeps a service reachable by watching several equal providers and moving each request away from one "
    "that stops answering. The caller notices at most a slightly longer wait, because the decision, the retry and "
    "the return to the recovered provider all happen behind the same call."
)
#: What a real endpoint sends for a short answer, field for field.
COMPLETION = {
    "id": "chatcmpl-B9MHDbslfkBeAs8l4bebGdFOJ6PeG",
    "object": "chat.completion",
    "created": 1741570283,
    "model": "gpt-4.1-2025-04-14",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": TEXT, "refusal": None, "annotations": []},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ],
    "usage": {
        "prompt_tokens": 57,
        "completion_tokens": 52,
        "total_tokens": 109,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    },
    "service_tier": "default",
    "system_fingerprint": "fp_b8bc95a0ac",
}

_CONFIG = """
worker_processes 1;
pid nginx.pid;
error_log error.log;
events {{ worker_connections 1024; }}
http {{
    log_format asked '$request_method $uri $server_port $status';
    access_log {access_log};
    default_type application/json;
    keepalive_requests 1000000000;
    keepalive_timeout 3600s;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    server {{
        {listens}
        location = /health {{ return 200 '{{"status":"ok"}}'; }}
        location = /v1/chat/completions {{ return 200 '{completion}'; }}
        location / {{ return 404; }}
    }}
}}
"""


class NginxMissing(Exception):
    """There is no nginx on this machine."""


class Upstream:
    """One nginx with one worker on three free ports of 127.0.0.1; with `logged`, it notes every request."""

    def __init__(self, *, logged=False):
        self._logged = logged
        self.ports = _free_ports(3)
        self.origins = [f"http://127.0.0.1:{port}" for port in self.ports]

    def __enter__(self):
        binary = shutil.which("nginx") or shutil.which(
            "nginx", path="/usr/sbin:/usr/local/sbin:/opt/homebrew/bin"
        )
        if binary is None:
            raise NginxMissing(INSTALL)
        self._home = tempfile.TemporaryDirectory(prefix="bench-nginx-", ignore_cleanup_errors=True)
        home = Path(self._home.name)
        self._log = home / "access.log"
        config = home / "nginx.conf"
        config.write_text(
            _CONFIG.format(
                access_log="access.log asked" if self._logged else "off",
                listens="\n        ".join(f"listen 127.0.0.1:{port};" for port in self.ports),
                completion=json.dumps(COMPLETION),
            )
        )
        command = [binary, "-p", str(home), "-e", "error.log", "-c", str(config), "-g", "daemon off;"]
        self._process = subprocess.Popen(command)
        try:
            self._wait()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_):
        self._stop()

    def served(self, at_least=0):
        """Return how many chat completions each port has served, once there are `at_least` so many in all."""
        until = time.monotonic() + 2.0  # nginx writes its log just after the reply
        while True:
            lines = self._log.read_text().splitlines()
            counts = [lines.count(f"POST /v1/chat/completions {port} 200") for port in self.ports]
            if sum(counts) >= at_least or time.monotonic() > until:
                return counts
            time.sleep(0.02)

    def probed(self):
        """Return how many health checks were served so far."""
        return self._log.read_text().count("GET /health ")

    def _wait(self):
        until = time.monotonic() + 5.0
        for port in self.ports:
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                except OSError:
                    if time.monotonic() > until or self._process.poll() is not None:
                        raise RuntimeError("nginx does not start; its message is above") from None
                    time.sleep(0.02)

    def _stop(self):
        self._process.terminate()  # the master's own pid; it ends its worker
        self._process.wait(timeout=10)
        self._home.cleanup()


def _free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    try:
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in sockets]
    finally:
        for sock in sockets:
            sock.close()
