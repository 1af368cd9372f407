"""What the shop remembers: items and orders in one SQLite file. No HTTP in here."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SCHEMA = """
CREATE TABLE IF NOT EXISTS items (
    id          INTEGER PRIMARY KEY,
    name        TEXT NOT NULL UNIQUE,
    price_cents INTEGER NOT NULL CHECK (price_cents > 0),
    stock       INTEGER NOT NULL CHECK (stock >= 0)
);
CREATE TABLE IF NOT EXISTS orders (
    id          INTEGER PRIMARY KEY,
    item_id     INTEGER NOT NULL REFERENCES items (id),
    quantity    INTEGER NOT NULL CHECK (quantity > 0),
    total_cents INTEGER NOT NULL
);
INSERT OR IGNORE INTO items (name, price_cents, stock) VALUES ('tea', 450, 1000), ('pot', 2900, 20), ('cup', 700, 200);
"""


class UnknownItem(Exception):
    """There is no such item."""


class OutOfStock(Exception):
    """There are fewer left than were ordered."""


class Store:
    """One SQLite file, shared by every instance that is given the same folder."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "shop.db"
        folder.mkdir(parents=True, exist_ok=True)
        with self._connect(create=True) as db:
            # Readers don't wait for a writer: several instances share the file.
            db.execute("PRAGMA journal_mode = WAL")
            db.executescript(SCHEMA)

    def check(self) -> bool:
        """Whether the database answers."""
        try:
            with self._connect() as db:
                db.execute("SELECT 1 FROM items LIMIT 1").fetchone()
        except sqlite3.Error:
            return False
        return True

    def items(self) -> list[dict]:
        with self._connect() as db:
            return [dict(row) for row in db.execute("SELECT * FROM items ORDER BY id")]

    def item(self, item_id: int) -> dict | None:
        with self._connect() as db:
            row = db.execute("SELECT * FROM items WHERE id = ?", (item_id,)).fetchone()
        return dict(row) if row else None

    def order(self, item_id: int, quantity: int) -> dict:
        """Takes the goods off the shelf and writes the order down, both or neither."""
        with self._connect() as db:
            db.execute("BEGIN IMMEDIATE")
            item = db.execute("SELECT price_cents, stock FROM items WHERE id = ?", (item_id,)).fetchone()
            if item is None:
                raise UnknownItem
            if item["stock"] < quantity:
                raise OutOfStock
            db.execute("UPDATE items SET stock = stock - ? WHERE id = ?", (quantity, item_id))
            row = db.execute(
                "INSERT INTO orders (item_id, quantity, total_cents) VALUES (?, ?, ?) RETURNING *",
                (item_id, quantity, quantity * item["price_cents"]),
            ).fetchone()
            return dict(row)

    def find_order(self, order_id: int) -> dict | None:
        with self._connect() as db:
            row = db.execute("SELECT * FROM orders WHERE id = ?", (order_id,)).fetchone()
        return dict(row) if row else None

    @contextmanager
    def _connect(self, *, create: bool = False) -> Iterator[sqlite3.Connection]:
        """A connection of this thread alone; committed when the block ends well, closed in any case."""
        # Without `create` a deleted file is an error, not an empty shop.
        mode = "rwc" if create else "rw"
        db = sqlite3.connect(f"{self.path.absolute().as_uri()}?mode={mode}", uri=True, timeout=5)
        try:
            db.row_factory = sqlite3.Row
            db.execute("PRAGMA foreign_keys = ON")
            with db:
                yield db
        finally:
            db.close()
