"""Moves syft's message queue from all addresses of the machine to a socket in the node's folder.

syft binds `tcp://*` and accepts every client as a worker; the messages to workers contain the
node's signing key. A port on the loopback would still be open to every user of the machine;
a socket in a folder with mode 0700 is not. Producer and workers run in one process, so no other
process has to know the address.
"""

from __future__ import annotations

from typing import Any

SOCKET = "run/queue"
"""Relative to the node's folder, which is the process's working directory: see `serve`."""
ADDRESS = f"ipc://{SOCKET}"


def bind_to_unix_socket() -> None:
    """Make every producer bind to `ADDRESS` and every worker connect to it. Call it before creating a server.

    Raises:
        AttributeError: this syft version has no such queue.
    """
    from syft.service.queue.zmq_client import ZMQClient
    from syft.service.queue.zmq_producer import ZMQProducer

    bind, add_consumer = ZMQProducer.bind, ZMQClient.add_consumer

    def bind_here(self: Any, _endpoint: str) -> None:
        bind(self, ADDRESS)

    def add_consumer_here(self: Any, *args: Any, **kwargs: Any) -> Any:
        # Every caller in syft passes the address by keyword (`QueueManager.create_consumer`).
        return add_consumer(self, *args, **{**kwargs, "address": ADDRESS})

    ZMQProducer.bind = bind_here
    ZMQClient.add_consumer = add_consumer_here
    ZMQProducer.address = property(lambda _self: ADDRESS)


def attach_workers(server: Any) -> int:
    """Start a consumer for each worker of the default pool that has none. Returns how many.

    syft creates the pool's consumers when it creates the pool. After a restart it starts the consumers of all
    pools except the default one (`Server.start_in_memory_workers`). So the workers of the default pool would
    stay DETACHED, and jobs sent to it would wait forever.
    """
    pool = server.get_default_worker_pool().unwrap()
    busy = {consumer.syft_worker_id for row in server.queue_manager.consumers.values() for consumer in row}
    idle = [worker.object_uid for worker in pool.worker_list if worker.object_uid not in busy]
    for uid in idle:
        server.add_consumer_for_service(service_name=pool.name, syft_worker_id=uid, address=ADDRESS)
    return len(idle)


def end_lost_jobs(server: Any) -> int:
    """Mark the jobs that were running when the node last ended as interrupted. Returns how many.

    syft does not do this, so clients would wait for such a job forever. Call it before there are workers.
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
