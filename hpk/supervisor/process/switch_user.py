"""What stands for ``gosu`` and ``su-exec`` in a container whose root is one mapped id.

Entrypoints of many images (databases above all) start as root, prepare directories, and start
themselves again through one of these as the user the software is to have. That user cannot be had
there: setuid needs a second id. But a user namespace inside the container's can show its one id as
another, and a process may make that for itself. So this program takes the place of theirs: it makes
a user namespace in which the asked user is the container's root, and becomes the command. What root
"gave" to that user (hpk.supervisor.process.seccomp.emulation) then is that user's indeed.

It needs nothing of the image: static, with a table of the image's users behind its code.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Optional

from hpk.supervisor.base import linux
from hpk.supervisor.base.elf import static_elf

PATH = "/.hpk/switch-user"
"""Where the program is shown in a container."""
_PLACES = ("/usr/local/bin", "/usr/local/sbin", "/usr/bin", "/usr/sbin", "/bin", "/sbin")
_NAMES = ("gosu", "su-exec")
_MOST_USERS = 1000
_MAX_ID = 2**32 - 2

# PROGRAM USER COMMAND…: find USER in the table, unshare, write the maps, set HOME, execve COMMAND,
# as it is or from PATH. rbx: argc, r12: argv, r13: envp; then r14: uid map or PATH, r15: gid map,
# rbp: HOME.
_X86_64 = bytes.fromhex(
    "488b1c24"  # _start: mov rbx, [rsp]
    "4c8d642408"  # lea r12, [rsp+8]
    "4c8d6cdc10"  # lea r13, [rsp+rbx*8+16]
    "83fb03"  # cmp ebx, 3
    "0f821a010000"  # jb unknown
    "488d3550020000"  # lea rsi, [rip+table]
    "803e00"  # entry: cmp byte ptr [rsi], 0
    "0f840a010000"  # je unknown
    "498b7c2408"  # mov rdi, [r12+8]
    "ac"  # compare: lodsb
    "ae"  # scasb
    "0f851c010000"  # jne differs
    "84c0"  # test al, al
    "75f4"  # jne compare
    "4989f6"  # mov r14, rsi
    "e82d010000"  # call skip
    "4989f7"  # mov r15, rsi
    "e825010000"  # call skip
    "4889f5"  # mov rbp, rsi
    "41803e00"  # cmp byte ptr [r14], 0
    "7445"  # je home
    "bf00000010"  # mov edi, 0x10000000
    "b810010000"  # mov eax, 272
    "0f05"  # syscall
    "85c0"  # test eax, eax
    "0f85be000000"  # jne failed
    "488d3d4c010000"  # lea rdi, [rip+setgroups]
    "488d355a010000"  # lea rsi, [rip+deny]
    "e809010000"  # call write
    "488d3d53010000"  # lea rdi, [rip+uid_map]
    "4c89f6"  # mov rsi, r14
    "e8fa000000"  # call write
    "488d3d57010000"  # lea rdi, [rip+gid_map]
    "4c89fe"  # mov rsi, r15
    "e8eb000000"  # call write
    "4531f6"  # home: xor r14d, r14d
    "4c89ef"  # mov rdi, r13
    "488b37"  # variable: mov rsi, [rdi]
    "4885f6"  # test rsi, rsi
    "7429"  # je run
    "8b06"  # mov eax, [rsi]
    "3d484f4d45"  # cmp eax, 0x454d4f48
    "7509"  # jne is_path
    "807e043d"  # cmp byte ptr [rsi+4], 0x3d
    "7514"  # jne next_variable
    "48892f"  # mov [rdi], rbp
    "3d50415448"  # is_path: cmp eax, 0x48544150
    "750a"  # jne next_variable
    "807e043d"  # cmp byte ptr [rsi+4], 0x3d
    "7504"  # jne next_variable
    "4c8d7605"  # lea r14, [rsi+5]
    "4883c708"  # next_variable: add rdi, 8
    "ebcf"  # jmp variable
    "4983c410"  # run: add r12, 16
    "498b3424"  # mov rsi, [r12]
    "4889f7"  # mov rdi, rsi
    "ac"  # slash: lodsb
    "3c2f"  # cmp al, 0x2f
    "7441"  # je execute
    "84c0"  # test al, al
    "75f7"  # jne slash
    "4881ec00000500"  # sub rsp, 0x50000
    "4d85f6"  # test r14, r14
    "7436"  # je failed
    "4889e7"  # component: mov rdi, rsp
    "418a06"  # copy: mov al, [r14]
    "84c0"  # test al, al
    "740a"  # je complete
    "49ffc6"  # inc r14
    "3c3a"  # cmp al, 0x3a
    "7403"  # je complete
    "aa"  # stosb
    "ebef"  # jmp copy
    "88c3"  # complete: mov bl, al
    "b02f"  # mov al, 0x2f
    "aa"  # stosb
    "498b3424"  # mov rsi, [r12]
    "ac"  # name: lodsb
    "aa"  # stosb
    "84c0"  # test al, al
    "75fa"  # jne name
    "4889e7"  # mov rdi, rsp
    "e85b000000"  # call exec
    "84db"  # test bl, bl
    "75d1"  # jne component
    "eb05"  # jmp failed
    "e850000000"  # execute: call exec
    "488d35ce000000"  # failed: lea rsi, [rip+cannot]
    "bf7f000000"  # mov edi, 127
    "eb0c"  # jmp say
    "488d35f1000000"  # unknown: lea rsi, [rip+who]
    "bf01000000"  # mov edi, 1
    "57"  # say: push rdi
    "bf02000000"  # mov edi, 2
    "e858000000"  # call put
    "5f"  # pop rdi
    "b8e7000000"  # mov eax, 231
    "0f05"  # syscall
    "84c0"  # differs: test al, al
    "7405"  # je next
    "e814000000"  # call skip
    "e80f000000"  # next: call skip
    "e80a000000"  # call skip
    "e805000000"  # call skip
    "e9b1feffff"  # jmp entry
    "ac"  # skip: lodsb
    "84c0"  # test al, al
    "75fb"  # jne skip
    "c3"  # ret
    "4c89e6"  # exec: mov rsi, r12
    "4c89ea"  # mov rdx, r13
    "b83b000000"  # mov eax, 59
    "0f05"  # syscall
    "c3"  # ret
    "56"  # write: push rsi
    "be01000800"  # mov esi, 0x80001
    "b802000000"  # mov eax, 2
    "0f05"  # syscall
    "5e"  # pop rsi
    "85c0"  # test eax, eax
    "7890"  # js failed
    "89c7"  # mov edi, eax
    "e806000000"  # call put
    "4885c0"  # test rax, rax
    "7884"  # js failed
    "c3"  # ret
    "56"  # put: push rsi
    "e8c7ffffff"  # call skip
    "4889f2"  # mov rdx, rsi
    "5e"  # pop rsi
    "4829f2"  # sub rdx, rsi
    "48ffca"  # dec rdx
    "b801000000"  # mov eax, 1
    "0f05"  # syscall
    "c3"  # ret
)
_STRINGS = (
    b"/proc/self/setgroups\0deny\0/proc/self/uid_map\0/proc/self/gid_map\0"
    b"hpk: the program cannot be started as that user\n\0"
    b"hpk: no such user in the image's passwd file: set runAsUser instead\n\0"
)


def switch_user_elf(machine: str, passwd: str) -> Optional[bytes]:
    """The program for a machine as os.uname names it; None for one it is not written for.

    :param passwd: the image's.
    """
    if machine != "x86_64":
        return None
    table = b"".join(b"%s\0%s\0%s\0%s\0" % entry for entry in _entries(passwd))
    return static_elf(machine, _X86_64 + _STRINGS + table + b"\0")


def _entries(passwd: str) -> Iterator[tuple[bytes, bytes, bytes, bytes]]:
    """(how a user may be named, uid map, gid map, HOME=…); no maps for root."""
    for line in passwd.splitlines()[:_MOST_USERS]:
        name, _, rest = line.partition(":")
        fields = rest.split(":")
        if len(fields) < 5 or not _is_id(fields[1]) or not _is_id(fields[2]) or "\0" in line:
            continue
        if not name:  # an empty text is the table's end
            continue
        uid, gid, home = fields[1], fields[2], fields[4] or "/"
        is_root = int(uid) == 0
        maps = ("", "") if is_root else (f"{uid} 0 1", f"{gid} 0 1")
        for user in (name, uid):
            for spelling in (user, f"{user}:{name}", f"{user}:{gid}"):
                texts = (spelling, *maps, f"HOME={home}")
                a, b, c, d = (text.encode("utf-8", "surrogateescape") for text in texts)
                yield a, b, c, d


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= _MAX_ID


def take_their_places() -> None:
    """Show the program wherever the image has one that it stands for.

    To be called in the container's namespaces, by its root.
    """
    try:
        ours = os.stat(PATH)
    except OSError:
        return
    for place in _PLACES:
        for name in _NAMES:
            path = f"{place}/{name}"
            with contextlib.suppress(OSError):
                info = os.stat(path)
                if (info.st_dev, info.st_ino) != (ours.st_dev, ours.st_ino):
                    linux.mount(PATH, path, None, linux.MS_BIND)
