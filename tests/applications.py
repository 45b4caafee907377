"""Applications, as several test modules need them: their certificates, and what holds for every source of theirs."""

from __future__ import annotations

import asyncio
import datetime as dt
import sys
import threading
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import pkcs12

from aiomsi import TokenProvider

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest
    from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
    from pods import Pod

    from aiomsi.sources import Source

__all__ = [
    "PASSWORD",
    "Paper",
    "abandoned",
    "cancelled",
    "certificate",
    "crowded",
    "paper",
    "private_key",
    "threads_of",
]

PASSWORD = "correct horse"
STORAGE = "https://storage.azure.com/"
_PEM = serialization.Encoding.PEM
_VALID = dt.datetime(2025, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True)
class Paper:
    """A certificate with its private key, in the forms in which people keep them."""

    key: rsa.RSAPrivateKey
    certificate: x509.Certificate
    others: tuple[x509.Certificate, ...] = ()

    @property
    def certificates_pem(self) -> bytes:
        return b"".join(one.public_bytes(_PEM) for one in (self.certificate, *self.others))

    def key_pem(self, password: str | None = None, *, traditional: bool = False) -> bytes:
        """Return the key as PKCS#8, or in the *traditional* form of PKCS#1."""
        form = serialization.PrivateFormat.TraditionalOpenSSL if traditional else serialization.PrivateFormat.PKCS8
        return self.key.private_bytes(_PEM, form, _encryption(password))

    def pem(self, password: str | None = None) -> bytes:
        return self.key_pem(password) + self.certificates_pem

    def pkcs12(self, password: str | None = None) -> bytes:
        return pkcs12.serialize_key_and_certificates(
            b"name", self.key, self.certificate, self.others, _encryption(password)
        )

    @property
    def secrets(self) -> list[str]:
        """Pieces of the key that nobody may see, however it is written."""
        lines = [line for key in (self.key_pem(), self.key_pem(traditional=True)) for line in key.splitlines()[2:-2]]
        return [*(line.decode() for line in lines), str(self.key.private_numbers().d)]


def _encryption(password: str | None) -> serialization.KeySerializationEncryption:
    if password is None:
        return serialization.NoEncryption()
    return serialization.BestAvailableEncryption(password.encode())


@cache
def private_key(name: str, bits: int = 2048) -> rsa.RSAPrivateKey:
    """Return the key of *name*, which is made once."""
    assert name
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def certificate(
    name: str, *, issuer: str | None = None, key: CertificatePublicKeyTypes | None = None
) -> x509.Certificate:
    """Return a certificate for *name* from *issuer*, or from itself, for the key of *name* or another one."""
    whose, whom = (x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, one)]) for one in (name, issuer or name))
    builder = x509.CertificateBuilder(whom, whose, key or private_key(name).public_key(), 7)
    builder = builder.not_valid_before(_VALID).not_valid_after(_VALID + dt.timedelta(days=3_650))
    return builder.sign(private_key(issuer or name), hashes.SHA256())


@cache
def paper(name: str = "application") -> Paper:
    """Return a certificate of *name*, which it has signed itself."""
    return Paper(private_key(name), certificate(name))


def threads_of(monkeypatch: pytest.MonkeyPatch, source: type, *names: str) -> list[threading.Thread]:
    """Return the threads, to be filled, in which the functions *names* are called that the module of *source* uses."""
    threads: list[threading.Thread] = []

    def noted(what: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            threads.append(threading.current_thread())
            return what(*arguments, **options)

        return call

    module = sys.modules[source.__module__]
    for name in names:
        monkeypatch.setattr(module, name, noted(getattr(module, name)))
    return threads


async def crowded(pod: Pod, source: Source, *, callers: int = 50) -> int:
    """Let many callers want the same token at once; return how many requests that makes."""
    async with TokenProvider(source, clock=pod.clock) as provider:
        tokens = await asyncio.gather(*(provider.token(STORAGE) for _ in range(callers)))
        assert tokens == ["entra-gave-this"] * callers
    return len(pod.requests)


class _Hold:
    """Keeps the answer to request number *stage* back until it is let go."""

    def __init__(self, pod: Pod, stage: int) -> None:
        self.reached, self.gate = asyncio.Event(), asyncio.Event()
        self._pod, self._stage = pod, stage
        self._before = asyncio.all_tasks()
        pod.before_answer = self

    async def __call__(self) -> None:
        if len(self._pod.requests) == self._stage:
            self.reached.set()
            await self.gate.wait()

    async def check_nothing_is_left(self) -> None:
        """Assert that all connections end, and with them the tasks of those who serve them."""
        self.gate.set()
        left = asyncio.all_tasks() - self._before
        assert not left or not (await asyncio.wait(left, timeout=10))[1]


async def cancelled(pod: Pod, source: Source, stage: int, victim: int | None) -> None:
    """Cancel callers while request number *stage* is being answered: one of three, or all if *victim* is None.

    Asserts that those who stay get their token, that whoever comes later gets it too, and that nothing is left behind.
    """
    hold = _Hold(pod, stage)
    async with TokenProvider(source, clock=pod.clock) as provider:
        callers = [asyncio.ensure_future(provider.token(STORAGE)) for _ in range(3)]
        await hold.reached.wait()
        leaving = callers if victim is None else [callers[victim]]
        for caller in leaving:
            caller.cancel()
        await asyncio.wait(leaving)
        assert all(caller.cancelled() for caller in leaving)
        hold.gate.set()
        staying = [caller for caller in callers if caller not in leaving]
        assert await asyncio.gather(*staying) == ["entra-gave-this"] * len(staying)
        asked = len(pod.requests)
        assert await provider.token(STORAGE) == "entra-gave-this"
        assert provider.statistics().waiting == 0
        assert victim is None or len(pod.requests) == asked
    await hold.check_nothing_is_left()


async def abandoned(pod: Pod, source: Source, stage: int) -> None:
    """Cancel a fetch itself while request number *stage* is being answered, and assert that nothing is left behind."""
    hold = _Hold(pod, stage)
    fetching = pod.asking(source)
    await hold.reached.wait()
    fetching.cancel()
    await asyncio.wait([fetching])
    assert fetching.cancelled()
    await hold.check_nothing_is_left()
    assert len(pod.requests) == stage
