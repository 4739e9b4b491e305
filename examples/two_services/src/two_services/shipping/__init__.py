"""Shipping: it hears of orders, and books parcels for them."""
