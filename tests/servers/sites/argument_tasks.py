"""A Celery application whose tasks take a client as an argument, pickled; its broker is a directory."""

import os
from pathlib import Path
from typing import Tuple

from celery import Celery

from syncfailover import FailoverClient

HOME = Path(os.environ["CELERY_HOME"])

app = Celery("argument_tasks", broker="filesystem://", backend=f"file://{HOME}/results")
app.conf.update(
    accept_content=["pickle"],
    task_serializer="pickle",
    result_serializer="pickle",
    broker_transport_options={
        "data_folder_in": str(HOME / "queue"),
        "data_folder_out": str(HOME / "queue"),
        "control_folder": str(HOME / "control"),
        "polling_interval": 0.02,
    },
    worker_prefetch_multiplier=1,
)


@app.task  # type: ignore[untyped-decorator,unused-ignore]
def ask(client: FailoverClient, prompt: str) -> Tuple[int, int, str]:
    """Ask for one answer; tell who asked, of which registry."""
    return os.getpid(), id(client.registry), client.chat(prompt).text
