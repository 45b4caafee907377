"""A Kerberos realm of the tests' own: a real KDC on loopback, whose files are all in one folder."""

from __future__ import annotations

import importlib
import shutil
import socket
import struct
import subprocess
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = ["HINT", "REALM", "Realm", "lacking", "realm"]

REALM = "AD.CONTOSO.TEST"
HINT = (
    "needs a Kerberos KDC (apt-get install krb5-kdc krb5-admin-server krb5-user libkrb5-dev) and its Python bindings"
    " (pip install 'aiomsi[integrated]')"
)

_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_PROGRAMS = ("krb5kdc", "kdb5_util", "kadmin.local", "kinit", "kvno")
_PASSWORD = "the-password-of-alice"

# MIT's parser wants each relation on a line of its own.
_CONFIGURATION = """
[libdefaults]
    default_realm = {realm}
    dns_lookup_realm = false
    dns_lookup_kdc = false
    dns_canonicalize_hostname = false
    rdns = false
    udp_preference_limit = 1
    default_ccache_name = FILE:{folder}/tickets
    default_keytab_name = FILE:{folder}/service.keytab
    default_client_keytab_name = FILE:{folder}/no-such.keytab
    default_rcache_name = file2:{folder}/replays
    kcm_socket = {folder}/no-such-keeper
[realms]
    {realm} = {{
        kdc = 127.0.0.1:{port}
    }}
[domain_realm]
    localhost = {realm}
    127.0.0.1 = {realm}
"""
_KDC_CONFIGURATION = """
[kdcdefaults]
    kdc_listen = ""
    kdc_tcp_listen = 127.0.0.1:{port}
[realms]
    {realm} = {{
        database_name = {folder}/principal
        key_stash_file = {folder}/stash
        acl_file = {folder}/acl
        max_life = 10h
    }}
[logging]
    kdc = STDERR
"""


def lacking() -> str | None:
    """Return the hint how to get Kerberos, or None if it is here."""
    try:
        # Not only looked for: what pyspnego finds when it is first imported is all that it ever knows.
        for module in ("gssapi", "krb5", "spnego"):
            importlib.import_module(module)
    except ImportError:
        return HINT
    return None if all(shutil.which(program, path=_PATH) for program in _PROGRAMS) else HINT


