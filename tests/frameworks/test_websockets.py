"""Events of a websocket know where it came from, and go out at once."""

from typing import Any

import pytest

websockets = pytest.importorskip("websockets")
from websockets.sync.client import connect  # noqa: E402  # it may be missing

pytestmark = pytest.mark.once


@pytest.mark.parametrize(
    "server",
    [
        "fastapi uvicorn",
        "fastapi uvicorn-worker",
        "starlette uvicorn",
        "quart uvicorn",
        "quart hypercorn",
    ],
    indirect=True,
)
def test_events_of_a_websocket_have_its_scope_and_go_out_at_once(server: Any) -> None:
    """Those before it breaks, too."""
    url = f"ws://127.0.0.1:{server.port}/talk"
    headers = {"X-Request-ID": "r-17", "User-Agent": "x" * 300}
    with connect(url, additional_headers=headers, user_agent_header=None, proxy=None) as socket:
        assert socket.recv(10) == "placed"
        (order,) = server.orders()
        socket.send("go on")
        server.wait_for(1, 2, *[9] * (server.framework == "quart"))  # by its handler for 500
    del order["process"]
    known = {"event": "order_placed", "number": 1, "ip_address": "127.0.0.1"}
    assert order == {**known, "request_id": "r-17", "user_agent": "x" * 256}
    assert {order["request_id"] for order in server.orders()} == {"r-17"}
