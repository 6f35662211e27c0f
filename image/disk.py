"""kuasar.img: one raw disk that boots as a virtio disk and as persistent memory.

       0   master boot record: one partition, at 3 MiB
    4 KiB  information block of the kernel's NVDIMM driver (struct nd_pfn_sb, drivers/nvdimm/pfn.h):
           the namespace's data starts at 2 MiB
    2 MiB  master boot record of that data: the same partition, at 1 MiB from here
    3 MiB  ext4, up to the end

A virtio disk starts with the first record (/dev/vda1). The NVDIMM driver finds the information
block and shows the data at 2 MiB as the disk (/dev/pmem0p1). Both lead to the same file system. The
size is a multiple of 128 MiB: hypervisors map it into memory in sections of that size.
"""

from __future__ import annotations

import os
import struct
import tempfile
from pathlib import Path

from image.files import run
from image.tree import Tree

MIB = 1 << 20
SECTOR = 512
BLOCK = 4096
HEADER = 2 * MIB
ROOT = 3 * MIB
MULTIPLE = 128 * MIB

UUID = "6b756173-6172-4167-a56e-740000000001"
_HASH_SEED = "6b756173-6172-4167-a56e-740000000002"
_INFO_AT = 4096
_INFO_UUID = bytes.fromhex(UUID.replace("-", ""))
_MODE_RAM = 1  # the driver's page structs live in ordinary memory, not on the device
_LINUX_PARTITION = 0x83
# mke2fs and debugfs take this for now; zero would mean "no time given".
_ENVIRONMENT = {**os.environ, "LC_ALL": "C", "E2FSPROGS_FAKE_TIME": "1"}
_FIRST_FILE = 11
"""The first inode that is not reserved (ext4's s_first_ino): lost+found."""


def write(tree: Tree, place: Path) -> None:
    """Write the disk; equal trees give equal disks.

    Raises:
        BuildError: mke2fs is missing or fails, as it does without space.
    """
    content = sum(-(-len(node.data) // BLOCK) * BLOCK for node in tree.nodes.values())
    # A sixteenth for inode tables, and the 4 MiB of the smallest journal, which the mount option
    # data=ordered of Kuasar's command line asks for.
    needed = ROOT + content + content // 16 + 8 * MIB
    size = -(-needed // MULTIPLE) * MULTIPLE
    with place.open("wb") as disk:
        disk.truncate(size)
        disk.write(boot_record(ROOT, size - ROOT))
        disk.seek(_INFO_AT)
        disk.write(information_block(size))
        disk.seek(HEADER)
        disk.write(boot_record(ROOT - HEADER, size - ROOT))
    _make_file_system(tree, place, size - ROOT)


def boot_record(start: int, length: int) -> bytes:
    """Return a master boot record with one Linux partition, without code and CHS addresses."""
    unused = b"\xfe\xff\xff"
    entry = struct.pack(
        "<B3sB3sII", 0, unused, _LINUX_PARTITION, unused, start // SECTOR, length // SECTOR
    )
    # The four bytes of the disk's signature appear in PARTUUID=.
    return b"".join([bytes(440), b"kuas", bytes(2), entry, bytes(3 * 16), b"\x55\xaa"])


def information_block(size: int) -> bytes:
    """Return the block of a namespace of this size, as `ndctl create-namespace -m fsdax` has it."""
    block = struct.pack(
        "<16s16s16sIHHQQIIIIIH",
        b"NVDIMM_PFN_INFO",
        _INFO_UUID,
        bytes(16),  # the parent's UUID: a namespace without labels has none
        0,  # flags
        1,  # version 1.4
        4,
        HEADER,  # dataoff
        (size - HEADER) // BLOCK,  # npfns
        _MODE_RAM,
        0,  # start_pad
        0,  # end_trunc
        HEADER,  # align: huge pages
        BLOCK,  # page_size
        64,  # page_struct_size
    )
    block = block.ljust(BLOCK - 8, b"\0")
    return block + struct.pack("<Q", fletcher64(block + bytes(8)))


def fletcher64(data: bytes) -> int:
    """Return the NVDIMM driver's checksum (nd_fletcher64) over little-endian 32-bit words."""
    low = high = 0
    for (word,) in struct.iter_unpack("<I", data):
        low = (low + word) & 0xFFFFFFFF
        high += low
    return (high & 0xFFFFFFFF) << 32 | low


def _make_file_system(tree: Tree, place: Path, size: int) -> None:
    with tempfile.TemporaryDirectory(prefix="kuasar-image-") as scratch:
        root = Path(scratch) / "root"
        root.mkdir(mode=0o755)
        tree.write_to(root)
        for path in (root, *root.rglob("*")):
            os.utime(path, (0, 0), follow_symlinks=False)
        command: list[str | Path] = [
            "mke2fs",
            "-q",
            "-F",
            "-t",
            "ext4",
            "-b",
            str(BLOCK),
            "-L",
            "kuasar",
            "-U",
            UUID,
        ]
        # No space is reserved for root: the guest mounts the disk read-only.
        command += ["-m", "0", "-O", "^resize_inode", "-d", root, "-E"]
        command += [f"offset={ROOT},hash_seed={_HASH_SEED},root_owner=0:0"]
        run([*command, place, f"{size // 1024}k"], env=_ENVIRONMENT)
    _forget_change_times(place, len(tree.nodes))


def _forget_change_times(place: Path, nodes: int) -> None:
    """Zero each file's ctime: mke2fs copies it, and no system call can set it beforehand."""
    inodes = [2, *range(_FIRST_FILE, _FIRST_FILE + nodes + 1)]
    commands = "".join(f"set_inode_field <{inode}> ctime 0\n" for inode in inodes)
    run(
        ["debugfs", "-w", "-f", "-", f"{place}?offset={ROOT}"],
        env=_ENVIRONMENT,
        stdin=commands.encode(),
    )