class Realm:
    """The realm `REALM`, in which alice and bob have keys, and the HTTP service of localhost and another one.

    *environ* is what a process must have set to be in it: its tickets are in the file *tickets*, and *keytab* holds the
    keys of the HTTP service of localhost.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = _free_port()
        self.tickets = folder / "tickets"
        self.keytab = folder / "service.keytab"
        self._kdc: subprocess.Popen[str] | None = None
        self._silence: socket.socket | None = None
        self._calls: list[socket.socket] = []

    @property
    def environ(self) -> dict[str, str]:
        return {
            "KRB5_CONFIG": str(self.folder / "krb5.conf"),
            "KRB5_KDC_PROFILE": str(self.folder / "kdc.conf"),
            "KRB5CCNAME": f"FILE:{self.tickets}",
            "KRB5_KTNAME": f"FILE:{self.keytab}",
            "KRB5_CLIENT_KTNAME": f"FILE:{self.folder}/no-such.keytab",
        }

    def create(self) -> None:
        """Write the configuration and the database."""
        names = {"realm": REALM, "folder": self.folder, "port": self.port}
        (self.folder / "krb5.conf").write_text(_CONFIGURATION.format(**names))
        (self.folder / "kdc.conf").write_text(_KDC_CONFIGURATION.format(**names))
        self._run("kdb5_util", "create", "-s", "-W", "-P", "the-master-password")
        for user in ("alice", "bob"):
            self._run("kadmin.local", "addprinc", "-pw", _PASSWORD, user)
        for service, keytab in (("HTTP/localhost", self.keytab), ("HTTP/other", self.folder / "other.keytab")):
            self._run("kadmin.local", "addprinc", "-randkey", service)
            self._run("kadmin.local", "ktadd", "-k", str(keytab), service)

    def start(self) -> None:
        """Run the KDC, unless it runs."""
        self._speak()
        if self._kdc is not None:
            return
        command = [self._program("krb5kdc"), "-n", "-P", str(self.folder / "kdc.pid")]
        self._kdc = subprocess.Popen(command, env=self._environ, stderr=subprocess.PIPE, text=True)
        assert self._kdc.stderr is not None
        assert any("commencing operation" in line for line in self._kdc.stderr)
        # What it logs later is read away, or it would stand still once the pipe is full.
        self._reader = threading.Thread(target=self._kdc.stderr.read)
        self._reader.start()

    def stop(self) -> None:
        """End the KDC, so that connections to it are refused."""
        self._speak()
        if self._kdc is not None:
            with self._kdc:
                self._kdc.terminate()
                self._reader.join()
            self._kdc = None

    def fall_silent(self) -> None:
        """Put in the KDC's place what accepts connections and never answers."""
        self.stop()
        self._silence = socket.create_server(("127.0.0.1", self.port))
        self._silence.settimeout(10)

    def wait_for_call(self) -> None:
        """Block until somebody has called the silent KDC."""
        assert self._silence is not None
        self._calls.append(self._silence.accept()[0])

    def log_in(self, user: str = "alice", *, cache: str | None = None) -> None:
        """Get *user* a ticket, in place of those that are there or in *cache*."""
        self._run("kinit", *(["-c", cache] if cache else []), user, said=f"{_PASSWORD}\n")

    def get_ticket(self, service: str = "HTTP/localhost") -> None:
        """Get who is logged in a ticket for *service*."""
        self._run("kvno", service)

    def log_out(self) -> None:
        """Throw all tickets away."""
        self.tickets.unlink(missing_ok=True)

    def rename(self, name: bytes, other: bytes) -> None:
        """Let the tickets say that they are of *other*, which is as long as *name*."""
        self.tickets.write_bytes(self.tickets.read_bytes().replace(name, other))

    def let_expire(self) -> None:
        """Make all tickets end an hour after they were given, and that two hours ago."""
        self.tickets.write_bytes(_aged(self.tickets.read_bytes(), 7_200, 3_600))

    def _speak(self) -> None:
        if self._silence is not None:
            for opened in (*self._calls, self._silence):
                opened.close()
            self._calls, self._silence = [], None

    @property
    def _environ(self) -> Mapping[str, str]:
        return {"PATH": _PATH, **self.environ}

    def _program(self, name: str) -> str:
        program = shutil.which(name, path=_PATH)
        assert program is not None
        return program

    def _run(self, name: str, *arguments: str, said: str | None = None) -> None:
        command = [self._program(name), *arguments]
        ended = subprocess.run(command, env=self._environ, input=said, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, (command, ended.stdout, ended.stderr)


@contextmanager
def realm(folder: Path) -> Iterator[Realm]:
    """Yield a realm whose files are in *folder*, and whose KDC runs."""
    found = Realm(folder)
    found.create()
    try:
        found.start()
        yield found
    finally:
        found.stop()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


def _aged(tickets: bytes, age: int, lifetime: int) -> bytes:
    """Return *tickets*, a credential cache of MIT's format 4, as if each had been given *age* seconds ago.

    No KDC gives out a ticket that has ended, so it is the client's own note of its times that is changed.
    """
    assert tickets[:2] == b"\x05\x04"
    found = bytearray(tickets)
    place = _after_principal(found, 4 + struct.unpack_from(">H", found, 2)[0])
    while place < len(found):
        place = _after_principal(found, _after_principal(found, place))  # The client's, and the service's.
        place = _after_data(found, place + 2)  # The session key, after its kind.
        given = struct.unpack_from(">I", found, place)[0] - age
        if given > 0:  # What has no times is no ticket, but a note.
            struct.pack_into(">IIII", found, place, given, given, given + lifetime, 0)
        place += 16 + 1 + 4  # The times, whether it is for a user, and flags.
        for _ in range(2):  # Addresses, and authorization data.
            count = struct.unpack_from(">I", found, place)[0]
            place += 4
            for _ in range(count):
                place = _after_data(found, place + 2)
        place = _after_data(found, _after_data(found, place))  # The ticket, and a second one.
    return bytes(found)


def _after_principal(tickets: bytes | bytearray, place: int) -> int:
    (count,) = struct.unpack_from(">I", tickets, place + 4)
    place += 8
    for _ in range(count + 1):  # The realm comes first.
        place = _after_data(tickets, place)
    return place


def _after_data(tickets: bytes | bytearray, place: int) -> int:
    (length,) = struct.unpack_from(">I", tickets, place)
    return place + 4 + int(length)
