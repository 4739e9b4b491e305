"""Orders with Django."""

import asyncio
import threading
import time
from typing import Any

import shared
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.exceptions import PermissionDenied
from django.core.handlers.asgi import ASGIRequest
from django.core.signals import request_finished
from django.core.wsgi import get_wsgi_application
from django.dispatch import receiver
from django.http import FileResponse, Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.urls import path

from madcrow_events import emit_event
from madcrow_events.contrib import asgi, wsgi

settings.configure(
    ALLOWED_HOSTS=["*"],
    MIDDLEWARE=["django.middleware.gzip.GZipMiddleware", "on_django.handling"],
    ROOT_URLCONF="on_django",
    SECRET_KEY="not a secret",
    WSGI_APPLICATION="on_django.application",
)
finishing = threading.local()


def emit(request: HttpRequest, status: int) -> HttpResponse:
    shared.emit(int(request.GET.get("n", "1")))
    return HttpResponse(b"." * (1000 if status == 200 else 0), status=status)


def twice(request: HttpRequest) -> HttpResponse:
    shared.emit(int(request.GET["n"]))
    time.sleep(0.02)
    shared.emit(int(request.GET["n"]))
    return HttpResponse()


def fail(request: HttpRequest) -> HttpResponse:
    shared.emit(1)
    raise LookupError


def abort(request: HttpRequest, status: int) -> HttpResponse:
    shared.emit(1)
    if status == 500:
        raise SystemError
    raise {403: PermissionDenied, 404: Http404}[status]


def handled(request: HttpRequest, status: int) -> HttpResponse:
    shared.emit(1)
    raise shared.Handled(status)


class handling:
    """Middleware that has an answer for an exception."""

    def __init__(self, get_response: Any) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> Any:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        if not isinstance(error, shared.Handled):
            return None
        shared.emit(8)
        return HttpResponse(status=error.args[0])


def handler500(request: HttpRequest) -> HttpResponse:
    shared.emit(9)
    return HttpResponse(status=int(request.GET.get("answer", "500")))


def stream(request: HttpRequest) -> StreamingHttpResponse:
    shared.emit(1)
    parts = shared.parts_async if isinstance(request, ASGIRequest) else shared.parts
    response = StreamingHttpResponse(parts(request.GET.get("then", "last")))
    if "length" in request.GET:
        response.headers["Content-Length"] = request.GET["length"]
    return response


def file(request: HttpRequest) -> FileResponse:
    shared.emit(1)
    finishing.how = "well"
    return FileResponse(shared.FILE.open("rb"))


def after(request: HttpRequest, how: str) -> HttpResponse:
    shared.emit(1)
    finishing.how = how
    return HttpResponse()


@receiver(request_finished)
def finish(sender: Any, **_: Any) -> None:
    how = vars(finishing).pop("how", None)
    if how is not None:
        shared.emit(2)
    if how == "badly":
        raise LookupError


async def alone(request: HttpRequest) -> HttpResponse:
    shared.emit(1)
    await asyncio.to_thread(shared.emit, 2)
    return HttpResponse()


def work(request: HttpRequest) -> HttpResponse:
    emit_event("work_given")
    return HttpResponse()


urlpatterns = [
    path("emit/<int:status>", emit),
    path("twice", twice),
    path("raise", fail),
    path("abort/<int:status>", abort),
    path("handled/<int:status>", handled),
    path("stream", stream),
    path("file", file),
    path("after/<how>", after),
    path("async", alone),
    path("work", work),
]

django = get_wsgi_application()
with_events = wsgi.EventsMiddleware(django)


def mounted(environ: Any, start_response: Any) -> Any:
    """Pass a request on to the application, or to the same one mounted in it."""
    name = environ["PATH_INFO"]
    if not name.startswith("/mounted/"):
        return django(environ, start_response)
    prefix = environ.get("SCRIPT_NAME", "") + "/mounted"
    inner = {**environ, "SCRIPT_NAME": prefix, "PATH_INFO": name.removeprefix("/mounted")}
    return with_events(inner, start_response)


application = shared.OutsideOfWSGI(wsgi.EventsMiddleware(mounted))
asgi_application = shared.OutsideOfASGI(
    asgi.EventsMiddleware(shared.mounting(get_asgi_application()))
)
