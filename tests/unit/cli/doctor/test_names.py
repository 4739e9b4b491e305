"""Names of events that differ by a letter, and old names."""

from __future__ import annotations

import pytest

from madcrow_events.cli._doctor import _names

NEAR = [
    ("order_placed", "order_placd"),
    ("order_placed", "order_palced"),
    ("order_placed", "order_plaxed"),
    ("order_placed", "orders_placed"),
    ("shop.order_placed", "shp.order_placed"),
    ("user_logged_in", "user_loged_in"),
]


@pytest.mark.parametrize(("first", "second"), NEAR)
def test_names_that_differ_by_a_letter_are_found(examine_app, first, second):
    """One letter more, less or other, or two swapped; also beside a built-in event."""
    examined = examine_app(f"signals.signal('{first}')\nsignals.signal('{second}')")
    (found,) = examined.of("similar_names")
    assert found["subject"] == second
    assert found["message"] == f"{second} differs from {first} by a letter"
    assert examined.lines("similar_names") == [f"signals.signal('{second}')"]


def test_similar_names_of_events_that_are_both_handled_are_meant(examine_app):
    """Whoever has mistyped a name handles only one of them."""
    examined = examine_app(
        "for name in ('cart_created', 'card_created'):\n"
        "    signals.signal(name)\n    signals.subscribe(name, print)"
    )
    assert examined.record["findings"] == []


FAR = [
    ("order_placed", "order_paid"),
    ("job_1", "job_2"),
    ("job_1", "job_12"),
    ("step_1a", "step_a1"),
    ("user_in", "user_on"),
    ("a.order_placed", "b.order_placed"),
    ("order_placed", "order_cpaled"),
    ("order_abxd", "order_cdxb"),
    ("parcel_lost", "arcel_lostp"),
]


@pytest.mark.parametrize(("first", "second"), FAR)
def test_other_names_are_meant(examine_app, first, second):
    """Two letters, digits, and short words such as `in` and `on`."""
    examined = examine_app(f"signals.signal('{first}')\nsignals.signal('{second}')")
    assert examined.of("similar_names") == []


@pytest.mark.once
def test_many_names_are_compared_at_once():
    """Ten thousand in a few seconds at most; each with each would take minutes."""
    names = [f"event_{'abcdefghij'[at % 10] * 3}_{at}" for at in range(10_000)]
    assert _names._near_pairs([*names, "event_aaab_0"]) == {("event_aaa_0", "event_aaab_0")}


OLD = """
signals.signal("mail_sent", formerly="mail_posted")
register_handler("mail_sent", print)
"""


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_each_use_of_an_old_name_is_found(examine_app):
    """Whether it has happened or not: in calls, in groups, in brackets, in functions."""
    examined = examine_app(
        f"""
        {OLD}
        register_handler("mail-posted", print)
        group = HandlerGroup("mail")
        @group.on("mail_posted")
        def handle(): ...
        POSTED = "mail_posted"
        def later():
            emit_event(POSTED)
            signals["mail_posted"].connect(print)
            print("mail_posted")
        """.replace("\n        ", "\n")
    )
    assert examined.kinds == {"old_name"}
    assert examined.lines("old_name") == [
        'register_handler("mail-posted", print)',
        '@group.on("mail_posted")',
        "emit_event(POSTED)",
        'signals["mail_posted"].connect(print)',
    ]
    (found, *_) = examined.of("old_name")
    assert (found["message"], found["fix"]) == (
        "mail_posted is an old name of mail_sent",
        "write mail_sent",
    )


def test_a_text_that_is_no_name_of_an_event_is_not_old(examine_app):
    """As a key of a dictionary, or what an object of another kind is given."""
    examined = examine_app(
        f"""{OLD}
counts = {{"mail_posted": 0}}
counts["mail_posted"] += counts["mail_posted"]
def act(settings):
    settings.get("mail_posted")
    settings.subscribe("mail_posted")
    counts.get("mail_posted")
"""
    )
    assert examined.record["findings"] == []


def test_a_handler_that_was_subscribed_before_the_event_was_renamed_is_found(examine_app):
    """Its module still has the old name."""
    examined = examine_app(
        f"signals.signal('mail_posted')\n@on_event('mail_posted')\ndef handle(): ...\n{OLD}"
    )
    assert {it["message"] for it in examined.of("old_name")} == {
        "mail_posted is an old name of mail_sent"
    }
    assert examined.lines("old_name")[0] == "@on_event('mail_posted')"
