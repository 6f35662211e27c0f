"""In the place of the standard library's sqlite3: this guest has no database.

pyroute2 imports it for NDB, which the agent does not use.
"""


class Error(Exception):
    """What every attempt to use a database ends with."""


class InterfaceError(Error):
    """Named by pyroute2."""


class OperationalError(Error):
    """Named by pyroute2."""


def connect(*_: object, **__: object) -> None:
    """Refuse.

    Raises:
        OperationalError: always.
    """
    raise OperationalError("there is no SQLite in this guest")
