"""Events of a request know where it came from, and go out when it has succeeded."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask import Flask, Response, abort, request, stream_with_context
from flask_app.events import Events
from werkzeug.test import create_environ, run_wsgi_app

from madcrow_events import (
    EventDispatcher,
    emit_event,
    get_event_dispatcher,
    load_plugins,
    on_event,
    set_event_dispatcher,
)

MakeApp = Callable[..., Flask]


def route(app: Flask, path: str, view: Callable[..., Any]) -> None:
    app.add_url_rule(path, path, view)


def context_of(heard: Any) -> Any:
    (emission,) = heard
    return emission.context


# Set-up


def test_the_extension_is_the_default_dispatcher(make_app: MakeApp) -> None:
    assert make_app().extensions["madcrow_events"] is get_event_dispatcher()


def test_a_factory_can_give_the_application_later(heard: Any) -> None:
    events, app = Events(), Flask("shop")
    events.init_app(app)
    route(app, "/", lambda: str(emit_event("order_placed", number=1).state))
    assert app.test_client().get("/").text == "deferred"
    assert heard.numbers() == [1]


def test_a_second_call_for_one_application_is_refused(make_app: MakeApp) -> None:
    app = make_app()
    with pytest.raises(RuntimeError, match="shop has its events already: call init_app once"):
        Events().init_app(app)


def test_the_ready_made_handlers_are_registered(make_app: MakeApp) -> None:
    make_app()
    from madcrow_events.event_handlers.auth_handlers import session_of

    emit_event("user_logged_in", user_id=7, email="ada@example.com")
    assert session_of(7)


@pytest.mark.parametrize("plugins", [False, True])
def test_plugins_are_loaded_only_when_asked(
    make_app: MakeApp, monkeypatch: pytest.MonkeyPatch, plugins: bool
) -> None:
    loaded = []
    monkeypatch.setattr("flask_app.events.load_plugins", lambda **how: loaded.append(how))
    app = make_app(plugins=plugins)
    signals = app.extensions["madcrow_events"].signals
    assert loaded == ([{"signals": signals}] if plugins else [])
    assert load_plugins  # it is what was replaced


def test_several_applications_in_one_process_have_a_scope_each(
    make_app: MakeApp, heard: Any
) -> None:
    shop, office = make_app(), make_app()
    shop.test_client().get("/", headers={"X-Request-ID": "shop"})
    office.test_client().get("/", headers={"X-Request-ID": "office"})
    assert [it.context["request_id"] for it in heard] == ["shop", "office"]


def test_an_application_may_call_another_one(make_app: MakeApp, heard: Any) -> None:
    shop, office = make_app(), make_app()

    @shop.get("/office")
    def ask() -> str:
        office.test_client().get("/", headers={"X-Request-ID": "inner"})
        emit_event("order_placed", number=2)
        return str(len(heard))

    answer = shop.test_client().get("/office", headers={"X-Request-ID": "outer"})
    assert answer.text == "0"  # the inner request is a part of the outer one
    assert [(it.context["request_id"], it.context["number"]) for it in heard] == [
        ("outer", 1),
        ("inner", 1),
        ("outer", 2),
    ]


# Scope


@pytest.mark.parametrize("given", ["r-17", "a" * 128, "A.b_c-9"])
def test_a_sound_request_id_is_kept(make_app: MakeApp, heard: Any, given: str) -> None:
    make_app().test_client().get("/", headers={"X-Request-ID": given})
    assert context_of(heard)["request_id"] == given


@pytest.mark.parametrize("given", ["", "a" * 129, "a b", "<script>", "r-17\x1b[2J", "é"])
def test_another_request_id_is_replaced(make_app: MakeApp, heard: Any, given: str) -> None:
    environ = {**create_environ("/"), "HTTP_X_REQUEST_ID": given}
    run_wsgi_app(make_app(), environ)
    made = context_of(heard)["request_id"]
    assert made != given
    assert len(made) == 32


def test_a_request_without_an_id_gets_one_of_its_own(make_app: MakeApp, heard: Any) -> None:
    client = make_app().test_client()
    client.get("/")
    client.get("/")
    assert len({it.context["request_id"] for it in heard}) == 2


def test_address_and_user_agent_are_those_of_the_client(make_app: MakeApp, heard: Any) -> None:
    make_app().test_client().get(
        "/", environ_base={"REMOTE_ADDR": "192.0.2.7"}, headers={"User-Agent": "x" * 300}
    )
    assert context_of(heard)["ip_address"] == "192.0.2.7"
    assert context_of(heard)["user_agent"] == "x" * 256


def test_what_is_not_known_is_left_out(make_app: MakeApp, heard: Any) -> None:
    environ = create_environ("/")
    run_wsgi_app(make_app(), {**environ, "REMOTE_ADDR": ""})  # as on a Unix socket
    assert set(context_of(heard)) == {"number", "request_id"}


@pytest.mark.parametrize(
    ("trusted_proxies", "address", "url"),
    [
        (0, "10.0.0.1", "http://localhost/where"),
        (1, "192.0.2.8", "http://near.example/where"),
        (2, "192.0.2.7", "https://far.example/where"),
    ],
)
def test_proxies_are_believed_only_as_far_as_told(
    make_app: MakeApp, heard: Any, trusted_proxies: int, address: str, url: str
) -> None:
    app = make_app(trusted_proxies=trusted_proxies)
    route(app, "/where", lambda: f"{request.remote_addr} {request.url}")
    answer = app.test_client().get(
        "/where",
        environ_base={"REMOTE_ADDR": "10.0.0.1"},
        headers={
            "X-Forwarded-For": "203.0.113.66, 192.0.2.7, 192.0.2.8",
            "X-Forwarded-Proto": "ftp, https, http",
            "X-Forwarded-Host": "evil.example, far.example, near.example",
        },
    )
    assert answer.text == f"{address} {url}"
    assert context_of(heard)["ip_address"] == address


def test_200_concurrent_requests_keep_their_scopes_apart(make_app: MakeApp, heard: Any) -> None:
    app = make_app()
    together = threading.Barrier(20)

    @app.get("/<number>")
    def numbered(number: str) -> str:
        together.wait(10)
        emit_event("order_placed", number=number)
        if int(number) % 4 == 0:
            abort(500)
        return number

    def ask(number: int) -> str:
        headers = {"X-Request-ID": f"r-{number}"}
        return app.test_client().get(f"/{number}", headers=headers).text

    with ThreadPoolExecutor(20) as pool:
        list(pool.map(ask, range(200)))
    told = [it for it in heard if it.context["number"] != 1]
    assert sorted(int(it.context["number"]) for it in told) == [n for n in range(200) if n % 4]
    assert all(it.context["request_id"] == f"r-{it.context['number']}" for it in told)


# Deferral


def test_events_go_out_when_the_request_has_succeeded_and_before_its_answer(
    make_app: MakeApp, heard: Any
) -> None:
    app = make_app()
    route(app, "/so-far", lambda: str(len(heard)))
    body, _, _ = run_wsgi_app(app, create_environ("/so-far"))  # the body is not read, nor closed
    assert heard.numbers() == [1]
    assert b"".join(body) == b"0"


def test_an_answer_without_a_body_is_complete(make_app: MakeApp, heard: Any) -> None:
    app = make_app()
    route(app, "/204", lambda: ("", 204))
    route(app, "/304", lambda: ("", 304))
    for path in ("/204", "/304"):
        heard.clear()
        app(create_environ(path), lambda status, headers: print)
        assert heard.numbers() == [1]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422, 429])
def test_what_is_refused_has_not_failed(make_app: MakeApp, heard: Any, status: int) -> None:
    app = make_app()
    route(app, "/refused", lambda: abort(status))
    assert app.test_client().get("/refused").status_code == status
    assert heard.numbers() == [1]


def broken() -> str:
    emit_event("order_placed", number=2)
    raise LookupError("hunter2")


@pytest.mark.parametrize("propagate", [False, True])
def test_a_request_that_raises_emits_nothing(
    make_app: MakeApp, heard: Any, propagate: bool
) -> None:
    app = make_app()
    app.config["PROPAGATE_EXCEPTIONS"] = propagate
    route(app, "/broken", broken)
    if propagate:
        with pytest.raises(LookupError):
            app.test_client().get("/broken")
    else:
        assert app.test_client().get("/broken").status_code == 500
    assert heard == []


@pytest.mark.parametrize("status", [500, 503, 599])
def test_a_request_that_answers_with_a_failure_emits_nothing(
    make_app: MakeApp, heard: Any, status: int
) -> None:
    app = make_app()
    route(app, "/failed", lambda: ("failed", status))
    route(app, "/aborted", lambda: abort(503))
    app.test_client().get("/failed")
    app.test_client().get("/aborted")
    assert heard == []


def test_an_error_handler_decides_by_its_status(make_app: MakeApp, heard: Any) -> None:
    app = make_app()
    route(app, "/broken/<int:status>", lambda status: broken())
    app.errorhandler(Exception)(lambda error: ("handled", request.view_args["status"]))
    app.test_client().get("/broken/500")
    assert heard == []
    app.test_client().get("/broken/200")
    assert heard.numbers() == [1, 2]


def test_teardown_functions_are_a_part_of_the_request(make_app: MakeApp, heard: Any) -> None:
    app = make_app()
    route(app, "/failed", lambda: abort(500))
    app.teardown_request(lambda error: emit_event("order_placed", number="request") and None)
    app.teardown_appcontext(lambda error: emit_event("order_placed", number="app") and None)
    app.test_client().get("/failed")
    assert heard == []
    app.test_client().get("/", headers={"X-Request-ID": "r-17"})
    assert heard.numbers() == [1, "request", "app"]
    assert {it.context["request_id"] for it in heard} == {"r-17"}


def test_a_teardown_function_that_raises_fails_the_request(make_app: MakeApp, heard: Any) -> None:
    app = make_app()
    app.teardown_request(lambda error: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        app.test_client().get("/")
    assert heard == []


def test_a_client_that_preserves_the_context_leaves_nothing_open(
    make_app: MakeApp, heard: Any
) -> None:
    app = make_app()
    with app.test_client() as client:
        client.get("/", headers={"X-Request-ID": "r-17"})
        assert heard.numbers() == [1]
        assert request.path == "/"
        emit_event("order_placed", number="beside")
        client.get("/")
    assert heard.numbers() == [1, "beside", 1]
    assert "request_id" not in heard[1].context


def test_contexts_without_a_request_have_neither_scope_nor_deferral(
    make_app: MakeApp, heard: Any
) -> None:
    app = make_app()
    with app.app_context():
        emit_event("order_placed", number="app")
        assert heard.numbers() == ["app"]
    with app.test_request_context("/"):
        emit_event("order_placed", number="test")
        assert heard.numbers() == ["app", "test"]
    assert "request_id" not in heard[1].context


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_leaks_into_what_the_thread_does_next(
    make_app: MakeApp, heard: Any, fails: bool
) -> None:
    app = make_app()
    route(app, "/next", lambda: abort(500) if fails else Response(iter(["a", "b"])))
    environ = create_environ("/next", headers={"X-Request-ID": "r-17"})
    body, _, _ = run_wsgi_app(app, environ)  # nobody reads or closes it, yet
    before = len(heard)
    emit_event("order_placed", number="after")
    assert heard.numbers()[before:] == ["after"]
    assert "request_id" not in heard[-1].context
    body.close()


def test_a_handler_that_fails_costs_no_request(make_app: MakeApp, heard: Any) -> None:
    on_event("order_placed", priority=1)(lambda: 1 / 0)
    app = make_app()
    route(app, "/broken", broken)
    assert app.test_client().get("/").status_code == 200
    assert heard.numbers() == [1]


def test_a_dispatcher_that_raises_fails_the_request(make_app: MakeApp, heard: Any) -> None:
    set_event_dispatcher(EventDispatcher(on_error="raise"))
    on_event("order_placed")(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        make_app().test_client().get("/")


def test_async_views_share_the_scope_and_the_deferral(make_app: MakeApp, heard: Any) -> None:
    pytest.importorskip("asgiref", reason="needs flask[async]")
    app = make_app()

    @app.get("/async")
    async def view() -> str:
        emit_event("order_placed", number=2)
        return str(len(heard))

    answer = app.test_client().get("/async", headers={"X-Request-ID": "r-17"})
    assert answer.text == "0"
    assert heard.numbers() == [1, 2]
    assert heard[1].context["request_id"] == "r-17"


@pytest.mark.parametrize("background", [True, False])
def test_async_handlers_outlive_the_loop_of_an_async_view(
    make_app: MakeApp, heard: Any, background: bool
) -> None:
    """They run in a loop of the dispatcher's own, for that of the view ends with the view."""
    pytest.importorskip("asgiref", reason="needs flask[async]")
    app = make_app()
    loops: list[asyncio.AbstractEventLoop] = []

    @on_event("order_placed", background=background)
    async def slow() -> None:
        await asyncio.sleep(0.01)
        loops.append(asyncio.get_running_loop())

    @app.get("/async")
    async def view() -> str:
        loops.append(asyncio.get_running_loop())
        await get_event_dispatcher().emit_async("order_placed", number=2)
        return "placed"

    for _ in range(2):
        assert app.test_client().get("/async").text == "placed"
        assert get_event_dispatcher().drain(5)
    views = [loop for loop in loops if loop.is_closed()]
    assert len(views) == 2
    assert len(set(loops)) == 3


