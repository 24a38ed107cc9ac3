"""Which imports of an endpoint no dependency provides: the module that will be missing in a worker."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache

from flashfw.errors import Problem
from flashfw.project.cascade import Origin
from flashfw.project.files import Files, SourceFile
from flashfw.project.imports import WORKER_PROVIDED, is_standard

_KNOWN: Mapping[str, str | tuple[str, ...]] = {
    "PIL": "pillow",
    "attr": "attrs",
    "bs4": "beautifulsoup4",
    "cv2": ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless"),
    "Crypto": "pycryptodome",
    "dateutil": "python-dateutil",
    "dotenv": "python-dotenv",
    "faiss": ("faiss-cpu", "faiss-gpu"),
    "fitz": "pymupdf",
    "git": "gitpython",
    "google": ("protobuf", "google-api-core"),
    "grpc": "grpcio",
    "jwt": "pyjwt",
    "magic": "python-magic",
    "nacl": "pynacl",
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu"),
    "pkg_resources": "setuptools",
    "psycopg2": ("psycopg2", "psycopg2-binary"),
    "pynvml": ("nvidia-ml-py", "pynvml"),
    "serial": "pyserial",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "soundfile": "soundfile",
    "tensorflow": ("tensorflow", "tensorflow-cpu"),
    "usb": "pyusb",
    "whisper": "openai-whisper",
    "yaml": "pyyaml",
    "zmq": "pyzmq",
}
"""Modules whose distribution has another name; the first is the one to suggest."""


def missing(
    endpoint: str, sources: Mapping[str, SourceFile], *, requirements: Iterable[str], files: Files
) -> Iterator[Problem]:
    """A warning for each third-party module that `sources` import and none of `requirements` provides."""
    names = frozenset(_distribution(text) for text in requirements)
    seen: set[str] = set()
    for path in sorted(sources):
        if _is_test(path):
            continue
        for item in sources[path].imports:
            top = item.module.partition(".")[0]
            if item.level or item.optional or top in seen or _is_known(top, names, files):
                continue
            seen.add(top)
            yield Problem(
                f"imports '{top}', which no dependency of '{endpoint}' provides",
                path,
                item.line,
                hint=f'add "{_suggest(top)}" to dependencies in endpoint.toml',
                level="warning",
            )


def missing_preloads(
    endpoint: str, modules: Iterable[tuple[str, Origin]], *, requirements: Iterable[str], files: Files
) -> Iterator[Problem]:
    """A warning for each module of `preload` that neither the project nor a dependency provides."""
    distributions = frozenset(_distribution(text) for text in requirements)
    for module, origin in modules:
        top = module.partition(".")[0]
        if files.defines(top):
            what, hint = f"'preload' names '{module}', which the project does not have", ""
            wrong = not files.defines(module)
        else:
            what = f"'preload' names '{module}', which no dependency of '{endpoint}' provides"
            hint = f'add "{_suggest(top)}" to dependencies'
            wrong = not _is_known(top, distributions, files)
        if wrong:
            yield origin.document.problem(what, origin.path, hint=hint, level="warning")


def _is_known(top: str, names: frozenset[str], files: Files) -> bool:
    return top in WORKER_PROVIDED or is_standard(top) or files.defines(top) or _provides(top, names)


@lru_cache(maxsize=8192)
def _provides(top: str, names: frozenset[str]) -> bool:
    if not names:
        return False
    if normalised(top) in names or names & set(_table(top)):
        return True
    return bool(names & _installed_above(top))


def normalised(name: str) -> str:
    """The name of a distribution as package indexes compare it.

    >>> normalised("Scikit_Learn")
    'scikit-learn'
    """
    return re.sub(r"[-_.]+", "-", name).lower()


def _distribution(requirement: str) -> str:
    if requirement.startswith("."):  # a bare path: what lies there is nearly always called as its folder or file is
        requirement = re.split(r"-\d", requirement.rstrip("/").rpartition("/")[2])[0]
    found = re.match(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)", requirement)
    return normalised(found[1].rstrip("._-")) if found else ""


def _table(top: str) -> tuple[str, ...]:
    known = _KNOWN.get(top, ())
    return (known,) if isinstance(known, str) else known


def _suggest(top: str) -> str:
    return next(iter((*_table(top), *sorted(_owners().get(top, ())))), top.replace("_", "-"))


@lru_cache(maxsize=1)
def _owners() -> Mapping[str, tuple[str, ...]]:
    """Modules of this environment to their distributions; slow, so only asked for a name that is in doubt."""
    from importlib.metadata import packages_distributions  # here, as below: it takes a tenth of what a verb takes

    owners = packages_distributions()
    return {top: tuple(dict.fromkeys(map(normalised, found))) for top, found in owners.items()}


@lru_cache(maxsize=1024)
def _installed_above(top: str) -> frozenset[str]:
    """The distributions of this environment that bring the module `top`, themselves or by what they require."""
    found: set[str] = set()
    pending = [*_owners().get(top, ()), *_table(top), normalised(top)]
    while pending:
        name = pending.pop()
        if name not in found:
            found.add(name)
            pending += _dependents().get(name, ())
    return frozenset(found)


@lru_cache(maxsize=1)
def _dependents() -> Mapping[str, tuple[str, ...]]:
    """Each distribution of this environment to those that require it, extras left out."""
    from importlib.metadata import distributions

    dependents: dict[str, set[str]] = {}
    for distribution in distributions():
        name = normalised(distribution.metadata["Name"] or "")
        for requirement in distribution.requires or ():
            if "extra ==" not in requirement:
                dependents.setdefault(_distribution(requirement), set()).add(name)
    return {name: tuple(found) for name, found in dependents.items()}


def _is_test(path: str) -> bool:
    name = path.rsplit("/", 1)[-1]
    return name == "conftest.py" or name.startswith("test_") or name.endswith("_test.py")
