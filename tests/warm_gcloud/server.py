"""Does gcloud's commands in children that it forks: gcloud is loaded once, by the Cloud SDK's own Python, which runs this file.

Arguments: `…/lib/gcloud.py` as the Cloud SDK's own script calls it, and the folder for the socket. It ends when its standard input is
closed, and all of its commands with it. Each command gets what it would have had as a process of its own: arguments, environment,
standard streams, working directory, umask; then gcloud's own main runs in it. What loading a module may have taken from the environment
is taken anew, or must be the same as here: if it is not, the client runs the command by itself.
"""

import atexit
import gc
import importlib
import importlib.util
import marshal
import os
import select
import shutil
import signal
import socket
import sys
import time
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

PLAIN = b"plain"
OF_THE_INTERPRETER = ("PYTHON", "LC_", "LANG", "LD_")
"""What Python looks at when it starts."""
READ_ANEW = {
    "CLOUDSDK_ACCESSIBILITY_SCREEN_READER",
    "CLOUDSDK_ACTIVE_CONFIG_NAME",
    "CLOUDSDK_CONFIG",
    "CLOUDSDK_CORE_CONSOLE_LOG_FORMAT",
    "CLOUDSDK_CORE_DISABLE_COLOR",
    "CLOUDSDK_CORE_USER_OUTPUT_ENABLED",
    "CLOUDSDK_CORE_VERBOSITY",
    "COLUMNS",
    "HOME",
    "PATH",
    "TERM",
}
"""What `forget` undoes: variables that gcloud's settings, its log and its view of the terminal have read on loading."""
ASKS_FOR_ALL = "googlecloudsdk.command_lib.storage.fast_crc32c_util"
"""On loading it gathers all settings, as `gcloud info` does, and uses none: it looks for where Python is."""


class Watched(type(os.environ)):  # type: ignore[misc]  # the class has no public name
    """An environment that remembers which of its variables were asked for."""

    asked: set[str]

    def __getitem__(self, name: Any) -> Any:
        self.asked.add(os.fsdecode(name))
        return super().__getitem__(name)

    def __contains__(self, name: object) -> bool:
        self.asked.add(os.fsdecode(name))  # type: ignore[arg-type]  # names are texts or bytes
        return bool(super().__contains__(name))


class Sdk:
    """Google's code, loaded; `own_names` are the modules of it that are."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.folder = os.path.dirname(path)
        self.before = dict(os.environb)
        before = os.environ
        self.environment = Watched(before._data, before.encodekey, before.decodekey, before.encodevalue, before.decodevalue)  # type: ignore[attr-defined]
        self.environment.asked = set()
        os.environ = self.environment  # noqa: B003  # it is the same one, watched
        sys.path[0] = self.folder
        spec = importlib.util.spec_from_file_location("gcloud_script", self.path)
        assert spec is not None
        assert spec.loader is not None
        self.script = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.script)
        self.main_module = self.script._import_gcloud_main()
        asked = {*self.environment.asked}
        self.learn([ASKS_FOR_ALL])
        self.environment.asked = asked

    def learn(self, names: Iterable[str]) -> None:
        """Load what a command had to load, so that the next one need not."""
        for name in names:
            try:
                importlib.import_module(name)
            except Exception as error:  # noqa: BLE001  # the command itself will tell
                print(f"cannot load {name}: {error!r}", file=sys.stderr)

    def suits(self, arguments: list[str], environment: Mapping[bytes, bytes]) -> bool:
        """Whether a command would find here what it would find by itself."""
        if arguments[:1] != [self.path] or len(os.listdir("/proc/self/task")) > 1:
            return False
        names = {name for name in map(os.fsdecode, (*environment, *self.before)) if name.startswith(OF_THE_INTERPRETER)}
        names |= self.environment.asked - READ_ANEW
        return all(environment.get(name) == self.before.get(name) for name in map(os.fsencode, names))

    def set_by_loading(self) -> Mapping[bytes, bytes]:
        """Variables that modules set for those that come after them."""
        return {name: value for name, value in os.environb.items() if self.before.get(name) != value}

    def forget(self) -> None:
        """What was read from the environment, and from the configuration that it names."""
        core = "googlecloudsdk.core"
        importlib.import_module(f"{core}.configurations.named_configs").ActivePropertiesFile.Invalidate()
        importlib.import_module(f"{core}.console.console_attr").GetConsoleAttr(reset=True)
        importlib.import_module(f"{core}.log").Reset()


def received(connection: socket.socket) -> tuple[list[str], dict[bytes, bytes], int, list[int]]:
    """What a client sends: arguments, environment, umask, and its files: 0, 1, 2 and the working directory."""
    head, files, _, _ = socket.recv_fds(connection, 4, 4)
    size = int.from_bytes(head, "big")
    request = b""
    while len(request) < size:
        piece = connection.recv(size - len(request))
        if not piece:
            raise EOFError
        request += piece
    return (*marshal.loads(request), files)


def modules_of(folder: str) -> dict[str, ModuleType]:
    """Loaded modules that are Google's or come with it, and that an import by name would find again."""
    found = {}
    for name, module in [*sys.modules.items()]:
        spec = getattr(module, "__spec__", None)
        if spec is not None and spec.name == name and str(spec.origin).startswith(folder) and not name.startswith(("surface", "__")):
            found[name] = module
    return found