# Streams


def parts(heard: list[Any]) -> Iterator[str]:
    for number in (2, 3):
        emit_event("order_placed", number=number)
        yield f"{len(heard)} {request.path}"


@pytest.fixture
def streaming(make_app: MakeApp, heard: Any) -> Any:
    """Return what asks for a stream: its body, unread."""
    app = make_app()
    route(app, "/stream", lambda: Response(stream_with_context(parts(heard))))

    def ask() -> Any:
        environ = create_environ("/stream", headers={"X-Request-ID": "r-17"})
        return app(environ, lambda status, headers: print)

    return ask


def test_the_first_part_of_a_stream_arrives_before_the_last_is_made(
    streaming: Any, heard: Any
) -> None:
    body = streaming()
    assert next(body) == b"0 /stream"
    assert heard == []
    assert next(body) == b"0 /stream"
    with pytest.raises(StopIteration):
        next(body)
    assert heard.numbers() == [1, 2, 3]  # whoever has the end of the answer can count on it
    body.close()
    assert heard.numbers() == [1, 2, 3]
    assert {it.context["request_id"] for it in heard} == {"r-17"}


def test_a_stream_that_nobody_reads_to_its_end_has_not_failed(streaming: Any, heard: Any) -> None:
    body = streaming()
    next(body)
    body.close()
    body.close()
    assert heard.numbers() == [1, 2]


