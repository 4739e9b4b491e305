"""What runs later."""

__all__: list[str] = []
