"""Makes a job's process give up files, network, processes and memory for good, by means of the kernel.

Only Linux has the first three: Landlock (since 5.13) for files, seccomp for system calls. Every user may use
both, and a process can't undo them. Elsewhere only the limits of `setrlimit` apply. Standard library only.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import resource
import signal
import struct
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

LINUX = sys.platform == "linux"
OPEN_FILES = 256
WAITING_SIGNALS = 1024

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS, PR_SET_CHILD_SUBREAPER = 1, 4, 38, 36
PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
PR_SCHED_CORE = 62
"""From Linux's <linux/prctl.h> and <linux/seccomp.h>."""

if LINUX:
    _libc = ctypes.CDLL(None, use_errno=True)


class Unconfined(OSError):
    """A limit could not be set, so nothing may run."""


def prctl(option: int, value: int = 0, more: object = 0) -> None:
    """Call prctl(2).

    Raises:
        Unconfined: the kernel refused.
    """
    if _libc.prctl(option, ctypes.c_ulong(value), more, ctypes.c_ulong(0), ctypes.c_ulong(0)):
        raise Unconfined(ctypes.get_errno(), f"prctl {option}")


def hide() -> None:
    """Prevent this user's other processes from tracing this one (ptrace(2)).

    They can't read its memory or open files either.
    """
    if LINUX:
        prctl(PR_SET_DUMPABLE, 0)


def drop_rights() -> None:
    """Drop root's special rights: if the node runs as root, no job has them."""
    if LINUX:
        # Version 3 of the call (capset(2)), with no right in any of the three sets.
        head, nothing = struct.pack("=Ii", 0x20080522, 0), bytes(24)
        if _libc.capset(head, nothing):
            raise Unconfined(ctypes.get_errno(), "capset")


def end_first() -> None:
    """Make this process the first one to end if the machine, or this container, runs out of memory."""
    if LINUX:
        # While a process is hidden, only root may write this file.
        prctl(PR_SET_DUMPABLE, 1)
        with contextlib.suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text("1000")
        hide()


def adopt() -> None:
    """Become the parent of every process that a job leaves behind."""
    if LINUX:
        prctl(PR_SET_CHILD_SUBREAPER, 1)


def end_with_parent() -> None:
    """End this process when its parent ends."""
    if LINUX:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def limit(memory: int) -> None:
    """Limit memory, files and core dumps, and lower this process's priority.

    Args:
        memory: bytes in addition to what the process already has.
    """
    used = _used()
    for name in ("RLIMIT_AS", "RLIMIT_DATA"):
        # RLIMIT_AS counts shared memory too. RLIMIT_DATA does not count what is only reserved, as threads do.
        room = used + memory * (2 if name == "RLIMIT_AS" else 1)
        _set(getattr(resource, name), room)
    _set(resource.RLIMIT_CORE, 0)
    _set(resource.RLIMIT_FSIZE, memory)
    _set(resource.RLIMIT_NOFILE, OPEN_FILES)
    if LINUX:
        # Signals are counted for all of a user's processes together. This limit on a job does not affect
        # others.
        _set(resource.RLIMIT_SIGPENDING, WAITING_SIGNALS)
    with contextlib.suppress(OSError):
        os.nice(5)


def _set(which: int, wanted: int) -> None:
    _, hard = resource.getrlimit(which)
    value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    with contextlib.suppress(OSError, ValueError):
        # Not every system has every limit.
        resource.setrlimit(which, (value, value))


def _used() -> int:
    if not LINUX:
        return 0
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


# Files.

_CREATE, _ADD, _RESTRICT = 444, 445, 446
"""landlock_create_ruleset, landlock_add_rule, landlock_restrict_self; the same on every processor."""
_EXECUTE, _READ_FILE, _READ_DIR, _WRITE_FILE, _TRUNCATE, _DEVICE = 1, 4, 8, 2, 1 << 14, 1 << 15
_ALL = ((1, 0x1FFF), (2, 1 << 13), (3, _TRUNCATE), (5, _DEVICE))
"""The rights to files and folders that each version of Landlock added."""
_NETWORK, _SCOPES = 3, 3
"""Binding and connecting (version 4); abstract sockets and signals of other processes (version 6)."""

