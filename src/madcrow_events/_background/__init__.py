"""Running the handlers that their emitter does not wait for."""

__all__: list[str] = []
