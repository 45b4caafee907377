"""Tokens for connections to SQL Server through Microsoft's ODBC driver. Needs nothing but aiomsi."""

from __future__ import annotations

import struct

__all__ = ["SQL_COPT_SS_ACCESS_TOKEN", "access_token_struct"]

SQL_COPT_SS_ACCESS_TOKEN = 1256
"""The connection attribute that takes an access token."""


def access_token_struct(token: str) -> bytes:
    """Return *token* in the form in which the ODBC driver takes it: its length in bytes, then UTF-16, little-endian.

        token = await provider.token("https://database.windows.net/")
        attributes = {SQL_COPT_SS_ACCESS_TOKEN: access_token_struct(token)}
        connection = await aioodbc.connect(dsn=dsn, attrs_before=attributes)

    `pyodbc.connect` takes `attrs_before` too. The connection string must hold no `UID`, `PWD`, `Authentication` or
    `Trusted_Connection`. A token is checked when a connection is made, so get the current one for each.

    Source: Microsoft documentation, "Using Microsoft Entra ID with the ODBC Driver".

    Raises:
        TypeError: *token* is not a string.
        ValueError: *token* is empty, or holds what no token does, such as the blank after `Bearer`.
    """
    problem = _problem(token)
    if problem is not None:
        del token  # A traceback may show what our frame holds.
        raise problem
    encoded = token.encode("utf-16-le")
    return struct.pack("<I", len(encoded)) + encoded


def _problem(token: object) -> TypeError | ValueError | None:
    if not isinstance(token, str):
        return TypeError(f"token is a string, not {type(token).__name__}")
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        return ValueError("token is empty, or holds characters that no token does; pass it alone, without `Bearer`")
    return None