SYSTEM = (
    *("/usr", "/bin", "/lib", "/lib64", "/sbin", "/proc", "/sys/devices/system/cpu"),
    *("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/localtime", "/etc/timezone", "/etc/nsswitch.conf"),
    *("/etc/passwd", "/etc/group", "/etc/mime.types", "/etc/os-release", "/etc/fonts", "/etc/alternatives"),
    *("/dev/urandom", "/dev/random", "/dev/zero"),
)
"""What programs read of a system. None of it is secret, and some of it may not exist."""
NULL = "/dev/null"


def landlock() -> int:
    """Return the version of Landlock that this process can use; 0 for none."""
    if not LINUX:
        return 0
    return max(0, int(_libc.syscall(_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(1))))


def confine_files(readable: Iterable[Path], writable: Path) -> None:
    """Restrict this process to these files, and to those that it has open.

    Landlock has no right for changes of a file's mode or times: see `SILENT`.

    Raises:
        Unconfined: the kernel refused.
    """
    version = landlock()
    every = 0
    for since, rights in _ALL:
        every |= rights if version >= since else 0
    fields = [every, _NETWORK if version >= 4 else 0, _SCOPES if version >= 6 else 0]
    told = struct.pack("=QQQ", *fields)[: 8 * (1 + (version >= 4) + (version >= 6))]
    rules = _call(_CREATE, told, ctypes.c_size_t(len(told)), ctypes.c_uint32(0))
    reading = _EXECUTE | _READ_FILE | _READ_DIR
    rows = [
        *((path, reading) for path in readable),
        (Path(NULL), _READ_FILE | _WRITE_FILE),
        (writable, every),
    ]
    for path, rights in rows:
        try:
            where = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            # The path does not exist, or this user can't open it either.
            continue
        if not path.is_dir():
            rights &= _EXECUTE | _READ_FILE | _WRITE_FILE | _TRUNCATE | _DEVICE
        rule = struct.pack("=Qi", rights & every, where)
        try:
            _call(_ADD, ctypes.c_int(rules), ctypes.c_int(1), rule, ctypes.c_uint32(0))
        finally:
            os.close(where)
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    _call(_RESTRICT, ctypes.c_int(rules), ctypes.c_uint32(0))
    os.close(rules)


def _call(number: int, *words: object) -> int:
    made = _libc.syscall(number, *words)
    if made < 0:
        raise Unconfined(ctypes.get_errno(), f"system call {number}")
    return int(made)


# System calls.


@dataclass(frozen=True)
class _Machine:
    """A processor: its name in seccomp, and the column of its system call numbers in `_NUMBERS`."""

    audit: int
    column: int


_MACHINES = {"x86_64": _Machine(0xC000003E, 0), "aarch64": _Machine(0xC00000B7, 1)}

NOT_A_NUMBER = -1

