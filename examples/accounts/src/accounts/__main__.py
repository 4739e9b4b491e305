"""`python -m accounts grant-admin EMAIL`: make an administrator of an account."""

import argparse

from accounts.service import Accounts
from accounts.settings import folder_from_environment
from madcrow_events import EventDispatcher


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m accounts")
    commands = parser.add_subparsers(required=True)
    grant = commands.add_parser("grant-admin", help="make an administrator of an account")
    grant.add_argument("email")
    email = parser.parse_args().email
    folder = folder_from_environment().resolve()
    if not folder.is_dir():
        parser.exit(
            1,
            f"there is no folder {folder}: go to that of the application, or set ACCOUNTS_FOLDER\n",
        )
    try:
        account = Accounts(folder, EventDispatcher()).grant_admin(email)
    except LookupError as error:
        parser.exit(1, f"{error}, in the application of {folder}\n")
    print(f"{account.email} is an administrator")


if __name__ == "__main__":
    main()
