"""The guest agent of a Kuasar microVM: the first process, and the one that containerd talks to."""

__version__ = "0.1.0"
