"""What a handler may look like, and what is refused at registration (H)."""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, TypeVar
from unittest.mock import MagicMock

import pytest
from pydantic import Field

from madcrow_events import (
    BaseEventContext,
    ContextTypeError,
    ContextValidationError,
    Emission,
    EventDispatcher,
    GenericEventContext,
    HandlerGroup,
    HandlerSignatureError,
    LoginEventContext,
    LogoutEventContext,
    SignalRegistry,
    on_event,
    on_user_login,
    user_logged_in,
    user_logged_out,
)

CONTEXT = LoginEventContext(user_id=1, email="a@b.c", name="A")


def returned(handler: Callable[..., Any], *, loose: bool = False) -> Any:
    """Subscribe a handler to user_logged_in, emit, and return what it returned."""
    dispatcher = EventDispatcher(on_error="raise")
    with user_logged_in.subscribe(handler):
        emission = (
            dispatcher.emit(user_logged_in, user_id=1, email="a@b.c", name="A")
            if loose
            else dispatcher.emit_typed(user_logged_in, CONTEXT)
        )
    (result,) = emission.results
    assert result.handler == handler
    return result.value


def takes_context(context: LoginEventContext) -> Any:
    return context


def takes_any_name(event: LoginEventContext) -> Any:
    return event


def takes_base(context: BaseEventContext) -> Any:
    return context


def takes_union(context: LoginEventContext | LogoutEventContext) -> Any:
    return context


def takes_optional(context: LoginEventContext | None = None) -> Any:
    return context


def takes_annotated(context: Annotated[LoginEventContext, "why not"]) -> Any:
    return context


def takes_by_keyword(*, context: LoginEventContext) -> Any:
    return context


@pytest.mark.guarantee("H1")
@pytest.mark.parametrize(
    "handler",
    [
        takes_context,
        takes_any_name,
        takes_base,
        takes_union,
        takes_optional,
        takes_annotated,
        takes_by_keyword,
    ],
)
def test_a_parameter_annotated_with_a_model_gets_the_context(handler: Callable[..., Any]) -> None:
    assert returned(handler) is CONTEXT
    validated = returned(handler, loose=True)
    assert isinstance(validated, LoginEventContext)
    assert validated.email == "a@b.c"


@pytest.mark.guarantee("H1")
def test_a_parameter_annotated_with_emission_gets_the_emission() -> None:
    def plain(emission: Emission) -> Any:  # type: ignore[type-arg]
        return emission

    def of_any(it: Emission[Any]) -> Any:
        return it

    assert returned(plain).event == "user_logged_in"
    assert returned(of_any).context is CONTEXT
    assert returned(plain, loose=True).context["email"] == "a@b.c"


@pytest.mark.guarantee("H1")
def test_an_emission_of_a_model_has_that_model_as_its_context_also_for_a_loose_emission() -> None:
    def typed(emission: Emission[LoginEventContext]) -> Any:
        return emission

    assert returned(typed).context is CONTEXT
    loose = returned(typed, loose=True)
    assert isinstance(loose.context, LoginEventContext)
    assert loose.event == "user_logged_in"
    assert loose.sender is user_logged_in


