"""One function that is subscribed to an event again and again."""

from __future__ import annotations

import pytest

EVENT = "signals.signal('order_placed')\n"

REPEATED = {
    "a closure": """
        def make():
            def handle(): ...
            return handle
        for _ in range(2):
            register_handler("order_placed", make())
    """,
    "a decorated function": """
        def wire():
            @on_event("order_placed", priority=3)
            def handle(): ...
        wire()
        wire()
    """,
    "a lambda": """
        for _ in range(3):
            on_event("order_placed")(lambda: None)
    """,
    "a lambda with a default": """
        for place in ("there", "there"):
            on_event("order_placed")(lambda place=place, *, when=(1, None): place)
    """,
    "a partial": """
        from functools import partial
        def handle(place, **context): ...
        for _ in range(2):
            register_handler("order_placed", partial(handle, "here", times=3))
    """,
    "a partial of a method": """
        from functools import partial
        class Service:
            def handle(self, place): ...
        service = Service()
        for _ in range(2):
            register_handler("order_placed", partial(service.handle, "here"))
    """,
    "a function under a decorator": """
        from functools import wraps
        def traced(function):
            @wraps(function)
            def wrapper(**context):
                return function(**context)
            return wrapper
        def handle(**context): ...
        for _ in range(2):
            register_handler("order_placed", traced(handle))
    """,
    "a closure over a method": """
        class Service:
            def handle(self): ...
        service = Service()
        def make(act):
            return lambda: act()
        for _ in range(2):
            register_handler("order_placed", make(service.handle))
    """,
    "a closure that calls itself": """
        def make():
            def handle(**context): return handle
            return handle
        for _ in range(2):
            register_handler("order_placed", make())
    """,
    "a closure for a pattern": """
        for _ in range(2):
            on_event("order_*")(lambda: None)
    """,
    "a closure for a class": """
        @signals.event
        class Paid(BaseEventContext): ...
        for _ in range(2):
            on_event(Paid)(lambda: None)
    """,
    "a closure in a group": """
        group = HandlerGroup("shop")
        for _ in range(2):
            group.on("order_placed")(lambda: None)
    """,
    "a closure in a group, for a class": """
        group = HandlerGroup("shop")
        @signals.event
        class Paid(BaseEventContext): ...
        for _ in range(2):
            group.on(Paid)(lambda: None)
    """,
    "a closure in a registered group": """
        group = HandlerGroup("shop")
        for _ in range(2):
            group.on("order_placed")(lambda: None)
        group.register()
    """,
    "a closure with an empty cell": """
        def make():
            def handle(): return never
            return handle
            never = None
        for _ in range(2):
            register_handler("order_placed", make())
    """,
}


@pytest.mark.parametrize("how", REPEATED)
def test_a_function_that_is_subscribed_again_and_again_is_found(examine_app, how):
    """Once for each function and event, with how many times."""
    examined = examine_app(EVENT + REPEATED[how].replace("\n        ", "\n"))
    (found,) = examined.of("repeated_handler")
    assert " times" in found["message"]
    assert "outside of the loop" in found["fix"]
    (line,) = examined.lines("repeated_handler")
    assert line.startswith(("def ", "@")) or "lambda" in line


MEANT = {
    "a function, which counts once": """
        def handle(): ...
        for _ in range(2):
            register_handler("order_placed", handle)
    """,
    "methods of many objects": """
        class Screen:
            def show(self): ...
        screens = [Screen() for _ in range(20)]
        for screen in screens:
            register_handler("order_placed", screen.show)
    """,
    "callable objects": """
        class Handler:
            def __call__(self): ...
        for _ in range(20):
            register_handler("order_placed", Handler())
    """,
    "some, each with another value": """
        for place in ("here", "there"):
            on_event("order_placed")(lambda place=place: place)
    """,
    "a closure that holds equal things": """
        def make(place, *times):
            seen = [place, {"at": {1, 2}}, frozenset()]
            def handle(**context): seen.append(times)
            return handle
        for _ in range(2):
            register_handler("order_placed", make("here", 1, 2.0))
    """,
    "many, each with another value": """
        for number in range(10):
            on_event("order_placed")(lambda number=number: number)
    """,
    "many, each with another object": """
        def make(thing):
            def handle(): return thing
            return handle
        for number in range(12):
            register_handler("order_placed", make(object()))
    """,
    "one for each condition": """
        for when in (lambda: True, lambda: False):
            on_event("order_placed", when=when)(lambda: None)
    """,
    "some, each with a large list": """
        def make(things):
            return lambda: things
        for _ in range(2):
            register_handler("order_placed", make([0] * 1000))
    """,
    "one for each sender": """
        for sender in ("shop", "market"):
            on_event("order_placed", sender=sender)(lambda: None)
    """,
    "many that have an id": """
        for number in range(20):
            on_event("order_placed", id=f"to {number}")(lambda: None)
    """,
    "other options": """
        on_event("order_placed")(make := lambda: None)
        for priority in (1, 2):
            on_event("order_placed", priority=priority)(lambda: None)
    """,
    "partials of many methods and classes": """
        from functools import partial
        class Service:
            def __call__(self): ...
        for at in range(12):
            exec(f"class Service{at}(Service):\\n    def handle(self): ...")
            register_handler("order_placed", partial(globals()[f"Service{at}"]().handle))
            register_handler("order_placed", partial(globals()[f"Service{at}"]))
        register_handler("order_placed", partial(print))
        register_handler("order_placed", partial(repr, 1))
    """,
    "one for each event": """
        signals.signal("order_sent")
        def make():
            return lambda: None
        for event in ("order_placed", "order_sent"):
            register_handler(event, make())
    """,
    "many functions under one decorator": """
        def traced(function):
            def wrapper(**context): return function(**context)
            return wrapper
        for at in range(12):
            exec(f"def handle_{at}(**context): ...\\nregister_handler('order_placed', "
                 f"traced(handle_{at}))")
    """,
}


@pytest.mark.parametrize("how", MEANT)
def test_what_is_meant_is_no_finding(examine_app, how):
    """Other objects, values, options, events or functions."""
    examined = examine_app(EVENT + MEANT[how].replace("\n        ", "\n"))
    assert examined.of("repeated_handler") == []


def test_functions_that_know_each_other_are_compared_at_once(examine_app):
    """What a closure holds is not looked into."""
    names = [f"f{at}" for at in range(30)]
    inner = "".join(f"    def {it}(): return {', '.join(names)}\n" for it in names)
    source = f"{EVENT}def make():\n{inner}    on_event('order_placed')(f0)\nmake()\nmake()"
    assert examine_app(source).of("repeated_handler") == []
