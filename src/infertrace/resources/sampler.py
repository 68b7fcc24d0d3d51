"""The background sampler: keeps a fresh snapshot of GPU and process for ending spans."""

from __future__ import annotations

import contextlib
import threading

from infertrace.gpu import GpuProbe
from infertrace.green_threads import threads_are_green
from infertrace.log import logger
from infertrace.recording.encoder import resource_metrics
from infertrace.resources.gpu_source import GpuSlot, GpuSource
from infertrace.resources.process import ProcessMeter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from infertrace.backend import Backend, Recorder


_STOP_TIMEOUT_S: Final = 1.0
_LOOK_AGAIN_S: Final = 30.0
# While the sender process is about to read the GPU for the first time.
_LOOK_FOR_READING_S: Final = 0.25
_GPU_LOOKS_SOONER_S: Final = 0.25  # so that its thread has ended before the next one starts


class ResourceSampler:
    """Reads every `interval_s` seconds and hands the encoded snapshot to the recorder."""

    def __init__(
        self,
        backend: Backend,
        recorder: Recorder,
        *,
        interval_s: float,
        gpu_device_index: int | None,
        awaits_sender: bool = False,
    ) -> None:
        """gpu_device_index, awaits_sender: as of `GpuSource`."""
        self._monotonic_ns = backend.monotonic_ns
        self._recorder = recorder
        self._interval_s = interval_s
        self._gpu = GpuSource(gpu_device_index, interval_s=interval_s, awaits_sender=awaits_sender)
        self._process = ProcessMeter()
        self._is_stopped = False
        self._woken = threading.Event()
        self._thread: threading.Thread | None = None
        self._gpu_thread: threading.Thread | None = None
        self._retired = False
        self.failures = 0
        """Unforeseen errors that the thread survived."""

    def start(self) -> None:
        """Begin to sample; nothing happens when the interval is 0 or it samples already."""
        if self._interval_s > 0 and self._thread is None and not self._retired:
            self._gpu.prepare()
            if self._recorder.sample_process is not None:
                self._recorder.stop_sampling(False)
            if threads_are_green():
                # One made before `threading` was patched stops all green threads.
                self._woken = threading.Event()
            # Set before start(): a signal handler may raise while start() waits for the new thread.
            self._thread = threading.Thread(
                target=self._run, name="infertrace-sampler", daemon=True
            )
            try:
                self._thread.start()
            except RuntimeError:  # there are no threads (Pyodide), or no more; spans go without
                self._thread = None

    def stop(self) -> None:
        """End sampling; spans that end from now on carry no snapshot."""
        self._is_stopped = True
        self._wake()
        if self._thread is not None and self._thread is not threading.current_thread():
            with contextlib.suppress(RuntimeError):  # its start was interrupted
                self._thread.join(_STOP_TIMEOUT_S)
        if self._thread is None or not self._thread.is_alive():
            self._gpu.close()
        self._recorder.sample = None

    def _wake(self) -> None:
        self._woken.set()
        if self._recorder.sample_process is not None:
            self._recorder.stop_sampling()

    def take_gpu_page(self, descriptor: int | None) -> None:
        """What the sender process reads of the GPUs, as of `GpuSource.offer`."""
        self._gpu.offer(descriptor)
        if self._is_stopped or self._retired or not self._interval_s:
            self._gpu.close()
        elif self._thread is not None:
            self._wake()
        else:
            self._gpu.take_offers()

    def retire(self) -> None:
        """End sampling soon; for a finalizer: takes no lock and waits for nothing."""
        self._retired = True
        if self._recorder.sample_process is not None:
            self._recorder.stop_sampling()

    def sample(self) -> None:
        """Read once, now."""
        self._sample_with(self._gpu.choose())

    def _sample_with(self, gpu: GpuSlot | GpuProbe | None) -> None:
        process = self._process.read()
        now_ns = self._monotonic_ns()
        if isinstance(gpu, GpuSlot):
            reading = gpu.read(now_ns)
            metrics = resource_metrics(process)
            if reading is not None:
                metrics = reading.before + metrics + reading.after
        else:
            metrics = resource_metrics({**process, **(gpu.read() if gpu else {})})
            now_ns = self._monotonic_ns()
        if not self._is_stopped:
            self._recorder.sample = (metrics, now_ns)

    def _run(self) -> None:
        look_s = look_again_s = max(_LOOK_AGAIN_S, self._interval_s)
        while not (self._is_stopped or self._retired):
            try:
                gpu = self._gpu.choose()
                self._sample_with(gpu)
                look_s = _LOOK_FOR_READING_S if self._gpu.is_pending else look_again_s
                if self._samples_without_gil(gpu, look_s):
                    self._listen_again()
                    continue
            except Exception as error:
                self._tell_of_failure(error)
            self._woken.wait(min(self._interval_s, look_s))
            self._woken.clear()
        self.forget()

    def _listen_again(self) -> None:
        """Once woken; before it is looked whether that was to stop."""
        self._woken.clear()
        self._recorder.stop_sampling(False)

    def _samples_without_gil(self, gpu: GpuSlot | GpuProbe | None, duration_s: float) -> bool:
        """Sample in C for that time where the backend can; else return at once."""
        sample_process = self._recorder.sample_process
        if sample_process is None or threads_are_green():
            return False
        # Take the GIL only to re-check which devices exist.
        if isinstance(gpu, GpuSlot):
            return bool(sample_process(self._interval_s, duration_s, gpu.address))
        if gpu is not None:
            self._watch_gpu(gpu, duration_s - _GPU_LOOKS_SOONER_S)
        return bool(sample_process(self._interval_s, duration_s))

    def _tell_of_failure(self, error: Exception) -> None:
        self.failures += 1
        if self.failures == 1:
            logger.error(
                "GPU and process could not be read (said once; stats() counts thread_failures)",
                exc_info=error,
            )

    def _watch_gpu(self, gpu: GpuProbe, duration_s: float) -> None:
        """On its own thread: a call into a driver can hang."""
        sample_gpu = self._recorder.sample_gpu
        if sample_gpu is None or (self._gpu_thread is not None and self._gpu_thread.is_alive()):
            return
        addresses = gpu.addresses()
        if addresses is not None:
            identity = resource_metrics({"gpu_device_id": gpu.identity})
            self._gpu_thread = threading.Thread(
                target=sample_gpu,
                args=(self._interval_s, duration_s, identity, *addresses),
                name="infertrace-gpu-sampler",
                daemon=True,
            )
            with contextlib.suppress(RuntimeError):  # no more threads: samples go without
                self._gpu_thread.start()

    def forget(self) -> None:
        """Close files and handles; at once in a forked child, which has no sampling thread."""
        self._process.close()
        self._gpu.close()
