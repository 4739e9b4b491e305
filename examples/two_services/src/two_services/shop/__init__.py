"""The shop: it takes orders, and tells shipping of them."""
