"""`python -m two_services.shop`: serve the shop."""

import argparse

import uvicorn

from madcrow_events.bridge import Bridge
from two_services.database import open_database
from two_services.settings import Settings
from two_services.shop.app import create_app
from two_services.shop.events import connect, outbox


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m two_services.shop")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    arguments = parser.parse_args()
    settings = Settings.from_environment()
    connect(Bridge(outbox, settings.broker(), consumer="shop", topic=settings.topic))
    app = create_app(open_database(settings.folder / "shop.db"))
    uvicorn.run(app, host=arguments.host, port=arguments.port)


if __name__ == "__main__":
    main()
