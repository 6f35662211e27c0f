"""What travels in the guest, what stays at home, and why. Data only.

A pattern is a shell pattern over paths without a leading slash, with /bin, /sbin and /lib merged
into /usr; `*` crosses slashes, and a pattern for a directory covers everything below it.
"""

from __future__ import annotations

from typing import NamedTuple

PYTHON = "usr/bin/python3.11"
PYTHON_VERSION = "3.11"
STDLIB = "usr/lib/python3.11"
SITE_PACKAGES = "usr/lib/python3/dist-packages"
LIBRARIES = "usr/lib/x86_64-linux-gnu"


class Package(NamedTuple):
    """A Debian package and the part of it that travels. `group` is its line in the sizes table."""

    name: str
    group: str
    reason: str
    take: tuple[str, ...] = ()
    """Patterns; with none it is a package of shared libraries, which travel if something that
    travels is linked against them."""
    links: tuple[tuple[str, str], ...] = ()
    """Links and their targets that the package's installation would make."""


class Omission(NamedTuple):
    """Files of the chosen packages and wheels that stay at home."""

    reason: str
    patterns: tuple[str, ...]
    but: tuple[str, ...] = ()
    """Patterns of what travels all the same."""


PACKAGES = (
    Package("python3.11-minimal", "python", "the interpreter", (PYTHON,)),
    Package(
        "libpython3.11-minimal",
        "stdlib",
        "what the interpreter needs to start",
        (f"{STDLIB}/*.py", f"{STDLIB}/*.so"),
    ),
    Package(
        "libpython3.11-stdlib",
        "stdlib",
        "the rest of the standard library",
        (f"{STDLIB}/*.py", f"{STDLIB}/*.so"),
    ),
    Package("crun", "crun", "the OCI runtime", ("usr/bin/crun",)),
    Package("bash", "bash", "ExecVMProcess and the debug shell", ("usr/bin/bash",)),
    Package("busybox", "busybox", "everyday commands, and modprobe for the kernel", ("usr/bin/*",)),
    Package("netbase", "other", "names of IP protocols", ("etc/protocols",)),
    Package(
        "ncurses-base",
        "other",
        "line editing in the debug shell",
        tuple(
            f"usr/lib/terminfo/{name[0]}/{name}"
            for name in ("dumb", "linux", "screen", "tmux", "vt100", "xterm", "xterm-256color")
        ),
    ),
    Package("libc6", "shared libraries", "everything"),
    Package("zlib1g", "shared libraries", "python"),
    Package("libexpat1", "shared libraries", "python, linked into the interpreter"),
    Package("libffi8", "shared libraries", "ctypes"),
    Package("libstdc++6", "shared libraries", "greenlet"),
    Package("libgcc-s1", "shared libraries", "greenlet"),
    Package("libtinfo6", "shared libraries", "bash"),
    Package("libcap2", "shared libraries", "crun"),
    Package("libseccomp2", "shared libraries", "crun"),
    Package("libyajl2", "shared libraries", "crun"),
    Package("libsystemd0", "shared libraries", "crun, for its systemd cgroup manager"),
    Package("libgcrypt20", "shared libraries", "libsystemd0"),
    Package("libgpg-error0", "shared libraries", "libgcrypt20"),
    Package("liblzma5", "shared libraries", "libsystemd0"),
    Package("libzstd1", "shared libraries", "libsystemd0"),
    Package("liblz4-1", "shared libraries", "libsystemd0"),
)

