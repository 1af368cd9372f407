"""The shop over HTTP.

DATA_DIR is the folder of its database (default: `data` in the working directory). The version is VERSION's, unless the
environment says otherwise.
"""

import os
from pathlib import Path

from fastapi import FastAPI, HTTPException
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from app.store import OutOfStock, Store, UnknownItem


class NewOrder(BaseModel):
    """What a customer asks for."""

    item_id: int
    quantity: int = Field(default=1, ge=1, le=100)


def version() -> str:
    """The version of this release."""
    return os.environ.get("VERSION") or Path(__file__).parent.with_name("VERSION").read_text().strip()


def create_app(store: Store) -> FastAPI:
    """The shop on top of `store`."""
    app = FastAPI(title="shop", version=version())

    @app.get("/")
    async def home() -> dict:
        return {"service": "shop", "version": app.version}

    @app.get("/health")
    async def health() -> dict:
        """The process is alive. Says nothing of others, so that their trouble doesn't restart this one."""
        return {"status": "ok"}

    @app.get("/health/ready")
    def ready() -> JSONResponse:
        """Whether it can serve, and which dependency is down if not."""
        checks = {"database": store.check()}
        is_ready = all(checks.values())
        return JSONResponse({"ready": is_ready, "checks": checks}, 200 if is_ready else 503)

    @app.get("/items")
    def items() -> dict:
        return {"items": store.items()}

    @app.get("/items/{item_id}")
    def item(item_id: int) -> dict:
        return found(store.item(item_id), "item")

    @app.post("/orders", status_code=201)
    def order(new: NewOrder) -> dict:
        try:
            return store.order(new.item_id, new.quantity)
        except UnknownItem:
            raise HTTPException(404, "there is no such item") from None
        except OutOfStock:
            raise HTTPException(409, "there are not that many left") from None

    @app.get("/orders/{order_id}")
    def find_order(order_id: int) -> dict:
        return found(store.find_order(order_id), "order")

    return app


def found(thing: dict | None, what: str) -> dict:
    """`thing`, or 404."""
    if thing is None:
        raise HTTPException(404, f"there is no such {what}")
    return thing


def serve() -> FastAPI:
    """What uvicorn starts: `uvicorn --factory app.main:serve`."""
    return create_app(Store(Path(os.environ.get("DATA_DIR", "data"))))
