"""A PostgreSQL server of the tests' own, from Debian's programs."""

import itertools
import os
import pwd
import signal
import socket
import subprocess
import time
from pathlib import Path


class PostgresServer:
    """A cluster in a temporary folder, durable, on loopback; may be stopped and started again."""

    def __init__(self, programs: Path, folder: Path):
        self.numbers = itertools.count()
        self.programs, self.data, self.process = programs, folder / "data", None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.owner = {"user": "postgres"} if os.geteuid() == 0 else {}
        if self.owner:
            os.chown(folder, pwd.getpwnam("postgres").pw_uid, -1)
        self.secret = folder / "password"
        self.secret.write_text("pass word%\n")
        subprocess.run(
            [programs / "initdb", "-D", self.data, "-U", "shop", "--auth=scram-sha-256",
             f"--pwfile={self.secret}", "-E", "UTF8", "--locale=C", "--no-sync"],
            check=True, capture_output=True, cwd=folder, **self.owner,
        )  # fmt: skip

    def url(self, schema="public", port=None):
        return (
            f"postgresql://shop:pass%20word%25@127.0.0.1:{port or self.port}/postgres"
            f"?options=-csearch_path%3D{schema}"
        )

    def start(self):
        self.process = subprocess.Popen(
            [self.programs / "postgres", "-D", self.data, "-p", str(self.port),
             "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=",
             "-c", "max_connections=60",
             "-c", "recovery_init_sync_method=syncfs"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=self.data, **self.owner,
        )  # fmt: skip
        end = time.monotonic() + 30
        ready = [self.programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        while subprocess.run(ready, check=False).returncode != 0:
            if time.monotonic() > end or self.process.poll() is not None:
                raise RuntimeError("the server does not start")
        return self

    def stop(self):
        """At once, as after a power loss, but that the disk keeps what it was given."""
        if self.process is not None:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait()
            self.process = None

    def make_schema(self):
        """A place without tables; gives its name."""
        import psycopg

        name = f"live_{next(self.numbers)}"
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA {name}".encode())
        return name
