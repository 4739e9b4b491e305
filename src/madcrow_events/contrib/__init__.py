"""Events where other libraries are used: one file for each, which only its users import."""

__all__: list[str] = []
