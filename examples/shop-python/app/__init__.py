"""A small shop: items, orders, and health that says what is wrong."""