_NUMBERS: dict[str, tuple[int, int]] = {
    # Name: its number on x86_64 and on aarch64 (Linux's <asm/unistd_64.h>, <asm-generic/unistd.h>).
    "socket": (41, 198), "connect": (42, 203), "bind": (49, 200), "listen": (50, 201),
    "accept": (43, 202), "accept4": (288, 242), "socketpair": (53, 199),
    "fork": (57, NOT_A_NUMBER), "vfork": (58, NOT_A_NUMBER), "clone": (56, 220), "clone3": (435, 435),
    "execve": (59, 221), "execveat": (322, 281),
    "kill": (62, 129), "tkill": (200, 130), "tgkill": (234, 131), "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240), "pidfd_open": (434, 434), "pidfd_send_signal": (424, 424),
    "pidfd_getfd": (438, 438), "prlimit64": (302, 261), "ptrace": (101, 117), "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271), "process_madvise": (440, 440), "process_mrelease": (448, 448),
    "sched_setaffinity": (203, 122), "sched_setscheduler": (144, 119), "sched_setparam": (142, 118),
    "sched_setattr": (314, 274), "get_robust_list": (274, 100), "prctl": (157, 167), "fcntl": (72, 25),
    "ioctl": (16, 29),
    "kcmp": (312, 272), "migrate_pages": (256, 238), "move_pages": (279, 239),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51),
    "unshare": (272, 97), "setns": (308, 268), "open_tree": (428, 428), "move_mount": (429, 429),
    "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433),
    "mount_setattr": (442, 442), "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265),
    "open_tree_attr": (467, 467), "file_setattr": (469, 469), "truncate": (76, 45),
    "inotify_init": (253, NOT_A_NUMBER), "inotify_init1": (294, 26), "io_setup": (206, 0),
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "keyctl": (250, 219),
    "add_key": (248, 217), "request_key": (249, 218), "personality": (135, 92), "acct": (163, 89),
    "swapon": (167, 224), "swapoff": (168, 225), "reboot": (169, 142), "kexec_load": (246, 104),
    "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106), "syslog": (103, 116),
    "kexec_file_load": (320, 294), "iopl": (172, NOT_A_NUMBER), "ioperm": (173, NOT_A_NUMBER),
    "lsm_set_self_attr": (460, 460), "clock_adjtime": (305, 266), "quotactl_fd": (443, 443),
    "quotactl": (179, 60), "settimeofday": (164, 170), "clock_settime": (227, 112), "adjtimex": (159, 171),
    "sethostname": (170, 161), "setdomainname": (171, 162), "vhangup": (153, 58), "fanotify_init": (300, 262),
    "setuid": (105, 146), "setgid": (106, 144), "setreuid": (113, 145), "setregid": (114, 143),
    "setresuid": (117, 147), "setresgid": (119, 149), "setgroups": (116, 159), "capset": (126, 91),
    "setsid": (112, 157), "setpgid": (109, 154), "setpriority": (141, 140), "ioprio_set": (251, 30),
    "shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195), "semget": (64, 190), "semctl": (66, 191),
    "semop": (65, 193), "semtimedop": (220, 192), "msgget": (68, 186), "msgctl": (71, 187),
    "msgsnd": (69, 189), "msgrcv": (70, 188), "mq_open": (240, 180), "mq_unlink": (241, 181),
    "memfd_create": (319, 279), "memfd_secret": (447, 447),
    "mknodat": (259, 33), "mknod": (133, NOT_A_NUMBER),
    "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7), "setxattrat": (463, 463),
    "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16),
    "removexattrat": (466, 466),
    "chmod": (90, NOT_A_NUMBER), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452),
    "chown": (92, NOT_A_NUMBER), "fchown": (93, 55), "lchown": (94, NOT_A_NUMBER), "fchownat": (260, 54),
    "utime": (132, NOT_A_NUMBER), "utimes": (235, NOT_A_NUMBER), "futimesat": (261, NOT_A_NUMBER),
    "utimensat": (280, 88),
}  # fmt: skip

NETWORK = ("socket", "connect", "bind", "listen", "accept", "accept4")
"""These fail as without a network, other refused calls with EPERM: the error shows what the code tried."""
SILENT = (
    *("chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "fchown", "lchown", "fchownat"),
    *("utime", "utimes", "futimesat", "utimensat"),
)
"""These do nothing and report success: programs that copy files call them too, and need no effect."""
OF_ITSELF = ("kill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo")
"""Allowed only for the process itself, which is the first argument of each."""
OF_ITSELF_OR_0 = ("prlimit64", "sched_setaffinity")
"""The same; 0 means the process itself, or the calling thread."""
COMMANDS = {
    "ioctl": (
        *(0x5401, 0x802C542A),  # TCGETS, TCGETS2: whether it is a terminal
        *(0x540F, 0x5413),  # TIOCGPGRP, TIOCGWINSZ
        *(0x541B, 0x5421, 0x5450, 0x5451),  # FIONREAD, FIONBIO, FIONCLEX, FIOCLEX
    ),
    "fcntl": (
        *(0, 1, 2, 3, 4, 1030),  # F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC
        *(5, 6, 7, 36, 37, 38),  # F_GETLK, F_SETLK, F_SETLKW, and the same with F_OFD_
        *(1027, 1028, 1032, 1034),  # F_DUPFD_QUERY, F_CREATED_QUERY, F_GETPIPE_SZ, F_GET_SEALS
    ),
}
"""What is allowed with an open file, by the second argument. All else is refused: some of it signals other
processes (F_SETOWN), blocks whoever opens a file (F_SETLEASE), or changes read-only files (FS_IOC_SETFLAGS).
"""
NO_PRCTL = (PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SCHED_CORE)
"""Refused by the first argument: outliving the service, a dump in a crash, reaching other processes."""
SPECIAL = (*OF_ITSELF, *OF_ITSELF_OR_0, *COMMANDS, "prctl", "clone", "clone3", "socketpair")

_LOAD, _IF_EQUAL, _IF_SET, _IF_LEAST, _RETURN, _AND = 0x20, 0x15, 0x45, 0x35, 0x06, 0x54
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_CLONE_THREAD = 0x10000
_OTHER_TABLE = 0x40000000
"""The first number of x86_64's second table, x32."""
_NUMBER_AT, _MACHINE_AT, _WORDS_AT = 0, 4, 16


def seccomp() -> bool:
    """Return whether system calls can be refused here."""
    return LINUX and platform.machine() in _MACHINES and struct.calcsize("P") == 8


def confine_calls() -> None:
    """Refuse this process, for good, what code does not need: the network, other processes, the system.

    Call it in the process itself: the filter contains its pid.

    Raises:
        Unconfined: the kernel refused.
    """
    program = _filter(_MACHINES[platform.machine()], os.getpid())
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in program))
    head = ctypes.create_string_buffer(struct.pack("@HP", len(program), ctypes.addressof(code)))
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, head)


