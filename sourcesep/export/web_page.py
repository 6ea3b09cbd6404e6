"""Writes a TFLite file as a page that separates in the browser: a folder of static files.

    index.html page.js worker.js ...   the page, as they are in the folder web/ here
    model.tflite model.json            the model; what the page needs to know of it
    litert/                            LiteRT.js, which computes, with its licence
    offline.js                         a service worker, which names all of these files and a version of them

LiteRT.js is the package @litertjs/core of npm. Nothing here imports TensorFlow.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import tarfile
import tempfile

import platformdirs

from data_gen import InputError
from sourcesep.separate.tflite_model import read_file

LITERT_VERSION = "2.5.3"
WEB = pathlib.Path(__file__).with_name("web")

_PACKAGES = ("core", "wasm-utils")
_BUILDS = ("litert_wasm_compat_internal", "litert_wasm_internal", "litert_wasm_threaded_internal")
_IMPORT = '"@litertjs/wasm-utils"'  # how core names the other package, which a worker cannot resolve


def write_page(folder: pathlib.Path, tflite: pathlib.Path, litert_dir: str = "") -> None:
    """Writes the page of a TFLite file into a folder, which appears when it is complete; an older one is replaced.

    Args:
        folder: where to.
        tflite: a file written by export.py.
        litert_dir: as in `find_litert`.

    Raises InputError if the TFLite file is damaged, LiteRT.js is not to be had, or the folder cannot be written.
    """
    flatbuffer, description = read_file(tflite)
    litert = find_litert(litert_dir)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = pathlib.Path(tempfile.mkdtemp(prefix=".partial-", dir=folder.parent))
        try:
            _write(partial, tflite, {**description, "flatbuffer_bytes": len(flatbuffer)}, litert)
            partial.chmod(0o755)  # mkdtemp makes a folder that only its owner can read
            if folder.exists():
                shutil.rmtree(folder)
            os.rename(partial, folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror})") from None


def _write(folder: pathlib.Path, tflite: pathlib.Path, about: dict, litert: pathlib.Path) -> None:
    for path in sorted(WEB.iterdir()):
        shutil.copyfile(path, folder / path.name)
    shutil.copyfile(tflite, folder / "model.tflite")
    (folder / "model.json").write_text(json.dumps(about, indent=2) + "\n")
    target = folder / "litert"
    target.mkdir()
    (folder / "LICENSE.LiteRT.txt").rename(target / "LICENSE")
    core = (litert / "core" / "dist" / "index.js").read_text().replace(_IMPORT, '"./wasm-utils.js"')
    changed = f"// From @litertjs/core {LITERT_VERSION}; changed: the name of the other package is a path.\n"
    (target / "core.js").write_text(changed + core)
    shutil.copyfile(litert / "wasm-utils" / "dist" / "index.js", target / "wasm-utils.js")
    for build in _BUILDS:
        for suffix in (".js", ".wasm"):
            shutil.copyfile(litert / "core" / "wasm" / f"{build}{suffix}", target / f"{build}{suffix}")
    _name_files(folder)


def _name_files(folder: pathlib.Path) -> None:
    """Writes into offline.js which files there are, and a checksum of them all: another script is another version."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    checksums = "".join(f"{name} {hashlib.sha256((folder / name).read_bytes()).hexdigest()}\n" for name in names)
    version = hashlib.sha256(checksums.encode()).hexdigest()[:16]
    files = ["./", *(name for name in names if name != "offline.js")]
    script = folder / "offline.js"
    script.write_text(
        f"const VERSION = {json.dumps(version)};\nconst FILES = {json.dumps(files)};\n{script.read_text()}"
    )


def find_litert(litert_dir: str = "") -> pathlib.Path:
    """Returns a folder with the packages core and wasm-utils of LiteRT.js.

    Args:
        litert_dir: a folder in which `npm install @litertjs/core` ran. If it is empty, npm fetches the packages into
            the user's cache, where they are looked for first.

    Raises InputError if they are not there, or npm is missing or fails.
    """
    if litert_dir:
        for folder in (pathlib.Path(litert_dir, "node_modules", "@litertjs"), pathlib.Path(litert_dir)):
            if _is_complete(folder):
                return folder
        raise InputError(
            f"--litert_dir={litert_dir}: holds no LiteRT.js; run npm install @litertjs/core@{LITERT_VERSION} there"
        )
    cache = pathlib.Path(platformdirs.user_cache_dir("sourcesep"), f"litertjs-{LITERT_VERSION}")
    if not _is_complete(cache):
        _fetch(cache)
    return cache


def _is_complete(folder: pathlib.Path) -> bool:
    needed = [f"core/wasm/{build}{suffix}" for build in _BUILDS for suffix in (".js", ".wasm")]
    needed += [f"{package}/dist/index.js" for package in _PACKAGES]
    return all((folder / name).is_file() for name in needed)


def _fetch(target: pathlib.Path) -> None:
    wanted = [f"@litertjs/{package}@{LITERT_VERSION}" for package in _PACKAGES]
    otherwise = f"on a machine with npm run npm install {wanted[0]} in a folder, and name it with --litert_dir"
    npm = shutil.which("npm")
    if npm is None:
        raise InputError(f"the page needs LiteRT.js, and there is no npm to fetch it: install npm, or {otherwise}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".litertjs-", dir=target.parent) as scratch:
            done = subprocess.run(
                [npm, "pack", "--silent", *wanted], cwd=scratch, capture_output=True, text=True, check=False
            )
            if done.returncode:
                reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
                raise InputError(f"npm cannot fetch LiteRT.js ({reason}); {otherwise}")
            for package in _PACKAGES:
                with tarfile.open(pathlib.Path(scratch, f"litertjs-{package}-{LITERT_VERSION}.tgz")) as archive:
                    for member in archive.getmembers():
                        parts = pathlib.PurePosixPath(member.name).parts[1:]  # below package/
                        source = archive.extractfile(member) if ".." not in parts else None
                        if source:
                            path = pathlib.Path(scratch, "unpacked", package, *parts)
                            path.parent.mkdir(parents=True, exist_ok=True)
                            path.write_bytes(source.read())
            shutil.rmtree(target, ignore_errors=True)
            os.rename(pathlib.Path(scratch, "unpacked"), target)
    except (OSError, tarfile.TarError) as error:
        raise InputError(f"LiteRT.js cannot be stored in {target.parent} ({error}); {otherwise}") from None
