"""A vhost-user virtio-vsock device, seen from the host as one "hybrid vsock" unix socket.

Cloud Hypervisor's and Firecracker's convention: a client connects to the socket, writes
`CONNECT <port>\\n`, reads `OK <host port>\\n` and then talks to the guest. A connection that the
guest opens to port P of the host arrives at the unix socket `<socket>_<P>`.
"""