def test_a_stream_may_be_closed_unread(streaming: Any, heard: Any) -> None:
    streaming().close()
    assert heard.numbers() == [1]


def test_a_stream_may_be_read_in_another_thread(streaming: Any, heard: Any) -> None:
    body = streaming()
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(lambda: [*body]).result(10) == [b"0 /stream"] * 2
        pool.submit(body.close).result(10)
    assert heard.numbers() == [1, 2, 3]


def test_streams_of_one_thread_may_overlap(streaming: Any, heard: Any) -> None:
    one, other = streaming(), streaming()
    assert (next(one), next(other)) == (b"0 /stream", b"0 /stream")
    assert len([*one]) == 1
    one.close()
    assert heard.numbers() == [1, 2, 3]
    other.close()
    assert heard.numbers() == [1, 2, 3, 1, 2]


def test_a_stream_that_breaks_emits_nothing_and_is_closed(make_app: MakeApp, heard: Any) -> None:
    app, closed = make_app(), []

    def broken_parts() -> Iterator[str]:
        emit_event("order_placed", number=2)
        yield "a"
        raise LookupError

    @app.get("/stream")
    def stream() -> Response:
        response = Response(broken_parts())
        response.call_on_close(lambda: closed.append(emit_event("order_placed", number=3).state))
        return response

    body: Any = app(create_environ("/stream"), lambda status, headers: print)
    assert next(body) == b"a"
    with pytest.raises(LookupError):
        next(body)
    body.close()
    assert closed == ["deferred"]
    assert heard == []