DEBUG_PACKAGES = (
    Package(
        "iproute2",
        "tools",
        "ip, ss, bridge, tc",
        ("usr/bin/ip", "usr/bin/ss", "usr/sbin/bridge", "usr/sbin/tc"),
    ),
    Package(
        "procps",
        "tools",
        "ps, top, free, vmstat and their like",
        (
            *(f"usr/bin/{name}" for name in ("free", "kill", "pgrep", "pkill", "pmap", "ps")),
            *("usr/bin/pwdx", "usr/bin/top", "usr/bin/uptime", "usr/bin/vmstat", "usr/bin/w"),
            "usr/sbin/sysctl",
        ),
    ),
    Package("mount", "tools", "mount, umount, losetup", ("usr/bin/*", "usr/sbin/losetup")),
    Package(
        "util-linux",
        "tools",
        "dmesg, lsblk, findmnt, nsenter, unshare",
        tuple(f"usr/bin/{name}" for name in ("dmesg", "lsblk", "findmnt", "nsenter", "unshare")),
    ),
    Package("curl", "tools", "HTTP; the guest has no certificates", ("usr/bin/curl",)),
    Package(
        "iptables",
        "tools",
        "packet filters, in both variants",
        ("usr/sbin/*tables*", "usr/sbin/xtables-*", f"{LIBRARIES}/xtables/*.so"),
        links=tuple(
            (f"usr/sbin/{family}tables{suffix}", "xtables-nft-multi")
            for family in ("ip", "ip6")
            for suffix in ("", "-save", "-restore")
        ),
    ),
    Package("strace", "tools", "what a process asks of the kernel", ("usr/bin/strace",)),
    *(
        Package(name, "tools", user)
        for user, names in {
            "ip, tc": ("libbpf1", "libelf1", "libmnl0", "libbsd0", "libmd0"),
            "ss": ("libtirpc3",),
            "ps": ("libproc2-0",),
            "mount": ("libmount1", "libblkid1", "libselinux1", "libpcre2-8-0"),
            "lsblk": ("libsmartcols1", "libudev1"),
            "iptables": (
                *("libxtables12", "libip4tc2", "libip6tc2", "libnftnl11"),
                *("libnetfilter-conntrack3", "libnfnetlink0"),
            ),
            "strace": ("libunwind8",),
            "curl": (
                *("libcurl4", "libnghttp2-14", "libidn2-0", "librtmp1", "libssh2-1", "libpsl5"),
                *("libssl3", "libldap-2.5-0", "libsasl2-2", "libbrotli1", "libunistring2"),
                *("libgnutls30", "libp11-kit0", "libtasn1-6", "libhogweed6", "libnettle8"),
                *("libgmp10", "libgssapi-krb5-2", "libkrb5-3", "libk5crypto3", "libkrb5support0"),
                *("libcom-err2", "libkeyutils1"),
            ),
        }.items()
        for name in names
    ),
)
"""What operators expect of a machine, in the flavour `debug`."""

FLAVOURS = {"default": PACKAGES, "debug": PACKAGES + DEBUG_PACKAGES}

KERNEL_PACKAGE = "linux-image-amd64"
"""Debian's kernel for every machine: the cloud variant has no 9p."""

KERNEL_SOURCE_PACKAGE = "linux-source-6.1"
"""What `make kernel` builds."""


def _stdlib(*names: str) -> tuple[str, ...]:
    return tuple(f"{STDLIB}/{name}" for name in names)


def _extensions(*names: str) -> tuple[str, ...]:
    return tuple(f"{STDLIB}/lib-dynload/{name}.cpython-*" for name in names)


def _wheels(*names: str) -> tuple[str, ...]:
    return tuple(f"{SITE_PACKAGES}/{name}" for name in names)


