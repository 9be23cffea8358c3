"""The interpreter that `gcloud` is told to use (CLOUDSDK_PYTHON): the server beside it, which has loaded gcloud, does the command for it.

It is run by the Cloud SDK's own Python, as `#!…/python3 -IS`, from the server's folder. What it cannot pass on it does itself, by that
same Python. Imports are few and low: each command pays for them.
"""

import _signal  # type: ignore[import-not-found]  # `signal` without its enumerations
import _socket
import marshal
import os
import sys

PASSED_ON = (_signal.SIGHUP, _signal.SIGINT, _signal.SIGQUIT, _signal.SIGTERM, _signal.SIGUSR1, _signal.SIGUSR2)
PLAIN = b"plain"
"""What the server answers to a command that it had better not do."""


def run_plainly() -> None:
    """Become the interpreter that this one stands for."""
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])


def has_plain_streams() -> bool:
    """Whether standard input, output and error are there, and none is a terminal: Python writes to one in another way."""
    try:
        return not any(os.isatty(number) for number in range(3) if os.fstat(number))
    except OSError:
        return False


def connected() -> "_socket.socket | None":
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        connection.connect(os.path.join(os.path.dirname(sys.argv[0]), "socket"))
    except OSError:
        return None
    return connection


def send(connection: "_socket.socket") -> None:
    """The command, its surroundings and its open files."""
    folder = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    mask = os.umask(0o77)
    os.umask(mask)
    request = marshal.dumps((sys.argv[1:], dict(os.environb), mask))
    files = b"".join(number.to_bytes(4, sys.byteorder) for number in (0, 1, 2, folder))
    connection.sendmsg([len(request).to_bytes(4, "big")], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, files)])
    connection.sendall(request)


def exit_as(status: int) -> None:
    """End as the command did; `status` is that of `waitpid`."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number != _signal.SIGKILL:
            _signal.signal(number, _signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(os.waitstatus_to_exitcode(status))


def main() -> None:
    connection = connected() if has_plain_streams() else None
    if connection is None:
        run_plainly()
        return
    try:
        send(connection)
        for number in PASSED_ON:
            if _signal.getsignal(number) != _signal.SIG_IGN:  # as of what a shell starts in the background
                _signal.signal(number, lambda caught, _: connection.sendall(bytes([caught])))
        answer = connection.recv(16)
    except OSError as error:
        os.write(2, f"the server of gcloud for tests has gone: {error}\n".encode())
        os._exit(70)
    if answer == PLAIN:
        run_plainly()
    if not answer:
        os.write(2, b"the server of gcloud for tests has gone\n")
        os._exit(70)
    exit_as(int(answer))


if __name__ == "__main__":
    main()
