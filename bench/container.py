"""The image, built by buildah without a daemon, and its entries run as Cloud Run runs them: as the image's own user, on its root.

Building needs root, buildah and, where no registry answers, debootstrap, which makes a base with Debian's Python. The base is kept in the
user's cache folder; everything else that a build needs is gone when it ends. Running needs only `unshare` and `setpriv`: a namespace of
mounts and of processes for each entry ends with it, so that nothing stays mounted. The network is the machine's: the local cloud at
127.0.0.1 can be reached.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.page import ROOT

NAME = "localhost/fanout-check"
_PULL_LIMIT_S = 120
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_ENTER = """
root=$1 temporary=$2 write=$3 owner=$4 folder=$5; shift 5
mount --bind "$root" "$root"
mount -t tmpfs -o mode=755 devices "$root/dev"
for one in null zero random urandom; do : > "$root/dev/$one"; mount --bind "/dev/$one" "$root/dev/$one"; done
mount -o remount,ro "$root/dev"
mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
mount --bind "$temporary" "$root/tmp"
mount -o "remount,bind,$write" "$root"
cd "$root"
exec setpriv --no-new-privs chroot --userspec="$owner" --groups= . /usr/bin/env -i --chdir="$folder" "$@"
"""
"""An entry is the first process of its namespace, as in a container. Leaving root takes every capability from it."""


class CannotBuild(Exception):
    """The machine lacks something; the message says what, and what to install."""


@dataclass(frozen=True, slots=True)
class Image:
    """A built image, unpacked at `root`. `labels`, `env`, `command` and `folder` are what its configuration says, `user` and `group` the
    numbers of who runs it; `base` says what it stands on."""

    root: Path
    user: int
    group: int
    env: Mapping[str, str]
    command: tuple[str, ...]
    folder: str
    labels: Mapping[str, str]
    base: str

    def start(
        self, temporary: Path, environment: Mapping[str, str], command: Sequence[str] = (), *, read_only: bool = True
    ) -> subprocess.Popen[bytes]:
        """Run an entry, or what the image itself starts, with `temporary` as its `/tmp`. Its output and errors are one pipe."""
        os.chown(temporary, self.user, self.group)
        write, owner = "ro" if read_only else "rw", f"{self.user}:{self.group}"
        entered = ["sh", "-ec", _ENTER, "enter", str(self.root), str(temporary), write, owner, self.folder]
        isolated = ["unshare", "--mount", "--ipc", "--pid", "--fork", "--kill-child", *entered]
        given = [f"{name}={value}" for name, value in {**self.env, **environment}.items()]
        return subprocess.Popen(
            [*isolated, *given, *(command or self.command)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )


def terminate(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM to the entry itself: what isolates it waits for its end."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="ascii").split()
    for child in map(int, children):
        os.kill(child, signal.SIGTERM)


def size_mb(folder: Path) -> float:
    """What the files below it hold, in 10**6 bytes, each counted once."""
    found = {(one.st_dev, one.st_ino): one.st_size for one in map(Path.lstat, folder.rglob("*")) if stat.S_ISREG(one.st_mode)}
    return sum(found.values()) / 1e6


@contextmanager
def built(**arguments: str) -> Iterator[Image]:
    """The image of this tree, built with these arguments. Raises CannotBuild, CalledProcessError."""
    if os.geteuid() != 0 or shutil.which("buildah") is None:
        raise CannotBuild("the image is built and run by root, with buildah: apt-get install --no-install-recommends buildah debootstrap")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fanout-image"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        store = _Store(cache)
        try:
            store.clear()
            base = store.base(_base_name())
            yield store.built(arguments, base)
        finally:
            store.clear()


def _base_name() -> str:
    found = re.search(r"^ARG BASE=(\S+)$", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    assert found is not None
    return found[1]


class _Store:
    """Images and containers of this check alone, apart from those of the user."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        # Driver `vfs` and isolation `chroot` need neither a module of the kernel nor a runtime: they work inside of containers too.
        self._command = ["buildah", "--storage-driver", "vfs", "--root", str(cache / "storage"), "--runroot", str(cache / "run")]

    def _buildah(self, *arguments: str, check: bool = True) -> str:
        environment = {**os.environ, "BUILDAH_ISOLATION": "chroot"}
        done = subprocess.run([*self._command, *arguments], env=environment, capture_output=True, text=True, check=False)
        if check and done.returncode:
            end = "\n".join((done.stdout + done.stderr).splitlines()[-30:])
            raise CannotBuild(f"`buildah {' '.join(arguments)}` ended with {done.returncode}:\n{end}")
        return done.stdout.strip()

    def clear(self) -> None:
        """All but the base, also what a run that was killed left."""
        self._buildah("rm", "--all", check=False)
        self._buildah("rmi", NAME, check=False)
        self._buildah("rmi", "--prune", check=False)

    def base(self, name: str) -> str:
        """Fetch or make the base, unless it is there; says which it is."""
        if not self._buildah("images", "--quiet", name, check=False):
            try:
                pulled = subprocess.run([*self._command, "pull", "--quiet", name], capture_output=True, timeout=_PULL_LIMIT_S, check=False)
                answered = pulled.returncode == 0
            except subprocess.TimeoutExpired:
                answered = False
            if not answered:
                self._debian(name)
        made = "fanout-base" in self._buildah("inspect", "--type", "image", "--format", "{{.OCIv1.Config.Labels}}", name)
        return "Debian 12 with its own Python, by debootstrap" if made else name

    def _debian(self, name: str) -> None:
        """Debian's own packages under the name of the official image, as small as that is."""
        if shutil.which("debootstrap") is None:
            raise CannotBuild(f"no registry answers for {name}, and there is no debootstrap: apt-get install debootstrap")
        with tempfile.TemporaryDirectory(dir=self._cache) as folder:
            root = Path(folder) / "root"
            packages = "--include=python3,python3-venv,python3-pip,ca-certificates"
            made = subprocess.run(["debootstrap", "--variant=minbase", packages, "bookworm", str(root)], capture_output=True, check=False)
            if made.returncode:
                raise CannotBuild(f"debootstrap ended with {made.returncode}:\n{made.stdout.decode()[-2000:]}")
            (root / "usr/bin/python").symlink_to("python3")
            for part in ("var/cache/apt/archives", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/locale"):
                shutil.rmtree(root / part)
            archive = Path(folder) / "base.tar"
            subprocess.run(["tar", "-C", str(root), "-cf", str(archive), "."], check=True)
            container = self._buildah("from", "scratch")
            self._buildah("add", "--quiet", container, str(archive), "/")
            self._buildah("config", "--label", "fanout-base=debootstrap", container)
            self._buildah("commit", "--quiet", container, name)
            self._buildah("rm", container)

    def built(self, arguments: Mapping[str, str], base: str) -> Image:
        """Build and unpack."""
        given = [word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")]
        # The machine's certificates too: pip may reach its index through a proxy that has one of its own.
        trust = ["--volume", f"{_CERTIFICATES}:{_CERTIFICATES}:ro"] if _CERTIFICATES.is_file() else []
        self._buildah("bud", "--pull=false", *trust, *given, "--tag", NAME, str(ROOT))
        config: dict[str, Any] = json.loads(self._buildah("inspect", "--type", "image", NAME))["OCIv1"]["config"]
        root = Path(self._buildah("mount", self._buildah("from", "--pull=false", NAME)))
        accounts = [line.split(":") for line in (root / "etc/passwd").read_text(encoding="utf-8").splitlines()]
        named = {key: (int(uid), int(gid)) for name, _, uid, gid, *_ in accounts for key in (name, uid)}
        # As a runtime does: no user is root.
        user, group = named[config.get("User") or "root"]
        env = dict(one.split("=", 1) for one in config.get("Env", ()))
        command = (*config.get("Entrypoint", ()), *config.get("Cmd", ()))
        return Image(root, user, group, env, command, config.get("WorkingDir") or "/", config.get("Labels") or {}, base)