OMISSIONS = (
    Omission(
        "tests and test support",
        _stdlib("test", "unittest", "doctest.py", "__hello__.py", "__phello__")
        + _extensions("_test*", "_ctypes_test", "_xxtestfuzz", "_xxsubinterpreters", "xxlimited*")
        + _wheels(
            "*/tests",
            "gevent/testing",
            "google/protobuf/testdata",
            "click/testing.py",
        ),
    ),
    Omission(
        "sources, headers, typing marks and package metadata",
        _wheels(
            *(f"*.{end}" for end in ("c", "h", "cpp", "hpp")),
            "greenlet/platform",
            "*.dist-info",
            "*.data",
            "*/py.typed",
        ),
    ),
    Omission(
        "programs and packages for developers and desktops",
        _stdlib(
            *("distutils", "_distutils_system_mod.py", "venv", "compileall.py", "py_compile.py"),
            *("pydoc.py", "pydoc_data", "pdb.py", "bdb.py", "cmd.py", "profile.py", "cProfile.py"),
            *("pstats.py", "trace.py", "tabnanny.py", "pyclbr.py", "modulefinder.py", "timeit.py"),
            *("pickletools.py", "zipapp.py", "symtable.py", "turtle.py", "antigravity.py"),
            *("this.py", "webbrowser.py", "imp.py", "rlcompleter.py", "_sysconfigdata_*"),
            "sitecustomize.py",
        )
        + _extensions("_lsprof", "readline", "_curses*")
        + _stdlib("curses"),
    ),
    Omission(
        "mail, news, web and file formats that no part of the agent speaks",
        _stdlib(
            *("smtpd.py", "smtplib.py", "poplib.py", "imaplib.py", "nntplib.py", "ftplib.py"),
            *("telnetlib.py", "mailbox.py", "mailcap.py", "netrc.py", "cgi.py", "cgitb.py"),
            *("asyncore.py", "asynchat.py", "xmlrpc", "xml", "wsgiref", "html", "_markupbase.py"),
            *("aifc.py", "wave.py", "sunau.py", "chunk.py", "sndhdr.py", "imghdr.py", "uu.py"),
            *("colorsys.py", "xdrlib.py", "plistlib.py", "tarfile.py", "zoneinfo", "crypt.py"),
        )
        + _extensions("audioop", "ossaudiodev", "_zoneinfo", "_crypt", "nis"),
    ),
    Omission("databases", _stdlib("dbm", "shelve.py", "sqlite3") + _extensions("_dbm", "_sqlite3")),
    Omission(
        "asyncio and pools of processes: the agent's loop is gevent's",
        _stdlib("asyncio", "multiprocessing", "concurrent/futures/process.py")
        + _extensions("_asyncio", "_multiprocessing", "_posixshmem"),
    ),
    Omission(
        "OpenSSL: the agent speaks over vsock only, and hashlib has digests of its own",
        _stdlib("ssl.py") + _extensions("_ssl", "_hashlib") + _wheels("gevent/ssl.py"),
    ),
    Omission(
        "bzip2 and xz in Python; uuid does without libuuid",
        _stdlib("bz2.py", "lzma.py") + _extensions("_bz2", "_lzma", "_uuid"),
    ),
    Omission(
        "twins in Python of modules that are there in C, and modules of other systems",
        _stdlib(
            *("_pydecimal.py", "_pyio.py", "_aix_support.py", "_osx_support.py"),
            *("_bootsubprocess.py", "nturl2path.py"),
        )
        + _wheels("click/_winconsole.py", "gevent/win32util.py"),
    ),
    Omission(
        "codecs of national and historical character sets",
        _extensions("_codecs_*", "_multibytecodec")
        + _stdlib(
            *("encodings/cp[!4]*", "encodings/cp4[!3]*", "encodings/mac_*", "encodings/iso*"),
            *("encodings/koi8_*", "encodings/big5*", "encodings/euc_*", "encodings/gb*"),
            *("encodings/hz.py", "encodings/johab.py", "encodings/shift_jis*"),
            *("encodings/hp_roman8.py", "encodings/kz1048.py", "encodings/palmos.py"),
            *("encodings/ptcp154.py", "encodings/tis_620.py", "encodings/mbcs.py"),
            *("encodings/oem.py", "encodings/uu_codec.py", "encodings/rot_13.py"),
            *("encodings/bz2_codec.py", "encodings/quopri_codec.py"),
        ),
    ),
    Omission(
        "gevent's other event loops and resolvers, its web server and its interactive shell",
        _wheels(
            *("gevent/libuv", "gevent/_ffi", "gevent/libev/_corecffi*", "gevent/libev/corecffi.py"),
            *("gevent/libev/watcher.py", "gevent/resolver/ares.py", "gevent/resolver/cares.*"),
            *("gevent/resolver/dnspython.py", "gevent/resolver_ares.py", "gevent/ares.py"),
            *("gevent/pywsgi.py", "gevent/backdoor.py"),
        ),
    ),
    # Its __init__ imports all of it: without one it is a namespace package, which runs nothing.
    Omission(
        "pyroute2 but for its messages of links, addresses and routes",
        _wheels("pyroute2"),
        but=_wheels(
            *("pyroute2/common.py", "pyroute2/netlink/__init__.py"),
            *("pyroute2/netlink/exceptions.py", "pyroute2/netlink/rtnl/__init__.py"),
            *("pyroute2/netlink/rtnl/ifaddrmsg.py", "pyroute2/netlink/rtnl/rtmsg.py"),
        ),
    ),
    Omission("protobuf's compiler plug-in messages", _wheels("google/protobuf/compiler")),
    Omission("zope.interface, which a stand-in replaces", _wheels("zope/interface")),
)

IMPORTS = (
    *("gevent", "gevent.baseserver", "gevent.event", "gevent.fileobject", "gevent.libev.corecext"),
    *("gevent.local", "gevent.lock", "gevent.monkey", "gevent.os", "gevent.pool", "gevent.queue"),
    *("gevent.select", "gevent.server", "gevent.signal", "gevent.socket", "gevent.subprocess"),
    *("gevent.threadpool", "gevent.timeout", "greenlet"),
    *("google._upb._message", "google.protobuf.any_pb2", "google.protobuf.descriptor_pool"),
    *("google.protobuf.empty_pb2", "google.protobuf.json_format", "google.protobuf.message"),
    *("google.protobuf.text_format", "google.protobuf.timestamp_pb2"),
    *("click", "click.shell_completion", "ptyprocess"),
    *("argparse", "base64", "configparser", "ctypes", "ctypes.util", "datetime"),
    *("decimal", "email.message", "gzip", "hashlib", "hmac", "http.client", "json", "logging"),
    *("logging.handlers", "random", "resource", "secrets", "shutil", "socket", "socketserver"),
    *("subprocess", "tempfile", "termios", "tomllib", "tracemalloc", "urllib.request"),
    *("uuid", "zipfile"),
)
"""What the guest's interpreter must be able to import; proven in a chroot at every build."""
