"""Processes of a run that others have started: when one ends, the others hear of it at once.

Each process has a connection to the first one. The system closes it when a process ends in whatever
way, and finds out by itself that a machine is gone, however busy the processes are. On one machine
where the command has started the others itself, `launcher` sees them end.
"""

from __future__ import annotations

import json
import os
import secrets
import selectors
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import astuple, dataclass
from typing import Any, Literal

from coincide_pl.errors import GO_ON, ProcessError, printable
from coincide_pl.interruption import interruption

PATIENCE = 10.0
"""Seconds that a main thread has to come to its end, by itself, when another process is lost."""
SILENCE = 30
"""Seconds without a sign from another machine, after which it is taken for lost."""
ENDING = 60.0
"""Seconds that a process has to come to its end when another one was asked to."""
JOINING = 60.0
"""Seconds that a process has to connect to the first one, once all have met."""
Kind = Literal["through", "asked", "failed", "lost", "heard"]


@dataclass(frozen=True)
class Message:
    """What one process says to another.

    Attributes:
        kind: `through` with its work; `asked` to end by a signal; `failed` by an error of its own;
            `lost` is another one; `heard` is the answer of the first process to a failure.
        line: what there is to say to the user.
        status: exit status of the command.
    """

    kind: Kind
    line: str = ""
    status: int = ProcessError.status


class Link:
    """A connection to another process."""

    def __init__(self, connection: socket.socket, name: str) -> None:
        """Has the system find out when the other machine is silent.

        Args:
            connection: to the process.
            name: of the process, as the user should read it.
        """
        self.connection, self.name = connection, name
        connection.settimeout(PATIENCE)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in {
            "TCP_KEEPIDLE": SILENCE // 3,
            "TCP_KEEPINTVL": SILENCE // 6,
            "TCP_KEEPCNT": 4,
            "TCP_USER_TIMEOUT": SILENCE * 1000,
        }.items():
            if (number := getattr(socket, option, None)) is not None:  # Linux's
                with suppress(OSError):
                    connection.setsockopt(socket.IPPROTO_TCP, number, value)
        self._lines = connection.makefile("r", encoding="utf-8", errors="replace")

    @property
    def lost(self) -> Message:
        """What is said of the process if it ends without a word."""
        return Message("lost", f"{self.name} is lost; {GO_ON}")

    def send(self, message: Message) -> None:
        """Sends a message; a process that is gone gets none."""
        with suppress(OSError):
            self.connection.sendall(f"{json.dumps(astuple(message))}\n".encode())

    def receive(self) -> Message | None:
        """The next message; None if the process is gone."""
        try:
            line = self._lines.readline()
            return Message(*json.loads(line)) if line.endswith("\n") else None
        except (OSError, ValueError, TypeError):
            return None


