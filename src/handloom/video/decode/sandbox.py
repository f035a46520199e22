"""What a decoding process may do: read its one file, use its socket, compute. Linux, without root.

Three layers, which the process applies to itself and cannot remove: capabilities are dropped (only root has any),
Landlock allows the reading of one file, and a seccomp filter allows the system calls that decoding needs: no new
socket, no program, no signal to another process.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import signal
import struct
from dataclasses import dataclass

_libc = ctypes.CDLL(None, use_errno=True)

FILES, CALLS = "files", "calls"
LAYERS = {FILES: "read access to the video alone (Landlock)", CALLS: "no network, no programs (seccomp)"}
"""The layers that `resources.decode_sandbox = "required"` requires. Root's capabilities are dropped as well."""

PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 22, 38
SECCOMP_MODE_FILTER = 2
SYS_CAPSET = {"x86_64": 126, "aarch64": 91}
SYS_SECCOMP = {"x86_64": 317, "aarch64": 277}
SYS_LANDLOCK_CREATE_RULESET, SYS_LANDLOCK_ADD_RULE, SYS_LANDLOCK_RESTRICT_SELF = 444, 445, 446
CAPABILITY_VERSION_3 = 0x20080522
CAP_DAC_READ_SEARCH = 2  # lets root read other users' files; Landlock limits it to one
READ_FILE = 1 << 2
# Rights that Landlock controls, by its version: on files, on TCP ports, and on other processes (sockets, signals).
FILE_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}
TCP_RIGHTS = 0b11
SCOPES = 0b11


@dataclass(frozen=True)
class Support:
    """What this kernel offers. landlock: its version, 0 for none. seccomp: whether filters can be set."""

    landlock: int
    seccomp: bool

    @property
    def layers(self) -> tuple[str, ...]:
        return ((FILES,) if self.landlock else ()) + ((CALLS,) if self.seccomp else ())


def support() -> Support:
    """Query the kernel; changes nothing."""
    machine = platform.machine()
    if platform.system() != "Linux" or machine != "x86_64":  # the filter below has the call numbers of x86-64 only
        return Support(max(_syscall(SYS_LANDLOCK_CREATE_RULESET, None, 0, 1), 0) if machine == "aarch64" else 0, False)
    action = ctypes.c_uint32(SECCOMP_RET_ERRNO)
    seccomp = _syscall(SYS_SECCOMP[machine], 2, 0, ctypes.byref(action)) == 0  # 2: is this action available
    return Support(max(_syscall(SYS_LANDLOCK_CREATE_RULESET, None, 0, 1), 0), seccomp)


def lock(file_fd: int, found: Support) -> tuple[str, ...]:
    """Give up all rights except to read the file of `file_fd`. The process must have one thread. Returns active layers.

    A layer that the kernel refuses is left out: a caller that requires it must check the result.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    _drop_capabilities()
    end_with_parent()  # again: a change of capabilities resets it
    if _prctl(PR_SET_NO_NEW_PRIVS, 1) != 0:
        return ()
    layers = (FILES,) if found.landlock and _landlock(file_fd, found.landlock) else ()
    return layers + ((CALLS,) if found.seccomp and _seccomp() else ())


def end_with_parent() -> None:
    """Have the kernel kill this process when the thread that forked it ends."""
    if platform.system() == "Linux":
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _drop_capabilities() -> None:
    number = SYS_CAPSET.get(platform.machine())
    if number is None or os.geteuid() != 0:
        return
    kept = 1 << CAP_DAC_READ_SEARCH
    header = ctypes.create_string_buffer(struct.pack("=Ii", CAPABILITY_VERSION_3, 0))
    for mask in (kept, 0):  # a container without CAP_DAC_READ_SEARCH refuses the first
        sets = ctypes.create_string_buffer(struct.pack("=6I", mask, mask, 0, 0, 0, 0))
        if _syscall(number, header, sets) == 0:
            return


def _landlock(file_fd: int, version: int) -> bool:
    files = FILE_RIGHTS[min(version, max(FILE_RIGHTS))]
    attributes = struct.pack("=QQQ", files, TCP_RIGHTS, SCOPES)[: 8 if version < 4 else 16 if version < 6 else 24]
    ruleset = _syscall(SYS_LANDLOCK_CREATE_RULESET, attributes, len(attributes), 0)
    if ruleset < 0:
        return False
    try:
        rule = struct.pack("=Qi", READ_FILE, file_fd)
        if _syscall(SYS_LANDLOCK_ADD_RULE, ruleset, 1, rule, 0) != 0:  # 1: files beneath a path
            return False
        return _syscall(SYS_LANDLOCK_RESTRICT_SELF, ruleset, 0) == 0
    finally:
        os.close(ruleset)


def _syscall(number: int, *arguments: object) -> int:
    """The system call's result; -1 for an error."""
    full = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return _libc.syscall(ctypes.c_long(number), *full)


