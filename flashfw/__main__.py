"""`python -m flashfw`: the command, where its script is not on the path."""

from flashfw.cli.main import main

if __name__ == "__main__":
    main()
