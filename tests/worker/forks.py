"""Forks workers off a process that has imported flashfw and pydantic, so that a start takes milliseconds."""

from __future__ import annotations

import json
import os
import socket
import sys

import flashfw.worker.describe
import flashfw.worker.http  # noqa: F401 - imported by a worker only when it is needed
from flashfw.worker.main import main


def serve(control: socket.socket) -> int:
    """Answers orders one by one; returns only in a forked child, with its end of the link."""
    while message := socket.recv_fds(control, 1 << 16, 1):
        if not message[0]:
            control.close()
            sys.exit()
        order = json.loads(message[0])
        if "wait" in order:
            status = os.waitpid(order["wait"], 0)[1]
            control.sendall(b"%d" % os.waitstatus_to_exitcode(status))
            continue
        child = os.fork()
        if not child:
            control.close()
            os.setsid()
            os.chdir(order["cwd"])
            os.environ.update(order["env"])
            os.set_inheritable(message[1][0], True)  # as an exec would have left it
            return message[1][0]
        os.close(message[1][0])
        control.sendall(b"%d" % child)
    raise AssertionError


main(serve(socket.socket(fileno=int(sys.argv[1]))))
