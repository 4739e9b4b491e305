"""Reading a handler's signature, once, when it is registered.

Each parameter gets its source: the emission, the context as a model, the sender, one keyword, or
all the rest. The sources make up a `CallSpec`, by which the call loop calls the handler. A handler
that cannot be called is refused here, with a message that says what to write instead.
"""

from __future__ import annotations

import inspect
import typing
from functools import partial
from typing import TYPE_CHECKING, Any

from madcrow_events._interrupts import is_interrupt
from madcrow_events._text import close_matches, handler_name, names_apart, printable, type_name
from madcrow_events.emissions import Emission
from madcrow_events.emissions._contexts import context_as, emission_with
from madcrow_events.emissions._plan import CallSpec
from madcrow_events.emissions._styles import BY_CONTEXT, BY_EMISSION, BY_KEYWORDS
from madcrow_events.exceptions import HandlerSignatureError
from madcrow_events.models import BaseEventContext
from madcrow_events.subscriptions._annotations import Annotations, is_list, is_model, is_unknown
from madcrow_events.subscriptions._call_specs import (
    ASYNC_RECEIVER,
    RECEIVER,
    fit_keywords,
    invoke_by_parameters,
    invoke_with_context,
    invoke_with_keywords,
    invoke_with_list,
    itself,
    perhaps_awaited,
    sender_of,
    whole_context,
)
from madcrow_events.subscriptions._injection import (
    injecting_package,
    is_injection_used,
    is_left_to_wrapper,
)
from madcrow_events.subscriptions._kinds import (
    is_async,
    is_bare_classmethod,
    is_generator,
    is_perhaps_awaited,
)
from madcrow_events.subscriptions._parameters import signature_of
from madcrow_events.subscriptions._shapes import remember, slot_of

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["call_spec_of_receiver", "read_call_spec"]

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)

_BY_PLACE = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)

_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def read_call_spec(
    handler: object,
    event: str,
    model: type[BaseEventContext] | None,
    *,
    pattern: bool = False,
    batch: bool = False,
    replaced: tuple[type[BaseEventContext], ...] = (),
) -> CallSpec:
    """Return the call spec of a handler, read from its signature.

    Args:
        handler: any callable.
        event: the event's name or pattern, for messages.
        model: the context model of the signal, if it has one.
        pattern: whether the handler is for a pattern; it then cannot take a field by name.
        batch: whether the handler takes a list of contexts.
        replaced: classes that the model has replaced; a handler may still name them.

    Raises:
        HandlerSignatureError: the handler cannot be called with the context of the event.
    """
    slot = None if batch or replaced else slot_of(handler, model, pattern=pattern)
    spec = None if slot is None else slot[0].get(slot[1])
    if spec is None:
        reader = _Reader(handler, event, model, pattern=pattern, replaced=replaced)
        spec = _awaited(handler, reader.read_for_batches() if batch else reader.read())
        if slot is not None:
            remember(slot, spec)
    return spec


def call_spec_of_receiver(receiver: object) -> CallSpec:
    """Return the call spec of a receiver for `connect`, which does not read its signature."""
    return _awaited(receiver, ASYNC_RECEIVER) if is_async(receiver) else RECEIVER


def _awaited(handler: object, spec: CallSpec) -> CallSpec:
    return perhaps_awaited(spec) if spec.is_async and is_perhaps_awaited(handler) else spec