def _prctl(option: int, value: int, more: object = 0) -> int:
    return _libc.prctl(option, ctypes.c_ulong(value), more, ctypes.c_ulong(0), ctypes.c_ulong(0))


# The filter: a program of classic BPF on (call number, processor, instruction pointer, six arguments).
SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_ERRNO, SECCOMP_RET_ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
AUDIT_ARCH_X86_64 = 0xC000003E
LOAD, IF_EQUAL, IF_AT_LEAST, IF_ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
EPERM, ENOSYS = 1, 38
FIRST_NEW_CALL = 424  # glibc tries newer calls first, and falls back on ENOSYS
WRITING = 0x3 | 0x40 | 0x200 | 0x400000  # open's flags: access other than reading, create, truncate, nameless file
CLONE_THREAD = 0x10000
PR_SET_NAME = 15
F_GETLK = 5

# x86-64. Traced on PyAV 18, decord 0.6 and OpenCV 4.11, with threads that start and end; then what glibc also calls on
# other kernels. Names and sizes of other files can be read (stat), their content cannot.
ALLOWED = {
    "read": 0, "write": 1, "close": 3, "stat": 4, "fstat": 5, "lstat": 6, "poll": 7, "lseek": 8, "mmap": 9,
    "mprotect": 10, "munmap": 11, "brk": 12, "rt_sigaction": 13, "rt_sigprocmask": 14, "rt_sigreturn": 15,
    "pread64": 17, "readv": 19, "writev": 20, "access": 21, "sched_yield": 24, "mremap": 25, "madvise": 28,
    "nanosleep": 35, "getpid": 39, "sendto": 44, "recvfrom": 45, "exit": 60, "uname": 63,
    "gettimeofday": 96, "getrusage": 98, "times": 100, "getuid": 102, "getgid": 104, "geteuid": 107, "getegid": 108,
    "getppid": 110, "sigaltstack": 131, "gettid": 186, "futex": 202, "sched_getaffinity": 204, "restart_syscall": 219,
    "clock_gettime": 228, "clock_getres": 229, "clock_nanosleep": 230, "exit_group": 231, "newfstatat": 262,
    "set_robust_list": 273, "getcpu": 309, "getrandom": 318, "membarrier": 324, "statx": 332, "rseq": 334,
}  # fmt: skip
OPEN, OPENAT, CLONE, FCNTL, PRCTL, TGKILL, PRLIMIT64 = 2, 257, 56, 72, 157, 234, 302


def _seccomp() -> bool:
    program = _program(os.getpid())
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in program))

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]

    whole = Program(len(program), ctypes.addressof(code))
    return _prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(whole)) == 0


def _program(pid: int) -> list[tuple[int, int, int, int]]:
    """Steps (code, steps to skip where true, where false, value)."""
    refuse, allow = (RETURN, 0, 0, SECCOMP_RET_ERRNO | EPERM), (RETURN, 0, 0, SECCOMP_RET_ALLOW)
    steps = [
        (LOAD, 0, 0, 4),  # the architecture
        (IF_EQUAL, 1, 0, AUDIT_ARCH_X86_64),
        (RETURN, 0, 0, SECCOMP_RET_KILL_PROCESS),  # 32-bit calls have other numbers
        (LOAD, 0, 0, 0),  # the call's number
        (IF_AT_LEAST, 0, 1, FIRST_NEW_CALL),
        (RETURN, 0, 0, SECCOMP_RET_ERRNO | ENOSYS),
    ]
    for number in ALLOWED.values():
        steps += [(IF_EQUAL, 0, 1, number), allow]

    def where(number: int, argument: int, test: int, value: int, then: tuple, otherwise: tuple) -> None:
        low_half = (LOAD, 0, 0, 16 + 8 * argument)
        steps.extend([(IF_EQUAL, 0, 4, number), low_half, (test, 0, 1, value), then, otherwise])

    where(OPEN, 1, IF_ANY_BIT, WRITING, refuse, allow)
    where(OPENAT, 2, IF_ANY_BIT, WRITING, refuse, allow)
    where(CLONE, 0, IF_ANY_BIT, CLONE_THREAD, allow, refuse)  # threads, no processes
    where(FCNTL, 1, IF_AT_LEAST, F_GETLK, refuse, allow)  # flags of a descriptor; no owner to be signalled
    where(PRCTL, 0, IF_EQUAL, PR_SET_NAME, allow, refuse)
    where(TGKILL, 0, IF_EQUAL, pid, allow, refuse)  # abort()
    where(PRLIMIT64, 2, IF_EQUAL, 0, allow, refuse)  # read a limit, set none: the pointer to a new one is null
    return [*steps, refuse]
