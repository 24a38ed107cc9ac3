"""Where the command of a server of somebody else's is looked for."""

from __future__ import annotations

from pathlib import Path

from flashfw.worker.foreign import programs


def test_programs_of_shipped_packages_are_found(tmp_path: Path) -> None:
    layer, project = tmp_path / "layer", tmp_path / "project"
    for folder in (layer / "bin", layer / "uvicorn-0.44.0.dist-info", project / "bin"):
        folder.mkdir(parents=True)

    found = programs(f"{tmp_path}/venv/bin/python", [str(project), str(layer), f"{tmp_path}/gone", ""])
    assert [*found] == [f"{tmp_path}/venv/bin", f"{layer}/bin"]
