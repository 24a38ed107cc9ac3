from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import pytest

import flashfw
from flashfw.worker import context


@pytest.fixture
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project's folder two levels below its root, with no worker around."""
    (tmp_path / "flashfw.toml").write_text('[project]\nname = "shop"\n')
    deep = tmp_path / "endpoints" / "a"
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)
    monkeypatch.setattr(context, "_volumes", None)
    monkeypatch.setattr(context, "environment", "dev")
    return tmp_path


def test_a_job_in_a_test_keeps_its_latest_progress() -> None:
    job = flashfw.Job()
    job.progress(0.5)
    assert job.latest == 0.5
    job.progress(step=3, of=20)
    assert job.latest == {"step": 3, "of": 20}
    job.progress(0.7, step=4)
    assert job.latest == {"value": 0.7, "step": 4}


def test_progress_raises_once_the_job_is_cancelled() -> None:
    job = flashfw.Job("j1")
    assert not job.cancelled
    job.cancel()
    assert job.cancelled
    with pytest.raises(flashfw.Cancelled, match="j1"):
        job.progress(1)


def test_a_broad_except_does_not_swallow_a_cancel() -> None:
    assert not issubclass(flashfw.Cancelled, Exception)


def test_a_deadline_is_aware_and_ahead() -> None:
    job = flashfw.Job()
    assert job.deadline.tzinfo is timezone.utc
    assert job.deadline > datetime.now(timezone.utc)


def test_http_error_says_its_status() -> None:
    error = flashfw.HTTPError(404, "no such user", {"x-a": "1"})
    assert (str(error), error.status, error.headers) == ("404: no such user", 404, {"x-a": "1"})
    assert str(flashfw.HTTPError(503)) == "503"


def test_a_volume_outside_a_worker_lies_below_the_project(outside: Path) -> None:
    path = flashfw.volume("models")
    assert path == outside / ".flashfw" / "volumes" / "models"
    assert path.is_dir()


def test_pyproject_with_the_table_is_a_root(outside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = outside / "inner"
    (inner / "endpoints").mkdir(parents=True)
    (inner / "pyproject.toml").write_text('[project]\nname = "x"\n[tool.flashfw.project]\nname = "x"\n')
    monkeypatch.chdir(inner / "endpoints")
    assert flashfw.volume("models") == inner / ".flashfw" / "volumes" / "models"


@pytest.mark.parametrize("name", ["", "..", "a/b", "/etc", ".hidden"])
def test_a_volume_stays_below_its_folder(outside: Path, name: str) -> None:
    with pytest.raises(context.UnknownVolumeError):
        flashfw.volume(name)


@pytest.mark.parametrize(
    ("volumes", "hint"),
    [
        ({"models": "/v/models"}, "did you mean 'models'?"),
        ({"data": "/v/data"}, "this endpoint has: data"),
        ({}, "endpoint.toml"),
    ],
)
def test_an_unknown_volume_is_named(outside: Path, volumes: dict[str, str], hint: str) -> None:
    context.configure(name="prod", volumes=volumes)
    with pytest.raises(context.UnknownVolumeError) as raised:
        flashfw.volume("model")
    assert "'model'" in str(raised.value)
    assert hint in str(raised.value)


def test_a_worker_tells_the_environment_and_the_volumes(outside: Path) -> None:
    assert flashfw.environment == "dev"
    context.configure(name="prod", volumes={"models": "/v/models"})
    assert flashfw.environment == "prod"
    assert flashfw.volume("models") == Path("/v/models")


def test_injected_has_a_readable_form() -> None:
    assert repr(flashfw.injected) == "flashfw.injected"
