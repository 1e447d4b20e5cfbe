"""A Django view whose answers survive the death of an endpoint; the whole site is this file.

    python examples/django_app.py runserver 8000
    curl 'http://127.0.0.1:8000/ask?q=What+is+failover'

Keys, endpoints and the client are in `llm.py`, next to this file.
"""

import logging
import os
import sys

import django
from django.conf import settings
from django.core.management import execute_from_command_line
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path
from llm import client

from syncfailover import FailoverError

logger = logging.getLogger(__name__)


def ask(request: HttpRequest) -> JsonResponse:
    """Answer a question."""
    try:
        reply = client.chat(request.GET["q"], timeout=20)
    except FailoverError as error:
        logger.error("%s", error)  # noqa: TRY400 - the message has all attempts; a traceback adds nothing
        return JsonResponse({"error": "The assistant is not available, please try again later."}, status=503)
    return JsonResponse({"answer": reply.text, "endpoint": reply.endpoint})


urlpatterns = [path("ask", ask)]

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1", "localhost"],
    ROOT_URLCONF=__name__,
    SECRET_KEY=os.environ.get("DJANGO_SECRET_KEY", "only for this example"),
)
django.setup()
application = get_wsgi_application()

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
