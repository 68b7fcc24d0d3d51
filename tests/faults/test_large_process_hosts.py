"""Large libraries that start and end processes for others: exact counts at a collector."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from collector_process import CollectorProcess
from process_hosts import assert_exact, host_environment, is_native, python, run_host, write
from traced_program import TIMEOUT_S

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(1800)]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_pytorch_data_loader(
    backend: Any, collector: CollectorProcess, tmp_path: Path, method: str
) -> None:
    """Two epochs, each with its own workers."""
    script = write(
        tmp_path,
        "loader.py",
        """
        import sys
        import infertrace
        from torch.utils.data import DataLoader, Dataset
        tracer = infertrace.Tracer(sys.argv[1])

        class Numbers(Dataset):
            def __len__(self):
                return 1000

            def __getitem__(self, number):
                with tracer.start_span("m", tags={"number": str(number)}):
                    return number

        if __name__ == "__main__":
            loader = DataLoader(Numbers(), batch_size=10, num_workers=4,
                                multiprocessing_context=sys.argv[2])
            for _ in range(2):
                assert sum(len(batch) for batch in loader) == 1000
        """,
    )
    run_host(python(script, collector.endpoint, method), tmp_path, host_environment(backend))
    assert_exact(collector, 2000, 8)


def test_celery_prefork(backend: Any, collector: CollectorProcess, tmp_path: Path) -> None:
    """Children that are replaced after 50 tasks each, and a warm shutdown."""
    write(
        tmp_path,
        "tasks.py",
        """
        import os
        from celery import Celery
        from celery.signals import worker_process_shutdown
        import infertrace
        tracer = infertrace.Tracer(os.environ["ENDPOINT"])
        if infertrace.BACKEND == "pure":  # its children leave by os._exit
            worker_process_shutdown.connect(lambda **_: tracer.shutdown(), weak=False)
        app = Celery(broker="filesystem://", backend="file://" + os.getcwd() + "/results")
        app.conf.broker_transport_options = {
            "data_folder_in": os.getcwd() + "/queue",
            "data_folder_out": os.getcwd() + "/queue",
        }

        @app.task
        def work(number):
            with tracer.start_span("m", tags={"number": str(number)}):
                return number
        """,
    )
    for name in ("queue", "results"):
        (tmp_path / name).mkdir()
    env = host_environment(backend, ENDPOINT=collector.endpoint, PYTHONPATH=str(tmp_path))
    log = tmp_path / "log"
    with log.open("w") as file:
        worker = subprocess.Popen(
            python(
                *("-m", "celery", "-A", "tasks", "worker", "--pool", "prefork", "-c", "4"),
                *("--max-tasks-per-child", "50", "--loglevel", "INFO"),
            ),
            cwd=tmp_path,
            env=env,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        client = write(
            tmp_path,
            "client.py",
            """
            from tasks import work
            results = [work.delay(number) for number in range(400)]
            assert sorted(result.get(timeout=120) for result in results) == list(range(400))
            """,
        )
        run_host(python(client), tmp_path, env)
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(TIMEOUT_S) == 0, log.read_text()
    finally:
        if worker.poll() is None:
            os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()
    assert_exact(collector, 400)


@pytest.mark.skipif(not is_native(), reason="Ray kills its workers")
def test_ray_actors(backend: Any, collector: CollectorProcess, tmp_path: Path) -> None:
    """Actors that are killed, that go out of scope, and that end with the program."""
    script = write(
        tmp_path,
        "actors.py",
        """
        import sys
        import ray
        ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False,
                 _temp_dir=sys.argv[2], object_store_memory=100 * 1024 * 1024)

        @ray.remote(num_cpus=1)
        class Model:
            def __init__(self, endpoint):
                import infertrace
                self.tracer = infertrace.Tracer(endpoint)

            def infer(self, number):
                with self.tracer.start_span("m", tags={"number": str(number)}):
                    return number

        models = [Model.remote(sys.argv[1]) for _ in range(3)]
        ray.get([model.infer.remote(number) for number in range(99) for model in models])
        ray.kill(models.pop())
        models.pop()
        ray.get([model.infer.remote(99) for model in models])
        ray.shutdown()
        """,
    )
    run_host(
        python(script, collector.endpoint, f"/tmp/it-ray-{os.getpid()}"),
        tmp_path,
        host_environment(backend),
    )
    assert_exact(collector, 3 * 99 + 1, 3)


def test_pytest_xdist(backend: Any, collector: CollectorProcess, tmp_path: Path) -> None:
    write(
        tmp_path,
        "test_of_a_user.py",
        """
        import os
        import infertrace
        import pytest
        tracer = infertrace.Tracer(os.environ["ENDPOINT"])

        @pytest.mark.parametrize("number", range(400))
        def test_work(number):
            with tracer.start_span("m", tags={"number": str(number)}):
                pass
        """,
    )
    done = run_host(
        python("-m", "pytest", "-q", "-n", "4", "-p", "no:cacheprovider", "test_of_a_user.py"),
        tmp_path,
        host_environment(backend, ENDPOINT=collector.endpoint),
    )
    assert "400 passed" in done.stdout
    assert_exact(collector, 400, 4)


# The pure backend loses what a killed kernel held.
@pytest.mark.parametrize("now", ["False", "True"] if is_native() else ["False"])
def test_a_jupyter_kernel_that_is_restarted(
    backend: Any, collector: CollectorProcess, tmp_path: Path, now: str
) -> None:
    """now: whether it is killed."""
    script = write(
        tmp_path,
        "notebook.py",
        """
        import sys
        from jupyter_client.manager import start_new_kernel
        cell = f'''
        import infertrace
        tracer = infertrace.Tracer("{sys.argv[1]}")
        for number in range(99):
            tracer.start_span("m", tags={{"number": str(number)}}).end()
        '''
        manager, client = start_new_kernel()
        for _ in range(3):
            assert client.execute_interactive(cell, timeout=60)["content"]["status"] == "ok"
            client.stop_channels()
            manager.restart_kernel(now=sys.argv[2] == "True")
            client = manager.client()
            client.start_channels()
            client.wait_for_ready(timeout=60)
        client.stop_channels()
        manager.shutdown_kernel(now=False)
        """,
    )
    run_host(python(script, collector.endpoint, now), tmp_path, host_environment(backend))
    assert_exact(collector, 3 * 99, 3)
