"""A Django site in one file."""

import asking
import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path


def ask(request: HttpRequest) -> JsonResponse:
    """Answer a question."""
    return JsonResponse(asking.ask(request.GET["q"], "stream" in request.GET))


def state(request: HttpRequest) -> JsonResponse:
    """Say what this process knows."""
    return JsonResponse(asking.state())


urlpatterns = [path("ask", ask), path("state", state)]

settings.configure(ALLOWED_HOSTS=["127.0.0.1"], ROOT_URLCONF=__name__, SECRET_KEY="only for this test")
django.setup()
application = get_wsgi_application()
