"""Kerberos tickets, by way of the operating system's library (extra `integrated`: pyspnego).

That library blocks, for half a minute where a key distribution centre does not answer, and cannot be interrupted; so it
works in threads that neither the event loop nor the end of the process waits for. Its configuration is that of the
process (KRB5_CONFIG). A *cache* of tickets is spelt as in KRB5CCNAME; None is the usual one. On Windows it is always
the login's.

Source: RFC 4559 (SPNEGO-based Kerberos authentication in HTTP).
"""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import re
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Thread
from typing import TYPE_CHECKING, Any, TypeVar, cast

import anyio.to_thread

from aiomsi._clock import time_limit
from aiomsi._errors import AiomsiError, EndpointError, SecurityError, SourceUnavailableError, TokenRefusedError
from aiomsi.sources._redaction import redact

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiomsi._clock import Clock

__all__ = ["Handshake", "begin", "logged_in_user"]

_T = TypeVar("_T")

_LIMIT = 20.0  # Seconds for one step, after which nobody waits for it any more.
_NO_TICKET = "there is no Kerberos ticket; run: kinit"
_USER_PRINCIPAL_NAME = 8  # NameUserPrincipal, one of Windows' EXTENDED_NAME_FORMATs.

# By what MIT Kerberos says: its codes get lost on the way through SPNEGO.
_MEANINGS: tuple[tuple[str, type[AiomsiError], str], ...] = (
    ("expired", SourceUnavailableError, "the Kerberos ticket has expired; run: kinit"),
    ("no credentials|kerberos credentials", SourceUnavailableError, _NO_TICKET),
    (
        "not found in kerberos database",
        TokenRefusedError,
        "the key distribution centre knows no service HTTP/{host}; its administrator can add that name (setspn)",
    ),
    (
        "cannot contact|cannot find kdc|cannot resolve",
        EndpointError,
        "no key distribution centre can be reached; is the company's network reached?",
    ),
)


@dataclass(frozen=True, slots=True)
class Handshake:
    """A login at one server that has begun: *token* goes there, and its answer has to prove who it is."""

    host: str
    token: str = field(repr=False)
    context: Any = field(repr=False)

    async def finish(self, answer: str | None, clock: Clock, deadline: float) -> None:
        """Check the *answer* of the server, its header WWW-Authenticate.

        Raises:
            SecurityError: it does not prove that the server is the one for which the ticket was made.
            EndpointError: the check took too long.
        """
        if not await _apart(lambda: _is_proven(self.context, answer or ""), clock, deadline):
            raise SecurityError(
                f"{self.host} did not prove that it is the server for which the Kerberos ticket was made, so what it"
                " answered was dropped"
            )


async def logged_in_user(platform: str, cache: str | None, clock: Clock, deadline: float) -> str:
    """Return the name of the user whose tickets are in *cache*, such as alice@contoso.com.

    Raises:
        SourceUnavailableError: nobody is logged in, or the extra is not installed.
        EndpointError: it took too long.
    """
    if platform == "win32":
        return await _apart(_windows_user, clock, deadline)
    await anyio.to_thread.run_sync(_library)
    return await _apart(lambda: _ticket_owner(cache), clock, deadline)


async def begin(host: str, cache: str | None, clock: Clock, deadline: float) -> Handshake:
    """Begin a login at the web server *host* with a ticket in *cache*.

    Raises:
        SourceUnavailableError: there is no valid ticket, or the extra is not installed.
        TokenRefusedError: the key distribution centre makes no ticket for that server.
        EndpointError: no key distribution centre answers, or it took too long.
    """
    await anyio.to_thread.run_sync(_library)
    return await _apart(lambda: _begun(host, cache), clock, deadline)


def _begun(host: str, cache: str | None) -> Handshake:
    spnego = _library()
    asked = {"hostname": host, "service": "HTTP", "context_req": spnego.ContextReq.mutual_auth}
    try:
        _take_from(cache)
        context = spnego.client(spnego.CredentialCache(), **asked)
        token = context.step()
    except _failures() as error:
        raise _meaning(str(error), host) from None
    if context.negotiated_protocol == "ntlm":  # It has found a password for that, to which no server proves itself.
        raise SourceUnavailableError(_NO_TICKET)
    return Handshake(host, base64.b64encode(token).decode(), context)


def _take_from(cache: str | None) -> None:
    """Let this thread's tickets be those of *cache*."""
    if cache is None or sys.platform == "win32":
        return
    import gssapi.raw  # noqa: PLC0415  (comes with the extra)

    # Not by way of pyspnego, which looks for it with a library that lets nothing else run until it is found.
    gssapi.raw.krb5_ccache_name(os.fsencode(cache))


