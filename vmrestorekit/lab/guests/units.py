"""What every guest has of ours: units that tell the end of boot, let a client come, and make a change."""

from __future__ import annotations

from vmrestorekit.lab.guests.spec import GuestSpec

__all__ = [
    "BOOT_DONE_LINE",
    "CHANGE_DONE_LINE",
    "CHANGE_SERIAL",
    "FAILED_LINE",
    "USE_BEGINS_LINE",
    "USE_DONE_LINE",
    "guest_files",
    "guest_units",
]

BOOT_DONE_LINE = "vmrestorekit: boot done"
USE_BEGINS_LINE = "vmrestorekit: use begins"
USE_DONE_LINE = "vmrestorekit: use done"
CHANGE_DONE_LINE = "vmrestorekit: change done"
FAILED_LINE = "vmrestorekit: failed"
CHANGE_SERIAL = "vmrestorekit-change"  # the longest a virtio disk may have is 20 letters
EXERCISE_SECONDS = 60
_CHANGE_DISK = f"/dev/disk/by-id/virtio-{CHANGE_SERIAL}"
# the shell's own command line must not be what is found on the console, hence the files
_UNITS = {
    "boot-done": """[Unit]
Description=Tell the recorder that the boot is over
After=%TARGET%
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'cat /etc/vmrestorekit/boot-done > /dev/ttyS0'
[Install]
WantedBy=%TARGET%
""",
    "use": f"""[Unit]
Description=A client comes
After=%TARGET% vmrestorekit-boot-done.service
ConditionPathExists=!{_CHANGE_DISK}
[Service]
Type=oneshot
TimeoutStartSec=infinity
ExecStartPre=/bin/sleep 1
ExecStart=/bin/sh /etc/vmrestorekit/use
[Install]
WantedBy=%TARGET%
""",
    "change": f"""[Unit]
Description=Make a change that was sent in
After=%TARGET% vmrestorekit-boot-done.service
ConditionPathExists={_CHANGE_DISK}
[Service]
Type=oneshot
TimeoutStartSec=infinity
ExecStart=/bin/sh /etc/vmrestorekit/change
[Install]
WantedBy=%TARGET%
""",
}
_SCRIPTS = {
    "boot-done": f"\n{BOOT_DONE_LINE}\n",
    "use-begins": f"\n{USE_BEGINS_LINE}\n",
    "use-done": f"\n{USE_DONE_LINE}\n",
    "change-done": f"\n{CHANGE_DONE_LINE}\n",
    "failed": f"\n{FAILED_LINE}\n",
    "use": """cd /etc/vmrestorekit
cat use-begins > /dev/ttyS0
end=$(( $(date +%s) + %SECONDS% ))
while
    if ! sh -e ./client > /dev/null 2> /run/client-failed; then
        cat /run/client-failed failed > /dev/ttyS0
        exit 1
    fi
    [ $(date +%s) -lt $end ]
do :; done
cat use-done > /dev/ttyS0
""",
    # the newest kernel is the one to boot
    "change": f"""cd /etc/vmrestorekit
folder=/var/tmp/vmrestorekit-change
mkdir -p $folder
if ! {{ tar -x -f {_CHANGE_DISK} -C $folder && sh -e $folder/change; }} > /run/change-log 2>&1; then
    tail -n 5 /run/change-log | cat - failed > /dev/ttyS0
    exit 1
fi
rm -r $folder
kernel=$(ls /boot | sed -n 's/^vmlinuz-//p' | sort -V | tail -n 1)
sed -i "s/vmlinuz-[^ ]*/vmlinuz-$kernel/; s/initrd.img-[^ ]*/initrd.img-$kernel/" /boot/grub/grub.cfg
sync
cat change-done > /dev/ttyS0
""",
}


def guest_units(spec: GuestSpec) -> list[str]:
    """Return the names of our units that this guest has, without ``.service``."""
    wanted = [name for name in _UNITS if name != "use" or spec.first_use or spec.exercise]
    return [f"vmrestorekit-{name}" for name in wanted]


def guest_files(spec: GuestSpec) -> dict[str, str]:
    """Return path, from the root directory, and text of each file of ours in this guest."""
    target = "graphical.target" if spec.graphics else "multi-user.target"
    seconds = str(EXERCISE_SECONDS if spec.exercise else 0)
    files = {
        f"etc/vmrestorekit/{name}": text.replace("%SECONDS%", seconds) for name, text in _SCRIPTS.items()
    }
    files["etc/vmrestorekit/client"] = f"{spec.first_use or spec.exercise}\n"
    for name in guest_units(spec):
        text = _UNITS[name.removeprefix("vmrestorekit-")].replace("%TARGET%", target)
        files[f"etc/systemd/system/{name}.service"] = text
    return files