class _Reader:
    def __init__(
        self,
        handler: object,
        event: str,
        model: type[BaseEventContext] | None,
        *,
        pattern: bool,
        replaced: tuple[type[BaseEventContext], ...],
    ) -> None:
        self.handler = handler
        self.event = event
        self.model = model
        self.pattern = pattern
        self.replaced = replaced
        self.batch = False
        self.names: list[str] = []
        self.annotations = Annotations(handler, model)
        self.withheld: frozenset[str] = frozenset()

    def read(self) -> CallSpec:  # noqa: C901, PLR0912  # a branch for each kind of parameter
        parameters = self._parameters()
        self.names = [it.name for it in parameters if it.kind not in _VARIADIC]
        kinds = {parameter.kind for parameter in parameters}
        takes_rest = inspect.Parameter.VAR_KEYWORD in kinds
        positional: list[Callable[[Emission], Any]] = []
        by_name: list[inspect.Parameter] = []
        injected: dict[str, Callable[[Emission], Any]] = {}
        accepted: tuple[type[BaseEventContext], ...] = ()
        by_place: list[str] = []
        sender_is_free = not any(
            parameter.name == "sender" and parameter.kind not in _VARIADIC
            for parameter in parameters
        )

        for parameter in parameters:
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                continue
            if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                if sender_is_free and not injected and not by_name:
                    positional.append(sender_of)
                continue
            source = self._annotated_source(parameter)
            if source is not None:
                get, accepted = source
            elif parameter.name == "sender" or (
                sender_is_free
                and parameter.kind in _POSITIONAL
                and (takes_rest or parameter.kind is inspect.Parameter.POSITIONAL_ONLY)
            ):
                self._check_field(parameter, "sender")
                get = sender_of
                sender_is_free = False
            else:
                self._check_name(parameter, takes_rest=takes_rest)
                by_name.append(parameter)
                continue
            if by_name and parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
                raise self._refused(
                    f"takes '{parameter.name}' by position only, after '{by_name[-1].name}', "
                    "which is passed by name: put it first"
                )
            if source is not None and takes_rest:
                self._check_field(parameter, "context")
            if parameter.kind in _POSITIONAL and not by_name:
                positional.append(get)
                if parameter.kind is not inspect.Parameter.POSITIONAL_ONLY:
                    by_place.append(parameter.name)
            else:
                injected[parameter.name] = get

        awaited = is_async(self.handler)
        named = [item for item in by_name if item.kind is not inspect.Parameter.POSITIONAL_ONLY]
        required = tuple(item.name for item in named if item.default is item.empty)
        receives = takes_rest and positional == [sender_of] and not (injected or self.withheld)
        if receives and not required and by_place in ([], ["sender"]):
            return ASYNC_RECEIVER if awaited else RECEIVER
        if accepted and positional and len(parameters) == 1:
            direct = self.model is not None and issubclass(self.model, accepted)
            return CallSpec(
                BY_CONTEXT if direct else BY_EMISSION,
                partial(invoke_with_context, accepted),
                is_async=awaited,
            )
        invoke: Callable[[Any, Emission], Any] = invoke_with_keywords
        if not receives:
            invoke = partial(
                invoke_by_parameters,
                tuple(positional),
                tuple(injected.items()),
                tuple((item.name, item.name in required) for item in named),
                takes_rest,
                self.withheld,
            )
        return CallSpec(
            BY_KEYWORDS if receives else BY_EMISSION,
            invoke,
            is_async=awaited,
            fit=partial(fit_keywords, invoke, required, tuple(by_place)) if takes_rest else None,
        )

    def read_for_batches(self) -> CallSpec:
        """Return the call spec of a handler that takes a list."""
        self.batch = True
        parameters = self._parameters()
        required = [p for p in parameters if p.default is p.empty and p.kind not in _VARIADIC]
        takes = [
            p for p in parameters if p.kind in (*_POSITIONAL, inspect.Parameter.VAR_POSITIONAL)
        ]
        if not takes or any(parameter is not takes[0] for parameter in required):
            raise self._takes_no_list()
        parameter = takes[0]
        members = self.annotations.members(parameter.annotation)
        if not any(map(is_list, members)) and (
            parameter.name == "sender"
            or (self.model is not None and parameter.name in self.model.model_fields)
        ):
            raise self._takes_no_list()  # the handler is for single contexts
        item: Callable[[Emission], Any] = whole_context
        is_context = True
        for member in members:
            if is_list(member):
                listed = typing.get_args(member)[0]
                source = self._annotated_source(parameter.replace(annotation=listed))
                item = whole_context if source is None else source[0]
                is_context = source is None or self.model in source[1]
            elif is_model(member) or (typing.get_origin(member) or member) is Emission:
                raise self._refused(
                    f"takes one {type_name(member)} in '{parameter.name}', and has a batch: "
                    f"annotate it with list[{type_name(member)}]"
                )
            elif not _may_be_list(member):
                raise self._takes_no_list()
        return CallSpec(
            BY_EMISSION,
            partial(invoke_with_list, item),
            is_async=is_async(self.handler),
            item=item,
            item_is_context=is_context,
        )

    def _takes_no_list(self) -> HandlerSignatureError:
        model = "BaseEventContext" if self.model is None else type_name(self.model)
        return self._refused(
            "has a batch, and so is called with one list: write (contexts), annotated with "
            f"list[{model}] or list[Emission]"
        )

    def _parameters(self) -> list[inspect.Parameter]:
        if not callable(self.handler):
            raise self._not_callable(type(self.handler))
        if issubclass(type(self.handler), type) and is_model(self.handler):
            raise self._refused(
                "is a context class, and handlers are functions: to declare the event that it "
                "stands for, write @madcrow_signals.event above it"
            )
        try:
            is_bare, is_lazy = is_bare_classmethod(self.handler), is_generator(self.handler)
            parameters = list(signature_of(self.handler).parameters.values())
        except Exception as error:  # a wrapper loop, or a property that raises
            if is_interrupt(error):
                raise
            raise self._refused("has no readable signature: wrap it in a function") from None
        if is_bare:
            raise self._not_callable(classmethod)
        if not parameters and _makes_handlers(self.handler):
            event = f"'{self.event}'" if self.model is None else type_name(self.model)
            raise self._refused(
                "is a class, and its objects would be thrown away: subscribe an object of it, as "
                f"in register_handler({event}, {type_name(self.handler)}())"
            )
        if is_lazy:
            raise self._refused("is a generator, which does nothing when called: return, not yield")
        if parameters and parameters[0].name == "self" and parameters[0].kind in _POSITIONAL:
            raise self._refused(
                "takes 'self' first, so it is a method without its object: "
                "subscribe the bound method, as in service.method, and keep the object"
            )
        return self._without_injected(parameters) if is_injection_used() else parameters

    def _not_callable(self, kind: type) -> HandlerSignatureError:
        if issubclass(kind, classmethod):
            return self._refused(
                "is a classmethod without its class: subscribe Class.method after the class"
            )
        if hasattr(kind, "__get__"):
            return self._refused(
                f"is a {type_name(kind)} without its object: subscribe the bound method, as in "
                "service.method"
            )
        return self._refused(f"is of type {type_name(kind)} and cannot be called: give a function")

    def _without_injected(self, parameters: list[inspect.Parameter]) -> list[inspect.Parameter]:
        """Return the parameters that no wrapper fills in, by name only if one before them is."""
        left: list[inspect.Parameter] = []
        withheld: set[str] = set()
        for parameter in parameters:
            marks = (parameter.default, *self.annotations.metadata(parameter.annotation))
            found = injecting_package(marks)
            if found is not None:
                self._check_injected(parameter, *found)
                withheld.add(parameter.name)
            elif not withheld or parameter.kind not in _BY_PLACE:
                left.append(parameter)
            elif parameter.kind is not inspect.Parameter.VAR_POSITIONAL:
                left.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
        self.withheld = frozenset(withheld)
        return left

    def _check_injected(self, parameter: inspect.Parameter, package: str, marker: object) -> None:
        if is_left_to_wrapper(self.handler, package, marker):
            return
        if package == "fastapi":
            raise self._refused(
                f"takes '{parameter.name}' from fastapi.Depends, which only FastAPI resolves, and "
                "for its endpoints: call what it depends on in the handler, or decorate the "
                "handler with inject of fast_depends, and use Depends of that"
            )
        raise self._refused(
            f"takes '{parameter.name}' from {package}, which does not wrap it: decorate the "
            f"handler with inject of {package}, below what subscribes it"
        )

    def _annotated_source(
        self, parameter: inspect.Parameter
    ) -> tuple[Callable[[Emission], Any], tuple[type[BaseEventContext], ...]] | None:
        members = self.annotations.members(parameter.annotation)
        if members and all((typing.get_origin(m) or m) is Emission for m in members):
            named = [it for member in members for it in self.annotations.arguments(member)]
            self._check_known(parameter, named)
            models = tuple(filter(is_model, named))
            if not models:
                return itself, ()
            self._check_models(parameter, models)
            return partial(emission_with, models), ()
        if members and all(map(is_model, members)):
            self._check_models(parameter, members)
            return partial(context_as, members), members
        return None

    def _check_known(self, parameter: inspect.Parameter, named: list[Any]) -> None:
        if any(map(is_unknown, named)):
            model = "BaseEventContext" if self.model is None else type_name(self.model)
            raise self._refused(
                f"takes an Emission in '{parameter.name}' of a model that cannot be found: import "
                f"it where the handler is, not for type checkers only, or write Emission[{model}]"
            )

    def _check_models(
        self, parameter: inspect.Parameter, models: tuple[type[BaseEventContext], ...]
    ) -> None:
        if self.pattern:
            if BaseEventContext not in models:
                raise self._refused(
                    f"takes one model in '{parameter.name}', but is for many events: subscribe it "
                    f"with @on_event({type_name(models[0])}), or annotate it with "
                    f"{self._written('BaseEventContext')} or {self._written('Emission')}"
                )
        elif self.model is not None and not any(
            issubclass(known, models) for known in (self.model, *self.replaced)
        ):
            *wanted, carried = names_apart(*models, self.model)
            carries = f"{self.event} carries" if self.event != carried else "its events carry"
            raise self._refused(
                f"takes {' or '.join(wanted)} in '{parameter.name}', but {carries} {carried}: "
                f"annotate it with {self._written(carried)}, or subscribe it with "
                f"@on_event({wanted[0]})"
            )

    def _written(self, name: str) -> str:
        """Return the annotation that the handler needs for a class, with `list` for batches."""
        return f"list[{name}]" if self.batch else name

    def _check_field(self, parameter: inspect.Parameter, lands: str) -> None:
        if self.model is not None and parameter.name in self.model.model_fields:
            raise self._refused(
                f"has a parameter '{parameter.name}', which is also a field, but it would get "
                f"the {lands}: write ({lands}, {parameter.name}, **rest)"
            )

    def _check_name(self, parameter: inspect.Parameter, *, takes_rest: bool) -> None:
        if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
            if parameter.default is parameter.empty:
                raise self._refused(
                    f"takes '{parameter.name}' as a positional-only parameter, but fields are "
                    "passed by name, and only the sender by position: "
                    f"move '{parameter.name}' behind the '/'"
                )
            return
        if parameter.default is not parameter.empty:
            return
        if self.pattern and not takes_rest:
            raise self._refused(
                f"takes '{parameter.name}' by name, but is for many events: "
                "write (sender, **context), or take an Emission"
            )
        if self.model is None or parameter.name in self.model.model_fields:
            return
        name = type_name(self.model)
        fix = self._fix_for_name(parameter, name, list(self.model.model_fields))
        raise self._refused(f"takes '{parameter.name}', which is no field of {name}: {fix}")

    def _fix_for_name(self, parameter: inspect.Parameter, name: str, fields: list[str]) -> str:
        """Return what to write instead of a parameter that is no field of the model `name`."""
        near = close_matches(parameter.name, fields, 1)
        field = f"did you mean '{near[0]}'?" if near else f"take one of {', '.join(fields)}"
        is_annotated = parameter.annotation is not parameter.empty
        if any(map(is_list, self.annotations.members(parameter.annotation))):
            return f"to take lists, give the option batch=Batch(); for single ones write {name}"
        if parameter.name in ("emission", "event") and not near:
            return f"annotate it with Emission, or with {name} to receive the context"
        if is_annotated and parameter.name == "context":
            shown = type_name(parameter.annotation)
            return f"its annotation {shown} is no context model that can be found: write {name}"
        # A sole parameter without annotation is more likely meant for the context than for a field.
        is_sole = self.names == [parameter.name]
        if parameter.name == self.names[0] and not (near and (is_annotated or not is_sole)):
            written = f"{parameter.name}: {name}"
            # The parameter of a lambda cannot be annotated.
            is_lambda = getattr(self.handler, "__name__", None) == "<lambda>"
            fix = f"write def handler({written})" if is_lambda else f"annotate it, as in {written}"
            return f"{fix}, or {field}"
        return f"give it a default, fill it in with functools.partial or a closure, or {field}"

    def _refused(self, problem: str) -> HandlerSignatureError:
        where = f" for {printable(self.event)}" if self.event else ""
        return HandlerSignatureError(
            f"handler {handler_name(self.handler)}{where} {problem}",
            event=self.event,
            handler=self.handler,
        )


def _makes_handlers(handler: Any) -> bool:
    """Whether a handler is a class whose objects are callable."""
    return issubclass(type(handler), type) and any(
        "__call__" in vars(base) for base in handler.__mro__
    )


def _may_be_list(annotation: object) -> bool:
    """Whether an annotation allows a list, or is unreadable."""
    kind = typing.get_origin(annotation) or annotation
    if kind in (Any, inspect.Parameter.empty) or not isinstance(kind, type):
        return True
    try:
        return issubclass(list, kind)
    except TypeError:  # a protocol without run-time checks
        return True
