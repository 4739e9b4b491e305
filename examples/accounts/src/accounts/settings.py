"""What the environment says."""

import os
from pathlib import Path
from typing import NamedTuple

SHORTEST_KEY = 32  # characters


class Settings(NamedTuple):
    """Where the application keeps its files, and the key that signs its cookies.

    Attributes:
        folder: where the databases are; made if it is not there.
        secret_key: 32 characters or more, the same in all processes.
        plugins: the plugins to load, as for `load_plugins(allow=...)`.
    """

    folder: Path
    secret_key: str
    plugins: tuple[str, ...] = ()

    @classmethod
    def from_environment(cls) -> "Settings":
        """Read `ACCOUNTS_FOLDER` (`instance` unless given) and `ACCOUNTS_SECRET_KEY`.

        `ACCOUNTS_PLUGINS` lists plugins, with commas between them.

        Raises:
            RuntimeError: the key is missing or too short.
        """
        secret_key = os.environ.get("ACCOUNTS_SECRET_KEY", "")
        if len(secret_key) < SHORTEST_KEY:
            raise RuntimeError(
                f"set ACCOUNTS_SECRET_KEY to {SHORTEST_KEY} random characters or more: export "
                "ACCOUNTS_SECRET_KEY=$(python -c 'import secrets; print(secrets.token_hex(32))')"
            )
        listed = os.environ.get("ACCOUNTS_PLUGINS", "").split(",")
        plugins = tuple(name.strip() for name in listed if name.strip())
        return cls(folder_from_environment(), secret_key, plugins)


def folder_from_environment() -> Path:
    """Read `ACCOUNTS_FOLDER`: `instance` unless given."""
    return Path(os.environ.get("ACCOUNTS_FOLDER", "instance"))
