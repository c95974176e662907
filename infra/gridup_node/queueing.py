"""syft's message queue, moved from every address of the machine to a socket in the node's folder.

syft binds `tcp://*` and takes whoever connects as a worker; the messages to workers carry the
node's signing key. A port on the loopback would still be open to every user of the machine,
the socket of a folder with mode 0700 is not. Producer and workers live in one process, so
nothing else has to know where it is.
"""

from __future__ import annotations

from typing import Any

SOCKET = "run/queue"
"""From the node's folder, which is the process's working folder: see `serve`."""
ADDRESS = f"ipc://{SOCKET}"


def bind_to_unix_socket() -> None:
    """Make every producer bind, and every worker connect to, `ADDRESS`. Call it before a server is made.

    Raises:
        AttributeError: this syft has no such queue.
    """
    from syft.service.queue.zmq_client import ZMQClient
    from syft.service.queue.zmq_producer import ZMQProducer

    bind, add_consumer = ZMQProducer.bind, ZMQClient.add_consumer

    def bind_here(self: Any, _endpoint: str) -> None:
        bind(self, ADDRESS)

    def add_consumer_here(self: Any, *args: Any, **kwargs: Any) -> Any:
        # Every caller in syft gives it by keyword (`QueueManager.create_consumer`).
        return add_consumer(self, *args, **{**kwargs, "address": ADDRESS})

    ZMQProducer.bind = bind_here
    ZMQClient.add_consumer = add_consumer_here
    ZMQProducer.address = property(lambda _self: ADDRESS)


def attach_workers(server: Any) -> int:
    """Give each worker of the default pool that has no consumer one; returns how many.

    syft makes the pool's consumers when it makes the pool, and after a restart starts those of all
    pools but the default one (`Server.start_in_memory_workers`): its workers stay DETACHED
    and jobs sent to it wait for ever.
    """
    pool = server.get_default_worker_pool().unwrap()
    busy = {consumer.syft_worker_id for row in server.queue_manager.consumers.values() for consumer in row}
    idle = [worker.object_uid for worker in pool.worker_list if worker.object_uid not in busy]
    for uid in idle:
        server.add_consumer_for_service(service_name=pool.name, syft_worker_id=uid, address=ADDRESS)
    return len(idle)


def end_lost_jobs(server: Any) -> int:
    """Mark the jobs that were running when the node last ended as interrupted; returns how many.

    Nothing else would: whoever waits for one waits for ever. Call it before there are workers.
    """
    from syft.service.job.job_stash import JobStatus
    from syft.service.queue.queue_stash import Status
    from syft.service.response import SyftError

    key = server.verify_key
    lost = server.queue_stash.get_by_status(key, Status.PROCESSING).unwrap()
    for item in lost:
        item.status, item.resolved = Status.INTERRUPTED, True
        server.queue_stash.set_result(key, item).unwrap()
        job = server.job_stash.get_by_uid(key, item.job_id).unwrap()
        job.status, job.resolved = JobStatus.INTERRUPTED, True
        job.result = SyftError(message="The node was restarted while this job ran. Please run it again.")
        server.job_stash.set_result(key, job).unwrap()
    return len(lost)
