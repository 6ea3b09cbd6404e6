"""Renders on the processors of a Ray cluster: Ray Data streams the visits to the trainer, nothing is kept on disk.

Visits, seeds and numbers are those of `workers.Workers`; so is what becomes of visits that fail. Ray replaces processes
and machines that die and asks them for the same visits again.
"""

from __future__ import annotations

import collections
import pickle
import threading
import time
from concurrent.futures.process import BrokenProcessPool

from data_gen import InputError
from data_gen.chunks import Renderer, Visit
from data_gen.workers import Workers

VISITS = 20_000  # of one pass of Ray Data, after which the next one begins; Ray plans a pass as a whole
VISITS_PER_TASK = 20  # asked of a process at a time, and asked again if it dies
BLOCK_BYTES = 1 << 23  # visits travel as soon as there are so many
VISITS_AHEAD = 8  # that wait at the trainer
RECENT = 20  # visits of which `ready_share` speaks
READY_S = 0.005  # a visit that comes in less did not have to be waited for
CLOSE_S = 30.0  # that `close` waits at most for what is under way
THREADS = ("iter_threaded", "map_tp_")  # how the names of Ray Data's threads that fetch begin, 2.60 and before


class RayWorkers(Workers):
    """Iterates over the visits of a renderer, rendered by the Ray cluster in RAY_ADDRESS, or by Ray on this machine.

    Each machine needs this package, the SoundFonts and the MIDI folder under the same paths.
    """

    def __init__(self, renderer: Renderer, first_visit: int = 0):
        super().__init__(renderer, 0, first_visit)
        self._rows = iter(())
        self._reading = threading.Lock()
        self._was_ready = collections.deque([True], RECENT)

    def start(self) -> None:
        """Joins the cluster. Raises InputError if Ray is not installed."""
        try:
            import ray
            import ray.data
        except ImportError:
            raise InputError("--render=ray needs Ray: pip install 'sourcesep[ray]'") from None
        if not ray.is_initialized():
            ray.init(log_to_driver=False)
        context = ray.data.DataContext.get_current()
        context.execution_options.preserve_order = True
        context.enable_progress_bars = False
        context.target_max_block_size = BLOCK_BYTES
        self._shared_renderer = ray.put(self.renderer)  # kept, since a process that Ray starts anew needs it

    @property
    def ready_share(self) -> float:
        """Share of the last visits that did not have to be waited for, 0 to 1."""
        return sum(self._was_ready) / len(self._was_ready)

    def close(self) -> None:
        """Ends the stream of visits; the cluster stays.

        Ray Data only tells its threads to end. One that still asks for data after `ray.shutdown()`, which comes with
        the end of the program, would end the process at once with exit status 1, so they are waited for.
        """
        super().close()
        if self._reading.acquire(timeout=CLOSE_S):
            rows, self._rows = self._rows, iter(())
            self._reading.release()
            del rows
            for thread in threading.enumerate():
                if thread.name.startswith(THREADS):
                    thread.join(CLOSE_S)

    def _visit(self) -> Visit:
        began_s = time.monotonic()
        with self._reading:
            if self._closed:
                raise BrokenProcessPool("closed")
            row = next(self._rows, None)
            if row is None:
                self._rows = self._pass(self.next_visit)
                row = next(self._rows)
        self._was_ready.append(time.monotonic() - began_s < READY_S)
        self.next_visit += 1
        result = pickle.loads(row["visit"][0])
        if isinstance(result, Exception):
            raise result
        return result

    def _pass(self, first_visit: int):
        """Iterator over VISITS rows of Ray Data."""
        import ray

        n_processes = max(1, int(ray.cluster_resources().get("CPU", 1)))
        rows = ray.data.range(VISITS, override_num_blocks=VISITS // VISITS_PER_TASK).map(
            _RenderVisit,
            fn_constructor_args=(self._shared_renderer, first_visit),
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=n_processes),
            num_cpus=0.9,  # leaves room for the tasks that hand out the numbers
        )
        return iter(rows.iter_batches(batch_size=1, batch_format="numpy", prefetch_batches=VISITS_AHEAD))


class _RenderVisit:
    """What runs on the cluster: row {"id"} -> row {"visit": the pickled Visit, or the error it ended in}."""

    def __init__(self, renderer, first_visit: int):
        import ray

        self._renderer = ray.get(renderer)
        self._first_visit = first_visit

    def __call__(self, row: dict) -> dict:
        try:
            result = self._renderer.visit(self._first_visit + int(row["id"]))
        except Exception as error:  # to be counted and logged by the trainer, as those of `Workers` are
            result = error
        return {"visit": pickle.dumps(result, protocol=5)}