def test_a_stream_with_the_status_of_a_failure_emits_nothing(make_app: MakeApp, heard: Any) -> None:
    app = make_app()
    route(app, "/stream", lambda: Response(iter(["a"]), 503))
    assert app.test_client().get("/stream").text == "a"
    assert heard == []


def test_what_closes_a_stream_is_a_part_of_its_request(make_app: MakeApp, heard: Any) -> None:
    app = make_app()

    @app.get("/stream")
    def stream() -> Response:
        response = Response(iter(["a"]))
        response.call_on_close(lambda: emit_event("order_placed", number=2))
        return response

    environ = create_environ("/stream", headers={"X-Request-ID": "r-17"})
    body: Any = app(environ, lambda status, headers: print)
    assert [*body] == [b"a"]
    assert heard.numbers() == [1]
    body.close()
    assert heard.numbers() == [1, 2]
    assert heard[1].context["request_id"] == "r-17"


def test_a_middleware_may_answer_late(heard: Any) -> None:
    """WSGI lets an application say its status when its first part is asked for."""
    app = Flask("shop")

    def late(environ: Any, start_response: Any) -> Iterator[bytes]:
        emit_event("order_placed", number=1)
        start_response(environ["QUERY_STRING"], [])
        yield b"a"

    app.wsgi_app = late  # type: ignore[method-assign]
    Events(app)
    assert b"".join(run_wsgi_app(app, create_environ("/?500 Failed"))[0]) == b"a"
    assert heard == []
    assert b"".join(run_wsgi_app(app, create_environ("/?200 OK"))[0]) == b"a"
    assert heard.numbers() == [1]
