"""Becomes PID 1 of a throw-away systemd; run as root by `machine`, inside new namespaces.

    python boot.py STATE IMAGE

The root file system is an overlay: the host's, and above it a tmpfs that takes every write and into
which IMAGE, what was installed, is copied first. The host's files, sysctls, control groups and
processes are not touched. This file runs alone and imports nothing of ours.

Each trap that is stepped around here has cost somebody an hour:

- `/proc/sys` is read-only, or systemd raises the host's limits (fs.file-max and others).
- The root is mounted rshared, which a container's manager does: without it LoadCredential= fails.
- Journald must not read the kernel's log or audit, which are the host's, nor drop lines.
- What a sandboxed service sees of /tmp is its own, so the window to the host is elsewhere.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

SYSTEMD = "/lib/systemd/systemd"
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
LINKS = {"fd": "", "stdin": "/0", "stdout": "/1", "stderr": "/2"}
TARGET = """\
[Unit]
Description=What this machine boots: journald, and no service of the host's
DefaultDependencies=no
Wants=systemd-journald.socket systemd-journald.service
"""
JOURNALD = "[Journal]\nAudit=no\nStorage=volatile\nReadKMsg=no\nRateLimitIntervalSec=0\n"


def main(state: Path, image: Path) -> None:
    """Make the file system, move into it and become systemd."""
    mount("--make-rprivate", "/")
    root = overlay(state, image)
    make_kernel_files(root)
    make_devices(root / "dev")
    open_windows(root, state)
    configure(root)
    os.chdir(root)
    old = root / "run" / "oldroot"
    old.mkdir()
    run("pivot_root", ".", "run/oldroot")
    os.chdir("/")
    run("umount", "--lazy", "/run/oldroot")
    mount("--make-rshared", "/")
    environ = {"container": "test", "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"}
    options = ("--system", "--unit=test.target", "--log-target=journal", "--show-status=no")
    os.execve(SYSTEMD, (SYSTEMD, *options), environ)  # noqa: S606 - this is what it is for


def overlay(state: Path, image: Path) -> Path:
    """Lay what was installed over the host's root; return the new root.

    A copy, because the kernel refuses a layer that lies inside of another one.
    """
    place = state / "mounts"
    place.mkdir()
    mount_new("tmpfs", place, "mode=755")
    upper, work, root = (place / name for name in ("upper", "work", "root"))
    for folder in (upper, work, root):
        folder.mkdir(mode=0o755)
    run("cp", "--archive", f"{image}/.", str(upper))
    upper.chmod(0o755)
    mount_new("overlay", root, f"lowerdir=/,upperdir={upper},workdir={work}")
    return root


def make_kernel_files(root: Path) -> None:
    mount_new("proc", root / "proc")
    mount("--bind", root / "proc/sys", root / "proc/sys")
    mount("--options", "remount,bind,ro", root / "proc/sys")
    if (root / "proc/sysrq-trigger").exists():
        mount("--bind", "/dev/null", root / "proc/sysrq-trigger")
    mount_new("sysfs", root / "sys", "ro")
    mount_new("cgroup2", root / "sys/fs/cgroup")
    mount_new("tmpfs", root / "run", "mode=755")
    mount_new("tmpfs", root / "tmp", "mode=1777")
    (root / "var/tmp").chmod(0o1777)


def make_devices(dev: Path) -> None:
    mount_new("tmpfs", dev, "mode=755")
    for name in DEVICES:
        (dev / name).touch()
        mount("--bind", f"/dev/{name}", dev / name)
    for name in ("pts", "shm"):
        (dev / name).mkdir()
    mount_new("devpts", dev / "pts", "newinstance,ptmxmode=0666,mode=620")
    mount_new("tmpfs", dev / "shm", "mode=1777")
    (dev / "ptmx").symlink_to("pts/ptmx")
    for name, end in LINKS.items():
        (dev / name).symlink_to(f"/proc/self/fd{end}")


def open_windows(root: Path, state: Path) -> None:
    """Let the host see the service's state, and the service a folder of the test's."""
    for inside, outside in (("var/lib/orchestrator", "state"), ("srv/window", "window")):
        (root / inside).mkdir(parents=True, exist_ok=True)
        mount("--bind", state / outside, root / inside)


def configure(root: Path) -> None:
    (root / "etc/machine-id").write_text("", "utf-8")
    (root / "etc/fstab").write_text("", "utf-8")
    journald = root / "etc/systemd/journald.conf.d/test.conf"
    journald.parent.mkdir(parents=True, exist_ok=True)
    journald.write_text(JOURNALD, "utf-8")
    units = root / "etc/systemd/system"
    (units / "systemd-journald-audit.socket").symlink_to("/dev/null")
    (units / "test.target").write_text(TARGET, "utf-8")


def mount_new(kind: str, where: Path, options: str = "") -> None:
    mount("-t", kind, *(("-o", options) if options else ()), kind, where)


def mount(*words: str | Path) -> None:
    run("mount", *map(str, words))


def run(*words: str) -> None:
    subprocess.run(words, check=True)


def arguments(given: Sequence[str]) -> tuple[Path, Path]:
    state, image = given
    return Path(state), Path(image)


if __name__ == "__main__":
    main(*arguments(sys.argv[1:]))
