"""Examining an application for mistakes with events."""

from __future__ import annotations

import sys

from madcrow_events._text import printable
from madcrow_events.cli._application import Application, ApplicationError, load_application
from madcrow_events.cli._doctor._events import is_observed, own_events, silent_events, unhandled
from madcrow_events.cli._doctor._findings import (
    Examination,
    Finding,
    FindingKind,
    finding,
    in_order,
)
from madcrow_events.cli._doctor._groups import groups_of
from madcrow_events.cli._doctor._imports import ImportTimes, slow_imports
from madcrow_events.cli._doctor._modules import modules_of, own_modules
from madcrow_events.cli._doctor._names import old_names, similar_names
from madcrow_events.cli._doctor._plugins import checked, unlisted, unloaded
from madcrow_events.cli._doctor._repeats import repeated_handlers
from madcrow_events.cli._doctor._sources import read_sources
from madcrow_events.cli._doctor._undeclared import later_undeclared, noting_undeclared, undeclared
from madcrow_events.cli._doctor._unmatched import listening, unmatched
from madcrow_events.cli._durable import durable_handlers
from madcrow_events.exceptions import UnknownEventError
from madcrow_events.signals import madcrow_signals

__all__ = ["Examination", "Finding", "FindingKind", "examine"]


def examine(app: str, app_dir: str | None = None, *, with_plugins: bool = False) -> Examination:
    """Import an application, and return what is wrong with its events and handlers.

    Args:
        app: as for `load_application`.
        app_dir: as for `load_application`.
        with_plugins: whether to load the installed plugins into the application. If not, each is
            tried in a process of its own.

    Raises:
        CommandError: the application cannot be found.
        ApplicationError: it raised an exception while it was imported, other than that an event is
            not declared.
    """
    before = frozenset(sys.modules)
    name = app.partition(":")[0]
    with ImportTimes() as imports, noting_undeclared() as noted:
        found, failures = _loaded(app, app_dir, with_plugins=with_plugins)
    signals = found.signals
    modules = modules_of(name, before)
    own = own_modules(modules, name, app_dir)
    sources = read_sources(modules, own)
    groups, sure = groups_of(signals, modules)
    events = own_events(signals, own)
    silent = silent_events(signals, events, groups, sources)
    may_be_handled = sources.subscribe_to_any or sources.have_observers
    may_be_handled |= is_observed(found.dispatcher or signals.dispatcher)
    reports = checked(found.plugins, sources)
    listeners = listening(signals, groups)
    findings = [*failures, *undeclared(signals, noted, groups)]
    if not failures:  # else more may be declared and handled by what was not imported
        findings += [
            *unhandled(signals, [] if may_be_handled else silent),
            *later_undeclared(signals, noted, groups, sure, sources),
            *unmatched(signals, groups, sure, sources),
            *similar_names(signals, events, silent),
        ]
    return {
        "events": len(events),
        "handlers": len(listeners) + len(durable_handlers(signals)),
        "plugins": 0 if reports is None else len(reports),
        "perhaps_handled": sorted(it.name for it in silent) if may_be_handled else [],
        "findings": in_order(
            [
                *findings,
                *repeated_handlers(listeners),
                *slow_imports(imports.seconds, own),
                *([] if reports is None else unloaded(reports, sources)),
                *unlisted(sources),
                *old_names(signals, groups, sources),
            ]
        ),
    }


def _loaded(
    app: str, app_dir: str | None, *, with_plugins: bool
) -> tuple[Application, list[Finding]]:
    """Import an application; return what it is, and why its import has ended early."""
    try:
        return load_application(app, app_dir, with_plugins=with_plugins), []
    except ApplicationError as failure:
        error = failure.error
        if not isinstance(error, UnknownEventError):
            raise
        subject, message = error.event or app, printable(error, 500)
        fix = "mend that first: what follows it was not imported"
        failed = finding("undeclared_event", subject, message, fix, failure.line)
        return Application(app.partition(":")[0], madcrow_signals), [failed]
