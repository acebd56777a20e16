"""What a process and its children listen to, and certificates to show."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import psutil
import pytest
from distributed import Security
from distributed.comm.core import connect


def family(process: int) -> list[psutil.Process]:
    """A process and all that it started, as far as they still run."""
    try:
        first = psutil.Process(process)
        return [first, *first.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def listening(processes: list[psutil.Process]) -> set[tuple[str, int]]:
    """Address and port of every socket that takes connections from other processes."""
    found: set[Any] = set()
    for process in processes:
        try:
            sockets = process.net_connections(kind="inet")
        except psutil.Error:
            continue
        found |= {tuple(each.laddr) for each in sockets if each.status == psutil.CONN_LISTEN}
    return found


def elsewhere(addresses: set[tuple[str, int]]) -> set[tuple[str, int]]:
    """Those that another machine reaches."""
    return {each for each in addresses if not ip_address(each[0]).is_loopback}


def certificate(folder: Path) -> dict[str, str]:
    """A throw-away certificate as the documentation makes it, as arguments of `Security`."""
    if not shutil.which("openssl"):
        pytest.skip("openssl, which makes the certificate, is not on this machine")
    folder.mkdir(parents=True, exist_ok=True)
    key, cert = str(folder / "key.pem"), str(folder / "cert.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj",
         "/CN=radiomics", "-keyout", key, "-out", cert],
        check=True, capture_output=True,
    )  # fmt: skip
    roles = {
        f"tls_{role}_{what}": path
        for role in ("client", "scheduler", "worker")
        for what, path in (("cert", cert), ("key", key))
    }
    return {"tls_ca_file": cert, **roles}


def gets_in(address: str, security: Security | None = None) -> bool:
    """Whether what listens at an address shakes hands with a Dask client, after which it obeys."""
    arguments = (security or Security()).get_connection_args("client")

    async def shake_hands() -> None:
        comm = await asyncio.wait_for(connect(address, timeout=2, **arguments), 5)
        comm.abort()

    try:
        asyncio.run(shake_hands())
    except (OSError, TimeoutError, RuntimeError, TypeError, ValueError):
        return False
    return True