def _is_proven(context: Any, answer: str) -> bool:
    spnego = _library()
    scheme, _, text = answer.strip().partition(" ")
    if scheme.lower() != "negotiate":
        return False
    try:
        context.step(base64.b64decode(text.strip(), validate=True))
        # SPNEGO calls itself complete because the server says so. Only Kerberos has the key, and only once it has seen
        # the proof.
        return bool(context.complete and context.context_attr & spnego.ContextReq.mutual_auth and context.session_key)
    except Exception:  # noqa: BLE001  # On a senseless answer, pyspnego raises whatever comes; nothing is proven then.
        return False


def _ticket_owner(cache: str | None) -> str:
    _library()
    import gssapi  # noqa: PLC0415  (comes with the extra)

    try:
        _take_from(cache)
        owner = gssapi.Credentials(usage="initiate", mechs=[gssapi.MechType.kerberos]).name
    except _failures() as error:
        raise _meaning(str(error), "…") from None
    return bytes(owner).decode(errors="replace")


def _windows_user() -> str:
    import ctypes  # noqa: PLC0415  (only there)

    read = ctypes.windll.secur32.GetUserNameExW  # type: ignore[attr-defined]  # (mypy looks from elsewhere)
    size = ctypes.c_ulong(0)
    read(_USER_PRINCIPAL_NAME, None, ctypes.byref(size))
    name = ctypes.create_unicode_buffer(size.value)
    if not read(_USER_PRINCIPAL_NAME, name, ctypes.byref(size)) or not name.value:
        raise SourceUnavailableError("nobody of a domain is logged in to Windows; log in to one, or run: az login")
    return name.value


def _library() -> Any:
    """Return pyspnego, once all that it needs to know Kerberos is there too.

    It is loaded in a thread that the end of the process waits for: it is not of Python alone, and a daemon that is
    stopped in the midst of it takes the process down with it.
    """
    try:
        import spnego  # noqa: PLC0415  (an extra)
        import spnego.exceptions  # noqa: PLC0415

        if sys.platform != "win32":  # Where the system brings it.
            import gssapi  # noqa: F401, PLC0415
            import krb5  # noqa: F401, PLC0415
    except ImportError as error:
        raise SourceUnavailableError(
            "a login with a Kerberos ticket needs an extra; run: pip install 'aiomsi[integrated]'"
        ) from error
    log = logging.getLogger("spnego")
    if log.level == logging.NOTSET:  # Or it would show tickets wherever all debugging is switched on.
        log.setLevel(logging.INFO)
    return spnego


def _failures() -> tuple[type[Exception], ...]:
    """Return what the libraries raise, which is not all wrapped by the uppermost one."""
    found: list[type[Exception]] = [_library().exceptions.SpnegoError]
    if sys.platform != "win32":
        import gssapi.raw  # noqa: PLC0415  (comes with the extra)

        found.append(gssapi.raw.GSSError)
    return tuple(found)


def _meaning(said: str, host: str) -> AiomsiError:
    """Return the error that the text of a Kerberos library means."""
    for pattern, kind, text in _MEANINGS:
        if re.search(pattern, said, re.IGNORECASE):
            return kind(text.format(host=host))
    return TokenRefusedError(f"there is no Kerberos ticket for HTTP/{host}: {redact(said)}; see: klist")


async def _apart(call: Callable[[], _T], clock: Clock, deadline: float) -> _T:
    """Return what *call* returns in a thread of its own, or raise EndpointError when its time is up."""
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[_T] = loop.create_future()

    def settle(result: _T | None, error: BaseException | None) -> None:
        if outcome.done():  # Nobody waits any more.
            return
        if error is None:
            outcome.set_result(cast("_T", result))
        else:
            outcome.set_exception(error)

    def run() -> None:
        result, failure = None, None
        try:
            result = call()
        except BaseException as error:  # noqa: BLE001  (raised where it is waited for)
            failure = error
        with suppress(RuntimeError):  # The loop may be closed long since.
            loop.call_soon_threadsafe(settle, result, failure)

    # As a daemon, since the end of the process waits for any other thread.
    Thread(target=run, name="aiomsi-kerberos", daemon=True).start()
    try:
        async with time_limit(clock, min(_LIMIT, deadline - clock.monotonic())):
            return await outcome
    except TimeoutError:
        raise EndpointError("no key distribution centre answered in time; is the company's network reached?") from None