class Watch:
    """What a process knows of the others.

    Attributes:
        name: of this process, for the user.
        news: what is said of the first of them that was lost or failed.
        speaks: whether this process says it to the user.
    """

    def __init__(self) -> None:
        """Knows of no others."""
        self.news: Message | None = None
        self.speaks, self.name = True, f"process {os.getpid()}"
        self._links: list[Link] = []
        self._is_first = False
        self._over = False
        self._heard = threading.Event()

    @property
    def is_on(self) -> bool:
        """Whether there are others that are watched."""
        return bool(self._links)

    def begin(
        self, rank: int, processes: int, address: str, broadcast: Callable[[Any], Any]
    ) -> None:
        """Connects to the others; all processes must call.

        Args:
            rank: number of this process.
            processes: how many there are.
            address: name of the first process's machine, for the others.
            broadcast: gives to all processes what the first one gives it.

        Raises:
            ProcessError: some did not connect.
        """
        self.__init__()  # type: ignore[misc]
        interruption.farewell = self.asked
        self._is_first = rank == 0
        self.name = f"process {os.getpid()} (rank {rank} on {socket.gethostname()})"
        if self._is_first:
            with listening() as server:
                token = secrets.token_hex(16)
                broadcast((server.getsockname()[1], token, self.name))
                self._links = joined(server, token, processes - 1)
            threading.Thread(target=self._watch_all, daemon=True).start()
            return
        port, token, first = broadcast(None)
        try:
            connection = socket.create_connection((address, port), JOINING)
            connection.sendall(f"{json.dumps([token, self.name])}\n".encode())
        except OSError as error:
            raise ProcessError(
                f"{first} can't be reached at {address}, port {port} ({error.strerror}); the "
                "machines of a run must reach each other at any port"
            ) from error
        self._links = [Link(connection, first)]
        self.speaks = False
        threading.Thread(target=self._watch_first, args=(rank,), daemon=True).start()

    def through(self) -> None:
        """Says that this process has done its work: from now on its end is no loss."""
        self._over = True
        self._say(Message("through"))

    def asked(self) -> None:
        """Says that this process ends because it was asked to: the others should, too."""
        self._say(Message("asked"))

    def failed(self, line: str, status: int = 1) -> bool:
        """Says that this process ends by an error of its own.

        Args:
            line: about the error.
            status: exit status of the command.

        Returns:
            Whether the first process will say the line.
        """
        if self.news is not None:  # then it is not its own
            return False
        self._say(Message("failed", line, status))
        return bool(self._links) and not self._is_first and self._heard.wait(PATIENCE / 2)

    def error(self) -> ProcessError | None:
        """What became of another process, if something did: it takes a moment to be known."""
        deadline = time.monotonic() + PATIENCE / 2
        while self.is_on and self.news is None and time.monotonic() < deadline:
            time.sleep(PATIENCE / 100)
        if self.news is None:
            return None
        error = ProcessError(self.news.line)
        error.status, error.shared = self.news.status, not self.speaks
        return error

    def forget(self) -> None:
        """Closes a forked process's connections: they would outlast those of its parent."""
        for link in self._links:
            os.close(link.connection.detach())
        self._links = []

    def _say(self, message: Message) -> None:
        for link in self._links:
            link.send(message)

    def _watch_all(self) -> None:
        """The first process's part: hears what the others say, and tells it to all."""
        selector = selectors.DefaultSelector()
        for link in self._links:
            selector.register(link.connection, selectors.EVENT_READ, link)
        while selector.get_map():
            for key, _ in selector.select():
                link = key.data
                message = link.receive() or link.lost
                selector.unregister(link.connection)  # it has no more to say
                if message.kind == "through":
                    continue
                if message.kind == "failed" and not self._over:
                    link.send(Message("heard"))
                for other in self._links:
                    if other is not link:
                        other.send(message)
                self._act(message)

    def _watch_first(self, rank: int) -> None:
        """Another process's part: hears of the others through the first."""
        (link,) = self._links
        link.connection.settimeout(None)
        while (message := link.receive()) is not None:
            if message.kind == "through":
                return
            if message.kind == "heard":
                self._heard.set()
            else:
                self._act(message)
        self.speaks = rank == 1
        self._act(link.lost)

    def _act(self, message: Message) -> None:
        """Lets the main thread come to its end, and ends this process where it does not."""
        if self._over:
            return
        if message.kind == "asked":
            self._over = True
            interruption.ask()
            _end_in(ENDING, 128 + signal.SIGTERM)
        elif self.news is None:
            self.news = message
            said = f"error: {printable(message.line)}\n" if self.speaks else ""
            _end_in(PATIENCE, message.status, said)


def _end_in(seconds: float, status: int, said: str = "") -> None:
    """Ends this process, if it is still there then."""

    def end() -> None:
        sys.stderr.write(said)
        sys.stderr.flush()
        os._exit(status)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


def listening() -> socket.socket:
    """A socket that waits for connections from other machines, on a port that was free."""
    if socket.has_dualstack_ipv6():
        with suppress(OSError):  # a container may have no IPv6
            return socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", 0))


def joined(server: socket.socket, token: str, count: int) -> list[Link]:
    """Connections to the other processes; who does not know the token is sent away.

    Args:
        server: waits for connections.
        token: what a process of this run begins with.
        count: how many there must be.

    Raises:
        ProcessError: they were fewer after a minute.
    """
    found: list[Link] = []
    deadline = time.monotonic() + JOINING
    while len(found) < count:
        server.settimeout(max(0.1, deadline - time.monotonic()))
        try:
            connection, _ = server.accept()
        except OSError:
            raise ProcessError(
                f"{count - len(found)} process(es) ended, or can't reach this machine at port "
                f"{server.getsockname()[1]}; the machines of a run must reach each other at any "
                f"port; {GO_ON}"
            ) from None
        connection.settimeout(PATIENCE)
        try:
            with connection.makefile("r", encoding="utf-8") as hello:
                given, name = json.loads(hello.readline(1000))
        except (OSError, ValueError, TypeError):
            given = None
        if given == token:
            found.append(Link(connection, name))
        else:
            connection.close()
    return found


watch = Watch()
"""What this process knows of the others of its run; there is one."""
os.register_at_fork(after_in_child=watch.forget)
