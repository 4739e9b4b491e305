"""Importing the application whose events the command shows."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from inspect import Parameter, iscoroutinefunction, signature
from pkgutil import iter_modules
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from madcrow_events._text import close_matches, printable
from madcrow_events.cli._errors import CommandError
from madcrow_events.cli._messages import say, waiting_for
from madcrow_events.cli._theirs import ApplicationError, theirs
from madcrow_events.dispatcher import EventDispatcher
from madcrow_events.signals import SignalRegistry, madcrow_signals
from madcrow_events.signals._registry import declared_in, is_built_in

if TYPE_CHECKING:
    from types import ModuleType

    from madcrow_events.bridge import Bridge
    from madcrow_events.plugins import PluginReports

__all__ = [
    "INSPECT",
    "Application",
    "ApplicationError",
    "Named",
    "bridge_in",
    "load_application",
    "load_named",
]

INSPECT: Final = "MADCROW_EVENTS_INSPECT"
"""The variable that is 1 while an application is only looked at, and needs no connections."""


class Application(NamedTuple):
    """What the command looks at.

    Attributes:
        name: the module of the application, or None if none is given.
        signals: the registry.
        dispatcher: the dispatcher that emits, or None for that of the registry.
        plugins: the reports on the plugins that were loaded, or None.
        made: what `--app` names, which may be all that keeps an outbox.
    """

    name: str | None
    signals: SignalRegistry
    dispatcher: EventDispatcher | None = None
    plugins: PluginReports | None = None
    made: object = None


class Named(NamedTuple):
    """What `--app` names.

    Attributes:
        name: the name of the module.
        attributes: the name of the attribute, with dots if it is one of an object; maybe empty.
        module: the module.
        thing: the value of the attribute, or what it returned if it is a function that makes the
            application; without an attribute, the module.
    """

    name: str
    attributes: str
    module: ModuleType
    thing: Any


def load_application(
    app: str | None,
    app_dir: str | None = None,
    *,
    with_plugins: bool = False,
    is_inspected: bool = True,
) -> Application:
    """Import an application, and return what it has declared.

    Args:
        app: the module, such as `shop.events`, and after a colon the attribute that is its
            registry, its dispatcher, its bridge, or the function that makes the application; None
            for the built-in events alone.
        app_dir: a folder to put first on the path of imports, or None.
        with_plugins: whether to load the installed plugins, too.
        is_inspected: whether the application may leave its connections, because no handler will be
            called; the variable `MADCROW_EVENTS_INSPECT` says so.

    Raises:
        CommandError: the application cannot be found.
        ApplicationError: it raised an exception.
    """
    found = Application(None, madcrow_signals)
    if app is not None:
        named = load_named(app, app_dir, is_inspected=is_inspected)
        found = _application_of(named)._replace(made=named.thing)
    else:
        _prepare(app_dir, is_inspected=is_inspected)
    if with_plugins:
        from madcrow_events.plugins import load_plugins

        with waiting_for("loading plugins"):
            found = found._replace(plugins=load_plugins(signals=found.signals))
    return found


def load_named(app: str, app_dir: str | None = None, *, is_inspected: bool = True) -> Named:
    """Import an application, and return what `--app` names.

    Args:
        app: the module, and after a colon the attribute, as for `load_application`.
        app_dir: a folder to put first on the path of imports, or None.
        is_inspected: whether the application may leave its connections.

    Raises:
        CommandError: the application cannot be found.
        ApplicationError: it raised an exception.
    """
    _prepare(app_dir, is_inspected=is_inspected)
    name, _, attributes = app.partition(":")
    with waiting_for(f"importing {name}"):
        module = _imported(name, attributes)
        return Named(name, attributes, module, _thing(name, attributes, module))


def _prepare(app_dir: str | None, *, is_inspected: bool) -> None:
    if is_inspected:
        os.environ[INSPECT] = "1"
    if app_dir is not None:
        if not os.path.isdir(app_dir):  # noqa: PTH112  # pathlib would be imported
            raise CommandError(f"--app-dir {printable(app_dir)} is no folder")
        sys.path.insert(0, os.path.abspath(app_dir))  # noqa: PTH100  # as above


def _imported(name: str, attribute: str) -> Any:
    if name.endswith(".py") or not all(part.isidentifier() for part in name.split(".")):
        raise CommandError(_fix_for_path(name, attribute))
    try:
        return theirs(f"importing {name}", lambda: import_module(name))
    except ApplicationError as failure:
        missing = getattr(failure.error, "name", None)
        is_its_own = isinstance(failure.error, ModuleNotFoundError) and f"{name}.".startswith(
            f"{missing}."
        )
        if not is_its_own:
            raise
    raise CommandError(_fix_for_absent(name))


def _fix_for_absent(name: str) -> str:
    package, _, last = name.rpartition(".")
    if package not in sys.modules:
        fix = "install the application, or give the folder that has it, as in --app-dir ."
        return f"no module is called {name}: {fix}"
    found = [it.name for it in iter_modules(getattr(sys.modules[package], "__path__", ()))]
    near = close_matches(last, found, 1)
    return f"{package} has no module {last}{f': did you mean {package}.{near[0]}?' if near else ''}"


def _fix_for_path(name: str, attribute: str) -> str:
    """Say how the module of a path below the working directory is written."""
    path = os.path.relpath(name or os.curdir).removesuffix(".py").replace(os.sep, ".")
    is_below = all(part.isidentifier() for part in path.split("."))
    module = f"{path}:{attribute}" if is_below and attribute else path
    example = module if is_below else "shop.events"
    return f"--app '{printable(name)}' names no module: write it as in --app {example}"


def _thing(name: str, attributes: str, module: ModuleType) -> Any:
    """Return the attribute of a module, or what it makes."""
    thing: Any = module
    for attribute in attributes.split(".") if attributes else ():
        thing = theirs(f"{name}:{attributes}", partial(_attribute_of, thing, attribute, name))
    kind = type(thing)
    if kind in (FunctionType, MethodType) and _needs_nothing(thing):
        if iscoroutinefunction(thing):
            raise CommandError(f"{attributes} is async: name a plain function, or no attribute")
        thing = theirs(f"calling {attributes}()", thing)
    return thing


def _application_of(named: Named) -> Application:
    """Return the registry and the dispatcher that an attribute of the module means."""
    name, attributes, module, thing = named
    if issubclass(type(thing), SignalRegistry):
        return Application(name, thing)
    if issubclass(type(thing), EventDispatcher):
        return Application(name, thing.signals, thing)
    if (bridge := bridge_in(thing)) is not None:
        return Application(name, bridge.signals)
    if all(is_built_in(madcrow_signals, it) for it in declared_in(madcrow_signals)):
        has_others = _points_out_registries(name, module)
        if not (has_others or attributes or madcrow_signals.subscriptions):
            _point_out_factory(name, module)
    return Application(name, madcrow_signals)


def bridge_in(thing: object) -> Bridge | None:
    """Return what `--app` names if it is a bridge, else None."""
    if "madcrow_events.bridge" not in sys.modules:
        return None  # without importing SQLAlchemy
    from madcrow_events.bridge import Bridge

    return thing if issubclass(type(thing), Bridge) else None  # type: ignore[return-value]  # as was asked


def _attribute_of(thing: Any, attribute: str, name: str) -> Any:
    try:
        return getattr(thing, attribute)
    except AttributeError:
        near = close_matches(attribute, dir(thing), 1)
        hint = f": did you mean {near[0]}?" if near else ""
        raise CommandError(f"{name} has no attribute '{printable(attribute)}'{hint}") from None


def _points_out_registries(name: str, module: Any) -> bool:
    """Say how to see the events of the other registries of a module; return whether it has any."""
    # Not `isinstance`, here and elsewhere, which would ask proxies what they stand for.
    found = [
        attribute
        for attribute, it in vars(module).items()
        if issubclass(type(it), SignalRegistry) and it is not madcrow_signals
    ]
    for attribute in found:
        say(f"The application has a registry of its own: --app {name}:{attribute}")
    return bool(found)


def _point_out_factory(name: str, module: Any) -> None:
    """Say how to see the events that a module declares when its application is made."""
    functions = [
        attribute
        for attribute, it in vars(module).items()
        if type(it) is FunctionType and it.__module__ == name and _needs_nothing(it)
    ]
    likely = [it for it in functions if "app" in it or it.startswith(("create", "make"))]
    example = (likely or functions or ["create_app"])[0]
    say(
        f"{name} declares no event and subscribes no handler when it is imported. If a function "
        f"makes the application, name it: --app {name}:{example}"
    )


def _needs_nothing(function: Callable[..., Any]) -> bool:
    return not any(map(_is_required, signature(function).parameters.values()))


def _is_required(parameter: Parameter) -> bool:
    is_variadic = parameter.kind in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
    return parameter.default is Parameter.empty and not is_variadic