Line = tuple[int, int, int, int]


def _filter(machine: _Machine, own: int) -> Sequence[Line]:
    """Return the filter, an instruction each (seccomp(2)).

    An instruction is a code, how many instructions to skip if true and if false, and a number.
    """
    no, denied = _ERRNO | errno.EPERM, _ERRNO | errno.ENETUNREACH

    def number(name: str) -> int:
        return _NUMBERS[name][machine.column]

    def refuse(name: str, how: int) -> list[Line]:
        if number(name) == NOT_A_NUMBER:
            return []
        return [(_IF_EQUAL, 0, 1, number(name)), (_RETURN, 0, 0, how)]

    def unless(name: str, inner: list[Line]) -> list[Line]:
        """Return instructions for one call; `inner` decides its result."""
        return [(_IF_EQUAL, 0, len(inner), number(name)), *inner]

    def by_word(name: str, word: int, among: Sequence[int], so: int, otherwise: int) -> list[Line]:
        """Return instructions for one call that test if its argument `word` is in `among`.

        The kernel uses only 32 bits of each such argument.
        """
        tests = [(_IF_EQUAL, len(among) - at, 0, one) for at, one in enumerate(among)]
        load = (_LOAD, 0, 0, _WORDS_AT + 8 * word)
        return unless(name, [load, *tests, (_RETURN, 0, 0, otherwise), (_RETURN, 0, 0, so)])

    special: list[Line] = [
        # Threads are allowed, processes are not. The filter can't see the flags of `clone3`, so libraries get
        # an error and use `clone`.
        *unless(
            "clone",
            [
                (_LOAD, 0, 0, _WORDS_AT),
                (_IF_SET, 1, 0, _CLONE_THREAD),
                (_RETURN, 0, 0, no),
                (_RETURN, 0, 0, _ALLOW),
            ],
        ),
        *refuse("clone3", _ERRNO | errno.ENOSYS),
        # Allow only pairs of sockets that both belong to the process. A datagram socket could send elsewhere.
        # For another family than AF_UNIX the kernel might load a driver.
        *unless(
            "socketpair",
            [
                *((_LOAD, 0, 0, _WORDS_AT), (_IF_EQUAL, 0, 3, 1)),
                *((_LOAD, 0, 0, _WORDS_AT + 8), (_AND, 0, 0, 0xFF), (_IF_EQUAL, 1, 0, 1)),
                *((_RETURN, 0, 0, denied), (_RETURN, 0, 0, _ALLOW)),
            ],
        ),
        *(line for name in OF_ITSELF for line in by_word(name, 0, (own,), _ALLOW, no)),
        *(line for name in OF_ITSELF_OR_0 for line in by_word(name, 0, (0, own), _ALLOW, no)),
        *(line for name, known in COMMANDS.items() for line in by_word(name, 1, known, _ALLOW, no)),
        *by_word("prctl", 0, NO_PRCTL, no, _ALLOW),
    ]
    named = {*NETWORK, *SILENT, *SPECIAL}
    return [
        *((_LOAD, 0, 0, _MACHINE_AT), (_IF_EQUAL, 1, 0, machine.audit), (_RETURN, 0, 0, _KILL)),
        (_LOAD, 0, 0, _NUMBER_AT),
        *([(_IF_LEAST, 0, 1, _OTHER_TABLE), (_RETURN, 0, 0, _KILL)] if machine.column == 0 else []),
        *special,
        *(line for name in NETWORK for line in refuse(name, denied)),
        *(line for name in SILENT for line in refuse(name, _ERRNO)),
        *(line for name in _NUMBERS if name not in named for line in refuse(name, no)),
        (_RETURN, 0, 0, _ALLOW),
    ]