class Server:
    """`running`: by its process, each command's client and what it reports."""

    def __init__(self, sdk: Sdk, folder: str) -> None:
        self.sdk = sdk
        self.folder = folder
        self.listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listening.bind(os.path.join(folder, "socket"))
        self.listening.listen(64)
        self.running: dict[int, tuple[socket.socket, int]] = {}
        self.child_ended, waker = os.pipe()
        os.set_blocking(waker, False)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self.poll = select.poll()
        for one in (0, self.listening.fileno(), self.child_ended):
            self.poll.register(one, select.POLLIN)

    def next_command(self) -> "tuple[list[str], int] | None":
        """Serve until a command is to be run: in its process, this returns its arguments and where it reports. None at the end."""
        while True:
            for number, _ in self.poll.poll():
                if number == 0:
                    for pid in self.running:
                        kill(pid)
                    return None
                if number == self.child_ended:
                    os.read(number, 512)
                    self.look_for_ended()
                elif number != self.listening.fileno():
                    self.told(number)
                elif (command := self.accept()) is not None:
                    return command

    def accept(self) -> "tuple[list[str], int] | None":
        connection, _ = self.listening.accept()
        try:
            arguments, environment, mask, files = received(connection)
        except (EOFError, OSError):
            connection.close()
            return None
        suits = self.sdk.suits(arguments, environment)
        if suits:
            report, reporting = os.pipe()
            pid = os.fork()
            if pid == 0:
                return arguments, self.become(environment, mask, files, reporting, connection)
            os.close(reporting)
            self.running[pid] = (connection, report)
            self.poll.register(connection, select.POLLIN)
        for one in files:
            os.close(one)
        if not suits:
            connection.sendall(PLAIN)
            connection.close()
        return None

    def become(self, environment: Mapping[bytes, bytes], mask: int, files: list[int], reporting: int, connection: socket.socket) -> int:
        """In the new process: let go of all that is the server's, take what is the command's. Returns where to report to."""
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # the client passes on those that it does not ignore
        for one in (self.listening, connection, *(other for other, _ in self.running.values())):
            one.detach()
        *streams, folder = files
        os.fchdir(folder)
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        os.dup2(reporting, 3)
        os.closerange(4, 1 << 16)
        os.set_inheritable(3, False)
        os.umask(mask)
        real = os.fsencode(sys.executable)
        stand_in = os.fsencode(os.path.join(self.folder, "python"))
        clean = {name: real if value == stand_in else value for name, value in environment.items() if name != b"CLOUDSDK_PYTHON"}
        first = os.fsencode(self.folder) + b":"
        clean[b"PATH"] = clean.get(b"PATH", b"").removeprefix(first)
        clean.update(self.sdk.set_by_loading())
        os.environb.clear()
        os.environb.update(clean)
        time.tzset()
        return 3

    def told(self, number: int) -> None:
        """A client passes signals on, or it has gone: then its command goes too."""
        pid = next(pid for pid, (connection, _) in self.running.items() if connection.fileno() == number)
        try:
            signals = self.running[pid][0].recv(16)
        except OSError:
            signals = b""
        for one in signals:
            os.kill(pid, one)
        if not signals:
            self.poll.unregister(number)
            kill(pid)

    def look_for_ended(self) -> None:
        """Tell the clients of commands that have ended how they did; then learn from them."""
        for pid, (connection, report) in [*self.running.items()]:
            ended, status = os.waitpid(pid, os.WNOHANG)
            if not ended:
                continue
            del self.running[pid]
            try:
                self.poll.unregister(connection)
                connection.sendall(str(status).encode())
            except (KeyError, OSError):
                pass  # it has gone before
            connection.close()
            os.set_blocking(report, False)
            try:
                names = os.read(report, 1 << 16)
            except BlockingIOError:  # something that the command left behind holds the other end
                names = b""
            os.close(report)
            self.sdk.learn(names.decode().split())
            gc.freeze()


def kill(pid: int) -> None:
    """A command and what it started; it has a group of its own once it has begun."""
    for end in (os.killpg, os.kill):
        try:
            end(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def run(sdk: Sdk, arguments: list[str], reporting: int) -> None:
    """gcloud's own main, as if this process had been started for it."""
    known = modules_of(sdk.folder)
    os.set_blocking(reporting, False)

    def report() -> None:
        os.write(reporting, "\n".join(name for name in modules_of(sdk.folder) if name not in known).encode()[: 1 << 15])

    atexit.register(report)
    sdk.forget()
    gc.enable()
    sys.argv = arguments
    sdk.main_module.START_TIME = time.time()
    sdk.script.__name__ = "__main__"
    sdk.script.__spec__ = None
    sdk.script._fix_google_module = lambda: None  # type: ignore[attr-defined]  # Google's own `google` is the one that is loaded
    sys.modules["__main__"] = sdk.script
    sdk.script.main()


def main() -> None:
    path, folder = sys.argv[1:]
    gc.disable()
    sdk = Sdk(path)
    server = Server(sdk, folder)
    gc.freeze()
    os.write(1, b"ready\n")
    command = server.next_command()
    if command is None:
        shutil.rmtree(folder)
    else:
        run(sdk, *command)


if __name__ == "__main__":
    main()
