"""Library for hosts: boots microVMs with the guest agent, finds them and talks to them.

    microvm     MicroVM.boot(Config) boots QEMU and returns once the agent answers
    config      Config, with RootDisk, Disk, Nic and Share: everything that a boot can be told
    sandbox     Sandbox, a running microVM seen through its directory; is_running(), stop()
    sandboxes   sandbox directories by id or by a prefix of it, Kuasar's own among them
    address     GuestAddress: vsock, hvsock and unix addresses; connections and ttrpc clients
    hotplug     HotPlug: adds disks and network cards to a running microVM and removes them
    bundle      make_bundle(): an OCI bundle in the shared directory
    timeline    read(): where the time of a boot went
    qmp         Qmp, QEMU's monitor
    services    the agent's ports, and descriptors of its RPC services for `client.stub()`

Errors are `HostError`, apart from OSError of files and connections and StatusError of calls. The
library prints nothing and ends no process that it did not start. It waits on gevent's hub, and
never blocks it for long: a program that uses it waits with gevent as well, or runs it in a thread
of its own.

    with MicroVM.boot(Config(Path("/run/vm1"), kernel, [initrd])) as vm, vm.connect() as client:
        client.stub(services.TASK).create(task_pb2.CreateTaskRequest(id="c1"))

`python -m kuasar_host.vsock` is the vhost-user back end of the guest's vsock, a process of its own;
this module therefore imports nothing.
"""
