"""`make soak`: many seeded rounds, and a table of what was killed and what became of the jobs.

python -m tests.faults.soak --rounds 200 --seed 1
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests import dev_process
from tests.dev_process import DevServer
from tests.faults.account import Account, Round
from tests.faults.books import Books
from tests.faults.plan import FAULTS, Store, draw
from tests.faults.stage import Stage
from tests.postgres_server import PostgresServer, shared


def main() -> int:
    """Play the rounds of the command line; 1 if any went wrong, and the seed to play that one again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1, help="of the first round; the others follow")
    parser.add_argument("--store", choices=list(FAULTS), action="append")
    options = parser.parse_args()
    stores: list[Store] = options.store or list(FAULTS)
    seeds = range(options.seed, options.seed + options.rounds // len(stores))
    played = {store: list(_rounds(store, seeds)) for store in stores}
    print("\n| store | rounds | kills | jobs | attempts | lost | two ends | otherwise wrong |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for store, accounts in played.items():
        print(_row(store, accounts))
    return 0 if all(account.is_good for accounts in played.values() for account in accounts) else 1


def _rounds(store: Store, seeds: range) -> Iterator[Account]:
    with tempfile.TemporaryDirectory() as folder, _scene(store, Path(folder)) as (stage, books):
        for seed in seeds:
            account = Round(draw(seed, store), stage, books).play()
            print(
                f"{store} {seed}: {account.kills} kills, {account.jobs} jobs, {account.attempts} attempts", flush=True
            )
            if not account.is_good:
                print(account, file=sys.stderr)
            yield account


@contextmanager
def _scene(store: Store, folder: Path) -> Iterator[tuple[Stage, Books]]:
    environ = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache"), "PYTHONUNBUFFERED": "1"}
    with ExitStack() as running:

        def start(project: Path, *arguments: str) -> DevServer:
            server = dev_process.start(project, *arguments, environ=environ, log=folder / f"{project.name}.log")
            running.callback(server.stop)
            return server

        if store == "sqlite":
            yield Stage.on_sqlite(folder, start)
        else:
            database = PostgresServer(shared().programs)
            running.callback(database.remove)
            database.start()
            yield Stage.on_postgres(folder, start, database)


def _row(store: str, accounts: list[Account]) -> str:
    def total(name: str) -> int:
        values = (getattr(account, name) for account in accounts)
        return sum(value if isinstance(value, int) else len(value) for value in values)

    numbers = (total(name) for name in ("kills", "jobs", "attempts", "lost", "doubled", "wrong"))
    return f"| {store} | {len(accounts)} | {' | '.join(f'{number:,}' for number in numbers)} |"


if __name__ == "__main__":
    sys.exit(main())
