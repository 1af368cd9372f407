"""What the shop promises, asked over its API."""

from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app.main import create_app, version
from app.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


@pytest.fixture
def shop(store: Store) -> TestClient:
    return TestClient(create_app(store))


def test_it_says_who_it_is(shop):
    assert shop.get("/").json() == {"service": "shop", "version": version()}


def test_the_environment_may_name_another_version(monkeypatch, store):
    monkeypatch.setenv("VERSION", "7.7.7")
    assert TestClient(create_app(store)).get("/").json()["version"] == "7.7.7"


def test_it_lists_what_it_sells(shop):
    assert [item["name"] for item in shop.get("/items").json()["items"]] == ["tea", "pot", "cup"]
    assert shop.get("/items/2").json()["price_cents"] == 2900
    assert shop.get("/items/99").status_code == 404


def test_an_order_takes_goods_off_the_shelf(shop):
    order = shop.post("/orders", json={"item_id": 2, "quantity": 3})
    assert (order.status_code, order.json()["total_cents"]) == (201, 8700)
    assert shop.get(f"/orders/{order.json()['id']}").json() == order.json()
    assert shop.get("/items/2").json()["stock"] == 17


def test_what_is_not_there_cannot_be_ordered(shop):
    assert shop.post("/orders", json={"item_id": 99}).status_code == 404
    assert shop.post("/orders", json={"item_id": 2, "quantity": 21}).status_code == 409
    assert shop.post("/orders", json={"item_id": 2, "quantity": 0}).status_code == 422
    assert shop.get("/items/2").json()["stock"] == 20, "a refused order takes nothing"
    assert shop.get("/orders/1").status_code == 404


def test_orders_outlive_the_release(tmp_path):
    order = TestClient(create_app(Store(tmp_path))).post("/orders", json={"item_id": 1}).json()
    assert TestClient(create_app(Store(tmp_path))).get(f"/orders/{order['id']}").json() == order


def test_readiness_names_the_dependency_that_is_down(shop, store):
    answer = shop.get("/health/ready")
    assert (answer.status_code, answer.json()) == (200, {"ready": True, "checks": {"database": True}})

    store.path.unlink()
    answer = shop.get("/health/ready")
    assert (answer.status_code, answer.json()) == (503, {"ready": False, "checks": {"database": False}})
    assert shop.get("/health").status_code == 200, "a lost database is no reason to restart"
