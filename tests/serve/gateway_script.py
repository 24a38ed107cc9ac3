"""A gateway that does as it is told: `python -S gateway_script.py CHANNEL MODE`. It imports nothing of flashfw."""

import json
import os
import signal
import socket
import sys
import time

sock = socket.socket(fileno=int(sys.argv[1]))
mode = sys.argv[2]
file = sock.makefile("rw", encoding="utf-8")


def say(word: str, **fields: object) -> None:
    file.write(json.dumps({"word": word, **fields}) + "\n")
    file.flush()


def hear() -> dict[str, object]:
    line = file.readline()
    return json.loads(line) if line else {"word": "gone"}


if mode == "broken":
    sys.exit(9)
if mode == "refuses":
    say("failed", what="the certificate expired", hint="renew it", exit=4)
    sys.exit(4)
if mode == "silent":
    time.sleep(600)
say("standby")
told = hear()
if told["word"] != "go":
    sys.exit(0)
if mode == "late":
    say("failed", what="the disk is full", hint="make room", exit=7)
    sys.exit(7)
say("serving", key=None, mode=mode, shows_key=told["shows_key"])
if mode == "dies":
    os.kill(os.getpid(), signal.SIGKILL)
while hear()["word"] == "stop" and mode == "hangs":
    time.sleep(600)
