"""The pytest plugin, in runs of its own."""

from importlib.util import find_spec

import pytest

from madcrow_events import (
    EventDispatcher,
    SignalRegistry,
    emit_event,
    get_event_dispatcher,
    madcrow_signals,
)
from madcrow_events.testing import Recorder

pytest_plugins = ["pytester"]

LOOPS = "asyncio_default_fixture_loop_scope=function"

CONFTEST = """
    from madcrow_events import on_event

    calls = []

    @on_event("user_logged_in")
    def registered_at_import(**context):
        calls.append(context)
"""

LEAKING = """
    import unittest
    import pytest
    from madcrow_events import emit_event, madcrow_signals, on_event

    @pytest.fixture(scope="module")
    def application():
        @on_event("user_logged_in")
        def of_the_application(**context):
            pass

    def leak():
        @on_event("user_logged_in")
        def left_behind(**context):
            pass
        madcrow_signals.signal("left.behind")

    @pytest.mark.parametrize("number", range(4))
    def test_leaks(number, application):
        assert len(madcrow_signals.subscriptions) == 2
        leak()
        emit_event("user_logged_in", user_id=number, email="a@example.com")

    class OldStyle(unittest.TestCase):
        def test_leaks(self):
            self.assertNotIn("left.behind", madcrow_signals)
            leak()

        def test_leaks_too(self):
            self.assertNotIn("left.behind", madcrow_signals)
            leak()

    async def test_leaks_async():
        assert "left.behind" not in madcrow_signals
        leak()
"""


@pytest.fixture
def run(pytester: pytest.Pytester):
    def run(*arguments: str, ini: str = "", apart: bool = False) -> pytest.RunResult:
        pytester.makeini(f"[pytest]\nasyncio_mode=auto\n{LOOPS}\n{ini}")
        if apart:
            return pytester.runpytest_subprocess(*arguments)
        return pytester.runpytest_inprocess(*arguments)

    return run


@pytest.mark.parametrize(
    "arguments", [[], pytest.param(["-n", "2"], marks=pytest.mark.once), ["--random-order"]]
)
def test_each_test_starts_with_the_handlers_of_import_time(
    pytester: pytest.Pytester, run, arguments: list[str]
) -> None:
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(LEAKING)
    run(*arguments, ini="madcrow_events_isolate = true").assert_outcomes(passed=7)


@pytest.mark.once
def test_a_test_that_leaves_a_block_open_fails_alone(pytester: pytest.Pytester, run) -> None:
    pytester.makepyfile(
        """
        from madcrow_events import madcrow_signals

        def test_leaves_it_open():
            global block
            block = madcrow_signals.isolated()
            block.__enter__()

        def test_goes_on():
            assert not madcrow_signals.subscriptions
        """
    )
    result = run(ini="madcrow_events_isolate = true", apart=True)
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*RuntimeError: isolated() blocks must end in the reverse order*"])


def test_the_fixtures_record_isolate_and_dispatch(pytester: pytest.Pytester, run) -> None:
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(
        """
        import asyncio
        from madcrow_events import emit_event, get_event_dispatcher, madcrow_signals

        def test_records(recorded_events):
            emit_event("user_logged_in", user_id=1, email="a@example.com")
            recorded_events.assert_emitted("user_logged_in", times=1, user_id=1)

        async def test_records_async(recorded_events):
            emit = get_event_dispatcher().emit_async
            await asyncio.gather(*(emit("user_logged_in", user_id=n, email="") for n in (1, 2)))
            recorded_events.assert_emitted("user_logged_in", times=2)

        def test_is_empty(isolated_signals):
            assert isolated_signals is madcrow_signals
            assert not isolated_signals.subscriptions

        def test_dispatches(event_dispatcher):
            assert get_event_dispatcher() is event_dispatcher
            assert event_dispatcher.emit("user_logged_in", user_id=1, email="").results == ()

        def test_records_in_isolation(recorded_events, event_dispatcher):
            event_dispatcher.emit("user_logged_in", user_id=1, email="a@example.com")
            recorded_events.assert_emitted("user_logged_in", times=1)

        def test_leaves_nothing():
            assert len(madcrow_signals.subscriptions) == 1
            emission = emit_event("user_logged_in", user_id=1, email="a@example.com")
            assert [it.handler.__name__ for it in emission.results] == ["registered_at_import"]
        """
    )
    run().assert_outcomes(passed=6)


EARLY = """
    from madcrow_events import EventDispatcher, get_event_dispatcher

    early = EventDispatcher()
    early_sibling = early.with_options(on_error="raise")
    get_event_dispatcher()
"""

