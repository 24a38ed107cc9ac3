"""The script that a placement starts; it lies beside the flashfw package that it runs."""

import sys

from flashfw.worker.main import main

main(int(sys.argv[1]))
