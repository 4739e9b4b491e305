"""`python -m two_services.shipping`: ship what the shop sells, or list the parcels."""

import argparse
import logging

from sqlalchemy import select
from sqlalchemy.orm import Session

from madcrow_events.bridge import Bridge
from madcrow_events.outbox import Worker
from two_services.database import open_database
from two_services.settings import Settings
from two_services.shipping.events import connect, outbox
from two_services.shipping.parcels import Parcel, Table


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m two_services.shipping")
    parser.add_argument("--list", action="store_true", help="list the parcels, and end")
    arguments = parser.parse_args()
    settings = Settings.from_environment()
    engine = open_database(settings.folder / "shipping.db")
    Table.metadata.create_all(engine)
    outbox.metadata.create_all(engine)
    if arguments.list:
        with Session(engine.execution_options(reads=True)) as session:
            for parcel in session.scalars(select(Parcel)):
                print(f"parcel {parcel.id}: order {parcel.order_id}, to {parcel.address}")
    else:
        logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
        connect(Bridge(outbox, settings.broker(), consumer="shipping", topic=settings.topic))
        Worker(outbox, engine).run()  # until SIGTERM or SIGINT
    engine.dispose()


if __name__ == "__main__":
    main()
