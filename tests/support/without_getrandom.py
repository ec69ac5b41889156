#!/usr/bin/env python3
"""Runs a program for which getrandom(2) fails, as under a seccomp profile that does not allow it.

    without_getrandom.py [--root DIR] ERRNO PROGRAM [ARGUMENT ...]

ERRNO is the name of the error, such as ENOSYS for a kernel without this call. With --root, which needs root, DIR is the root
directory of the program. Exits with 77 on a machine that cannot do it.
"""

import argparse
import ctypes
import errno
import os
import platform
import struct
import sys

PR_SET_SECCOMP, SECCOMP_MODE_FILTER, PR_SET_NO_NEW_PRIVS = 22, 2, 38
# linux/bpf_common.h and linux/seccomp.h
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
SECCOMP_RET_ERRNO, SECCOMP_RET_ALLOW = 0x00050000, 0x7FFF0000
GETRANDOM = {"x86_64": 318, "aarch64": 278}


class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root")
    parser.add_argument("error", type=lambda name: getattr(errno, name))
    parser.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    if sys.platform != "linux" or platform.machine() not in GETRANDOM:
        sys.exit(77)
    if arguments.root:
        os.chroot(arguments.root)
        os.chdir("/")
    instructions = [
        (LOAD, 0, 0, 0),
        (JUMP_IF_EQUAL, 0, 1, GETRANDOM[platform.machine()]),
        (RETURN, 0, 0, SECCOMP_RET_ERRNO | arguments.error),
        (RETURN, 0, 0, SECCOMP_RET_ALLOW),
    ]
    packed = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in instructions))
    program = Program(len(instructions), ctypes.cast(packed, ctypes.c_void_p))
    libc = ctypes.CDLL(None)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(
        PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0
    ):
        sys.exit(77)
    os.execv(arguments.command[0], arguments.command)


if __name__ == "__main__":
    main()