def test_a_handlers_typed_view_of_a_loose_emission_shares_its_outcome(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    seen: list[Emission[Any]] = []

    def first(emission: Emission[LoginEventContext]) -> None:
        seen.append(emission)

    def second() -> None:
        raise ValueError

    signal = signals.signal("user_logged_in", context=LoginEventContext)
    signal.subscribe(first)
    signal.subscribe(second)
    signal.subscribe(first, sender="me", priority=-1)
    emission = dispatcher.emit("user_logged_in", "me", user_id=1, email="e")
    assert len(seen) == 2
    assert seen[0].failures == emission.failures
    assert seen[0].results == emission.results
    assert not seen[0].ok


@pytest.mark.guarantee("H1")
@pytest.mark.parametrize("loose", [False, True])
def test_sender_and_keywords_is_the_plainest_form(loose: bool) -> None:
    def handler(sender: Any, **context: Any) -> Any:
        return sender, context["email"]

    def named_otherwise(_who: Any, **context: Any) -> Any:
        return _who, context["email"]

    def with_a_field(sender: Any, email: str, **rest: Any) -> Any:
        assert "email" not in rest
        return sender, email

    def without_sender(**context: Any) -> Any:
        return user_logged_in, context["email"]

    def by_keyword(*, sender: Any, **context: Any) -> Any:
        return sender, context["email"]

    def sender_second(email: str, sender: Any, **rest: Any) -> Any:
        return sender, email

    def variadic(*arguments: Any, **context: Any) -> Any:
        return arguments[0], context["email"]

    for shape in (
        handler,
        named_otherwise,
        with_a_field,
        without_sender,
        by_keyword,
        sender_second,
        variadic,
    ):
        assert returned(shape, loose=loose) == (user_logged_in, "a@b.c")


@pytest.mark.guarantee("H1")
@pytest.mark.parametrize("loose", [False, True])
def test_other_parameters_are_passed_by_name(loose: bool) -> None:
    def field(email: str) -> Any:
        return email

    def sender_and_field(sender: Any, email: str) -> Any:
        return sender, email

    def field_and_sender(email: str, sender: Any) -> Any:
        return sender, email

    def nothing() -> Any:
        return "called"

    def with_a_default(email: str, color: str = "red") -> Any:
        return email, color

    def positional(sender: Any, /) -> Any:
        return sender

    def positional_default(sender: Any, color: str = "red", /) -> Any:
        return sender, color

    def everything(sender: Any, context: LoginEventContext, email: str, *, name: str) -> Any:
        return sender, context.user_id, email, name

    def context_and_rest(context: LoginEventContext, **rest: Any) -> Any:
        return context.user_id, rest["email"]

    def sender_only(*sender: Any) -> Any:
        return sender

    assert returned(field, loose=loose) == "a@b.c"
    assert returned(sender_and_field, loose=loose) == (user_logged_in, "a@b.c")
    assert returned(field_and_sender, loose=loose) == (user_logged_in, "a@b.c")
    assert returned(nothing, loose=loose) == "called"
    assert returned(with_a_default, loose=loose) == ("a@b.c", "red")
    assert returned(positional, loose=loose) is user_logged_in
    assert returned(positional_default, loose=loose) == (user_logged_in, "red")
    assert returned(everything, loose=loose) == (user_logged_in, 1, "a@b.c", "A")
    assert returned(context_and_rest, loose=loose) == (1, "a@b.c")

    def sender_and_more(sender: Any, *more: Any) -> Any:
        return sender, more

    assert returned(sender_only, loose=loose) == (user_logged_in,)
    assert returned(sender_and_more, loose=loose) == (user_logged_in, ())


@pytest.mark.guarantee("H1")
def test_partials_methods_builtins_classes_mocks_and_callable_objects_are_handlers() -> None:
    class Service:
        def handle(self, sender: Any, *, email: str) -> Any:
            return email

        def __call__(self, context: LoginEventContext) -> Any:
            return context.email

        @classmethod
        def of_class(cls, email: str) -> Any:
            return email

        @staticmethod
        def static(email: str) -> Any:
            return email

    class Record:
        def __init__(self, context: LoginEventContext) -> None:
            self.email = context.email

    def added(greeting: str, sender: Any, **context: Any) -> Any:
        return greeting + context["email"]

    @functools.wraps(takes_context)
    def wrapped(*arguments: Any, **keywords: Any) -> Any:
        return takes_context(*arguments, **keywords)

    service = Service()
    assert returned(service.handle) == "a@b.c"
    assert returned(service) == "a@b.c"
    assert returned(Service.of_class) == "a@b.c"
    assert returned(Service.static) == "a@b.c"
    assert returned(functools.partial(added, "hello ")) == "hello a@b.c"
    assert returned(wrapped) is CONTEXT
    assert returned(functools.partial(wrapped)) is CONTEXT
    assert returned(Record).email == "a@b.c"
    senders: list[Any] = []
    assert returned(senders.append) is None
    assert senders == [user_logged_in]
    mock = MagicMock()
    returned(mock)
    mock.assert_called_once_with(user_logged_in, **CONTEXT._keywords())


def greeted(greeting: str, context: LoginEventContext) -> Any:
    return greeting + context.email


def called_with(function: Callable[..., Any], /, *arguments: Any, **keywords: Any) -> Any:
    return "hello " + function(*arguments, **keywords).email


NAMED = functools.update_wrapper(functools.partial(greeted, "hello "), greeted)


@pytest.mark.guarantee("H9")
@pytest.mark.parametrize(
    "handler",
    [
        NAMED,
        functools.partial(NAMED),
        functools.wraps(NAMED)(lambda *given, **context: NAMED(*given, **context)),
        functools.wraps(takes_context)(functools.partial(called_with, takes_context)),
    ],
)
def test_a_partial_keeps_its_arguments_if_it_has_a_name(handler: Callable[..., Any]) -> None:
    assert returned(handler) == "hello a@b.c"


@pytest.mark.guarantee("H1")
def test_a_model_of_the_test_function_itself_is_found_behind_a_string_annotation(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    class Local(BaseEventContext):
        number: int

    def handler(context: Local) -> int:
        return context.number

    signals.signal("local", context=Local).subscribe(handler)
    assert dispatcher.emit("local", number="3").results[0].value == 3


@pytest.mark.guarantee("H1")
def test_one_that_a_loose_emission_leaves_out_is_that_handlers_failure() -> None:
    others: list[str] = []
    on_event("user_logged_in")(takes_context)

    @on_event("user_logged_in")
    def by_name(email: str) -> None: ...

    on_user_login()(lambda: others.append("ran"))
    emission = EventDispatcher().emit("user_logged_in", user_id=1)
    first, second = emission.failures
    assert first.handler is takes_context
    assert isinstance(first.exception, ContextValidationError)
    assert first.exception.problems == (("email", "missing, emit it with email=..."),)
    assert second.handler is by_name
    assert isinstance(second.exception, ContextValidationError)
    assert "emit it with email=..." in str(second.exception)
    assert others == ["ran"]


def test_a_loose_emission_is_validated_once_for_all_handlers(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    validations: list[int] = []

    class Counted(BaseEventContext):
        number: int

        def model_post_init(self, _: Any) -> None:
            validations.append(self.number)

    def first(context: Counted) -> Any:
        return context

    def second(context: Counted) -> Any:
        return context

    def third(emission: Emission[Counted]) -> Any:
        return emission.context

    signal = signals.signal("counted", context=Counted)
    for handler in (first, second, third):
        signal.subscribe(handler)
    emission = dispatcher.emit("counted", number=3)
    a, b, c = (result.value for result in emission.results)
    assert a is b is c
    assert validations == [3]
    bad = dispatcher.emit("counted", number="x")
    assert len({id(failure.exception) for failure in bad.failures}) == 1
    assert len(bad.failures) == 3


def test_a_union_takes_the_signals_own_model_or_the_first_that_is_named(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    signals.signal("anything")
    signals.subscribe("anything", takes_union)
    assert dispatcher.emit_typed("anything", CONTEXT).results[0].value is CONTEXT
    loose = dispatcher.emit("anything", user_id=1, email="e").results[0].value
    assert isinstance(loose, LoginEventContext)
    (failure,) = dispatcher.emit_typed("anything", BaseEventContext()).failures
    assert isinstance(failure.exception, ContextTypeError)
    assert "takes LoginEventContext or LogoutEventContext" in str(failure.exception)


def test_a_base_context_handler_of_an_event_without_model_gets_loose_keywords_as_data(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    signals.signal("anything")
    signals.subscribe("anything", takes_base)
    context = dispatcher.emit("anything", color="red", request_id="r").results[0].value
    assert isinstance(context, GenericEventContext)
    assert context.event_type == "anything"
    assert context.data == {"color": "red"}
    assert context.request_id == "r"


def generator(sender: Any, **context: Any) -> Any:
    yield sender


async def async_generator(sender: Any, **context: Any) -> Any:
    yield sender


class Undecorated:
    def handle(self, sender: Any, **context: Any) -> None: ...


def named_otherwise(emial) -> None: ...  # type: ignore[no-untyped-def]  # without annotation
def with_a_mailer(context: LoginEventContext, mailer: object) -> None: ...


class Caller:
    def __call__(self, context: LoginEventContext) -> None: ...


def unresolvable(context: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821


def unresolvable_union(context: Nowhere | LoginEventContext) -> None: ...  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.guarantee("H1")
@pytest.mark.parametrize(
    ("handler", "fix"),
    [
        (
            lambda who: None,
            r"write def handler\(who: LoginEventContext\), or take one of timestamp",
        ),
        (lambda emial: None, r"handler\(emial: LoginEventContext\), or did you mean 'email'\?$"),
        (
            named_otherwise,
            r"annotate it, as in emial: LoginEventContext, or did you mean 'email'\?$",
        ),
        (with_a_mailer, "give it a default, fill it in with functools.partial or a closure"),
        (Caller, r"an object of it, as in register_handler\(LoginEventContext, Caller\(\)\)"),
        (lambda sender, emial, **rest: None, r"a default, .*, or did you mean 'email'\?"),
        (lambda who, email: None, r"write def handler\(who: LoginEventContext\), or take one"),
        (lambda context: None, r"def handler\(context: LoginEventContext\), or take one of"),
        (lambda email, **rest: None, r"write \(sender, email, \*\*rest\)"),
        (lambda email, /: None, r"write \(sender, email, \*\*rest\)"),
        (lambda a, b, /: None, "and only the sender by position: move 'b' behind the '/'"),
        (lambda *, order_id: None, "no field of LoginEventContext"),
        (lambda context, order_id: None, "no field of LoginEventContext"),
        (Undecorated.handle, "subscribe the bound method, as in service.method"),
        (generator, "return, not yield"),
        (async_generator, "return, not yield"),
        (functools.partial(generator), "return, not yield"),
        (unresolvable, "its annotation Nowhere is no context model that can be found"),
        (unresolvable_union, "is no context model that can be found: write LoginEventContext"),
        (lambda emission: None, "annotate it with Emission, or with LoginEventContext"),
        ("a string", "cannot be called: give a function"),
        (None, "cannot be called: give a function"),
        (type, "no readable signature: wrap it in a function"),
    ],
)
def test_a_handler_that_cannot_be_called_is_refused_with_what_to_write(
    handler: Any, fix: str
) -> None:
    for subscribe in (
        user_logged_in.subscribe,
        lambda handler: on_event("user_logged_in")(handler),
        lambda handler: on_user_login()(handler),
    ):
        with pytest.raises(HandlerSignatureError, match=fix) as caught:
            subscribe(handler)
        assert caught.value.handler is handler
        assert caught.value.event == "user_logged_in"
    assert not user_logged_in.subscriptions


@pytest.mark.guarantee("H1")
def test_a_keyword_that_the_model_refuses_is_recommended_to_nobody(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    """Where a field goes by its alias only, a context has it under its name."""

    class Order(BaseEventContext):
        model_config: ClassVar[Any] = {"populate_by_name": False, "validate_by_name": False}
        order_id: int = Field(alias="orderId")

    signals.signal("order_placed", context=Order)
    signals.subscribe("order_placed", lambda order_id: order_id)
    (failure,) = dispatcher.emit("order_placed", orderId=1).failures
    assert "takes by name: emit a context, give" in str(failure.exception)
    (result,) = dispatcher.emit_typed("order_placed", Order(orderId=1)).results
    assert result.value == 1


@pytest.mark.guarantee("H1")
def test_a_handler_for_another_events_context_is_refused() -> None:
    def handler(context: LogoutEventContext) -> None: ...

    def of_emission(emission: Emission[LogoutEventContext]) -> None: ...

    for refused in (handler, of_emission):
        with pytest.raises(
            HandlerSignatureError,
            match=r"carries LoginEv.* annotate it with Login.*, or .* @on_event\(LogoutE",
        ):
            user_logged_in.subscribe(refused)  # type: ignore[arg-type]
    assert user_logged_out.subscribe(handler).active


@pytest.mark.guarantee("H1")
@pytest.mark.parametrize(
    ("misuse", "fix"),
    [
        (lambda handler: on_user_login(handler), r"write @on_user_login\(\)"),
        (lambda handler: user_logged_in.on(handler), r"needs .* @user_logged_in\.on\(\)"),
        (lambda handler: user_logged_in.on("user_logged_in"), r"names the event already: write"),
        (lambda handler: user_logged_in.on(LoginEventContext), r"names the event already: write"),
    ],
)
def test_a_decorator_without_its_parentheses_is_refused(misuse: Any, fix: str) -> None:
    with pytest.raises(HandlerSignatureError, match=fix):

        @misuse
        def handler(sender: Any, **context: Any) -> None: ...

    assert not user_logged_in.subscriptions


@pytest.mark.guarantee("H1")
@pytest.mark.parametrize("decorator", [on_event, HandlerGroup("mine").on])
def test_a_decorator_without_an_events_name_is_refused(decorator: Any) -> None:
    with pytest.raises(HandlerSignatureError, match=r"write @on_event\('event_name'\)"):

        @decorator
        def handler(sender: Any, **context: Any) -> None: ...


def test_a_by_name_handler_of_an_event_without_model_is_checked_as_it_is_called(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    signals.signal("anything")
    signals.subscribe("anything", lambda color: color)
    assert dispatcher.emit("anything", color="red").results[0].value == "red"
    (failure,) = dispatcher.emit("anything").failures
    assert "emitted without 'color'" in str(failure.exception)


Bounded = TypeVar("Bounded", bound=LoginEventContext)


def takes_type_variable(context: Bounded) -> Bounded:
    return context


def takes_annotated_emission(emission: Annotated[Emission[Any], "why not"]) -> Any:
    return emission.context


def takes_optional_emission(emission: Emission[Any] | None = None) -> Any:
    assert emission is not None
    return emission.context


@pytest.mark.guarantee("H1")
@pytest.mark.parametrize(
    "handler", [takes_type_variable, takes_annotated_emission, takes_optional_emission]
)
def test_annotations_that_mean_the_same_are_read_the_same(handler: Callable[..., Any]) -> None:
    assert returned(handler) is CONTEXT


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the type statement came with 3.12")
def test_an_alias_of_the_type_statement_is_read() -> None:
    scope: dict[str, Any] = {"LoginEventContext": LoginEventContext}
    exec("type Login = LoginEventContext\ndef handler(context: Login): return context", scope)  # noqa: S102
    assert returned(scope["handler"]) is CONTEXT


@pytest.mark.guarantee("H1")
def test_our_own_classes_are_known_where_they_are_imported_for_checkers_only() -> None:
    def of_emission(event: Emission[Any]) -> Any:
        return event.context

    def of_base(event: BaseEventContext) -> Any:
        return event

    for handler in (of_emission, of_base):
        alone = types.FunctionType(handler.__code__, {"Any": Any})
        alone.__annotations__ = dict(handler.__annotations__)
        alone.__module__ = __name__
        assert returned(alone) is CONTEXT


@pytest.mark.guarantee("H1")
def test_a_positional_only_parameter_with_a_default_keeps_it() -> None:
    def handler(sender: Any, email: str = "its own", /) -> str:
        return email

    assert returned(handler) == "its own"


class RaisingSignature:
    @property
    def __signature__(self) -> Any:
        raise RuntimeError

    def __call__(self) -> None: ...


@pytest.mark.guarantee("H1")
def test_what_python_itself_cannot_read_is_refused() -> None:
    def looping() -> None: ...

    looping.__wrapped__ = looping  # type: ignore[attr-defined]

    def late(
        sender: Any = None, color: str = "red", context: LoginEventContext = CONTEXT, /
    ) -> None: ...

    def shadowing(name: LoginEventContext, **rest: Any) -> None: ...

    for handler, fix in (
        (looping, "no readable signature"),
        (RaisingSignature(), "no readable signature"),
        (late, "after 'color', which is passed by name: put it first"),
        (shadowing, r"it would get the context: write \(context, name, \*\*rest\)"),
    ):
        with pytest.raises(HandlerSignatureError, match=fix):
            user_logged_in.subscribe(handler)


def test_a_loose_emission_becomes_the_first_model_of_a_union_that_fits(
    signals: SignalRegistry, dispatcher: EventDispatcher
) -> None:
    class First(BaseEventContext):
        one: int

    class Second(BaseEventContext):
        two: int

    def handler(context: Any) -> Any:
        return context

    handler.__annotations__["context"] = First | Second
    signals.signal("anything").subscribe(handler)
    assert isinstance(dispatcher.emit("anything", two=2).results[0].value, Second)
    assert isinstance(dispatcher.emit("anything", one=1).results[0].value, First)
    assert not dispatcher.emit("anything", three=3).ok
