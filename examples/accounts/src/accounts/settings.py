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
    """

    folder: Path
    secret_key: str

    @classmethod
    def from_environment(cls) -> "Settings":
        """Read `ACCOUNTS_FOLDER` (`instance` unless given) and `ACCOUNTS_SECRET_KEY`.

        Raises:
            RuntimeError: the key is missing or too short.
        """
        secret_key = os.environ.get("ACCOUNTS_SECRET_KEY", "")
        if len(secret_key) < SHORTEST_KEY:
            raise RuntimeError(
                f"set ACCOUNTS_SECRET_KEY to {SHORTEST_KEY} random characters or more: export "
                "ACCOUNTS_SECRET_KEY=$(python -c 'import secrets; print(secrets.token_hex(32))')"
            )
        return cls(folder_from_environment(), secret_key)


def folder_from_environment() -> Path:
    """Read `ACCOUNTS_FOLDER`: `instance` unless given."""
    return Path(os.environ.get("ACCOUNTS_FOLDER", "instance"))
