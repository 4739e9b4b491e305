"""A shop and a shipping service, each with a database of its own, which exchange events."""
