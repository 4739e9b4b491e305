"""What a Python that was built without the GIL makes of the package."""

import os
import subprocess
import sys
import sysconfig

import pytest

CHECK = """
import sys, madcrow_events, madcrow_events.event_handlers, madcrow_events.plugins
print(sys._is_gil_enabled())
"""


@pytest.mark.skipif(
    not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="this Python was built with the GIL"
)
def test_importing_the_package_does_not_turn_the_gil_on() -> None:
    """As an extension module would that does not know of such a Python."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHON_GIL"}
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", CHECK],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env=environment,
    )
    assert ran.stdout == "False\n"
