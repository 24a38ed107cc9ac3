"""The script that a placement starts to fork workers off; what it forks runs `run_worker.py` beside it."""

import sys

from flashfw.worker.zygote import main

main(int(sys.argv[1]), sys.argv[2:])