VALIDATING = """
    import pytest
    from early import early, early_sibling
    from madcrow_events import (
        ContextValidationError, EventDispatcher, emit_event, get_event_dispatcher
    )

    late = EventDispatcher()
    validating = {
        "early": early,
        "its sibling": early_sibling,
        "late": late,
        "another sibling": late.with_options(log_tracebacks=False),
        "the default": get_event_dispatcher(),
        "one that says so": EventDispatcher(validate=True),
    }
    refusing = EventDispatcher(validate=False)

    @pytest.mark.parametrize("name", validating)
    def test_validates(name):
        assert validating[name].validate is True
        with pytest.raises(ContextValidationError, match="email: missing"):
            validating[name].emit("user_logged_in", user_id=1)

    def test_validates_what_emit_event_emits():
        with pytest.raises(ContextValidationError, match="email: missing"):
            emit_event("user_logged_in", user_id=1)

    def test_validates_in_the_fixture(event_dispatcher):
        with pytest.raises(ContextValidationError, match="email: missing"):
            event_dispatcher.emit("user_logged_in", user_id=1)

    @pytest.mark.parametrize("dispatcher", [
        refusing,
        refusing.with_options(on_error="raise"),
        late.with_options(validate=False),
        late.with_options(validate=False).with_options(on_error="raise"),
    ])
    def test_does_not_validate(dispatcher):
        assert dispatcher.validate is False
        assert dispatcher.emit("user_logged_in", user_id=1).ok
"""


@pytest.mark.guarantee("C4")
@pytest.mark.parametrize("apart", [False, pytest.param(True, marks=pytest.mark.once)])
def test_dispatchers_validate_unless_they_say_that_they_do_not(
    pytester: pytest.Pytester, run, apart: bool
) -> None:
    """Whether they are made before the plugin is configured, or when the tests are imported."""
    pytester.makepyfile(early=EARLY)
    pytester.makepyfile(VALIDATING)
    before = EventDispatcher()
    pytester.syspathinsert()
    arguments = ["-p", "early", "-o", "python_files=test_*.py"]
    run(*arguments, ini="madcrow_events_validate = true", apart=apart).assert_outcomes(passed=12)
    assert before.validate is EventDispatcher().validate is False


def test_dispatchers_do_not_validate_if_nobody_says_so(pytester: pytest.Pytester, run) -> None:
    pytester.makepyfile(
        """
        from madcrow_events import EventDispatcher, emit_event

        def test_it():
            assert EventDispatcher(validate=True).validate is True
            assert EventDispatcher().validate is EventDispatcher(validate=None).validate is False
            assert emit_event("user_logged_in", user_id=1).ok
        """
    )
    run().assert_outcomes(passed=1)


def test_an_assertion_in_where_reads_as_the_tests_own(pytester: pytest.Pytester, run) -> None:
    pytester.makepyfile(
        """
        from madcrow_events import emit_event

        def where(login):
            assert login["user_id"] == 2
            return True

        def test_it(recorded_events):
            emit_event("user_logged_in", user_id=1, email="a@example.com")
            recorded_events.assert_emitted("user_logged_in", where=where)
        """
    )
    result = run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(['*assert login[[]"user_id"[]] == 2', "E  *assert 1 == 2"])


@pytest.mark.once
def test_a_run_that_does_not_use_it_does_not_import_the_package(
    pytester: pytest.Pytester, run
) -> None:
    pytester.makepyfile("import sys\ndef test(): assert 'madcrow_events' not in sys.modules")
    run(apart=True).assert_outcomes(passed=1)


def test_the_fixtures_work_beside_those_of_a_suite_that_isolates_by_itself(
    recorded_events: Recorder, event_dispatcher: EventDispatcher, isolated_signals: SignalRegistry
) -> None:
    """This one."""
    assert event_dispatcher is get_event_dispatcher()
    assert event_dispatcher.signals is isolated_signals is madcrow_signals
    emit_event("user_logged_in", user_id=1, email="a@example.com")
    recorded_events.assert_emitted("user_logged_in", user_id=1)


@pytest.mark.skipif(find_spec("sqlalchemy") is None, reason="an engine is one of SQLAlchemy")
def test_an_engine_for_an_outbox(outbox_engine, tmp_path) -> None:
    """It is for a file of the test's own, and has what the outbox needs."""
    with outbox_engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar_one() == 0
    assert (tmp_path / "outbox.db").exists()
