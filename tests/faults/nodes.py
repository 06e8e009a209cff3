"""Two machines of a run, with different numbers of processes, as torchrun starts them."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass

from harness import All


@dataclass(frozen=True)
class Rank:
    """One process of a run on several machines, as torchrun starts it.

    Attributes:
        rank: its number in the run.
        port: where the processes meet.
        on_nodes: processes of each machine.
    """

    rank: int
    port: int
    on_nodes: tuple[int, ...] = (2, 1)

    def __call__(self):
        node, before = 0, 0
        while self.rank >= before + self.on_nodes[node]:
            before += self.on_nodes[node]
            node += 1
        os.environ |= {
            "TORCHELASTIC_RUN_ID": "none",
            "TORCHELASTIC_USE_AGENT_STORE": "False",
            "RANK": str(self.rank),
            "LOCAL_RANK": str(self.rank - before),
            "GROUP_RANK": str(node),
            "WORLD_SIZE": str(sum(self.on_nodes)),
            "LOCAL_WORLD_SIZE": str(self.on_nodes[node]),
            "GROUP_WORLD_SIZE": str(len(self.on_nodes)),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(self.port),
        }


def free_port():
    """A port of this machine that nothing uses."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def start_all(runner, words, faults=None, on_nodes=(2, 1)):
    """Starts a command on all machines.

    Args:
        runner: of commands.
        words: of the command; a function of the rank where they differ.
        faults: by rank.
        on_nodes: processes of each machine.
    """
    port, running = free_port(), []
    for rank in range(sum(on_nodes)):
        place = Rank(rank, port, on_nodes)
        fault = (faults or {}).get(rank)
        own = words(rank) if callable(words) else words
        running.append(runner.start(*own, fault=All((place, fault)) if fault else place))
    return running
