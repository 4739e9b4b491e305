"""`python -m fastapi_app`: serve the application."""

import argparse

import uvicorn
from accounts import Settings

from fastapi_app.app import create_app


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m fastapi_app")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    arguments = parser.parse_args()
    try:
        Settings.from_environment()
    except RuntimeError as error:
        parser.exit(1, f"{error}\n")
    uvicorn.run(
        create_app,
        factory=True,
        host=arguments.host,
        port=arguments.port,
        proxy_headers=False,  # no proxy is in front of it
        timeout_graceful_shutdown=2,  # seconds; leaves the time to drain
    )


if __name__ == "__main__":
    main()
