"""The shop over HTTP, without a server."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from two_services.shop import app as shop_app

TEA = {"customer": "Ada", "item": "tea", "cents": 450, "address": "1 Mill Lane"}


@pytest.fixture
async def client(services: Any) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(shop_app.create_app(services.shop), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://shop.test") as client:
        yield client


async def test_a_customer_sees_what_becomes_of_an_order(
    services: Any, client: httpx.AsyncClient
) -> None:
    answer = await client.post("/orders", json=TEA)
    assert answer.status_code == 201
    assert answer.json() == {"id": 1, "item": "tea", "state": "placed", "parcel_id": None}
    services.work()
    assert (await client.get("/orders/1")).json() == {
        "id": 1,
        "item": "tea",
        "state": "shipped",
        "parcel_id": 1,
    }
    assert (await client.get("/orders/2")).status_code == 404


async def test_an_order_that_is_not_committed_is_not_shipped(
    services: Any, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither one that does not fit, nor one whose request fails after it was placed."""
    assert (await client.post("/orders", json={**TEA, "cents": -1})).status_code == 422

    def place_and_fail(*arguments: Any) -> None:
        place_order(*arguments)
        raise LookupError

    place_order = shop_app.place_order
    monkeypatch.setattr(shop_app, "place_order", place_and_fail)
    assert (await client.post("/orders", json=TEA)).status_code == 500
    services.work()
    assert services.parcels() == []
    assert (await client.get("/orders/1")).status_code == 404
