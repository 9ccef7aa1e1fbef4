"""What leads to what on small Linux disks, against readelf, ldd, systemctl and what went in."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from linux_disks import elf, image_of, merged_usr, references_of, write_tree, xfs_image_of
from store_helpers import need, run

from vmrestorekit.backup import units as units_of_a_disk
from vmrestorekit.backup.elf import read_elf
from vmrestorekit.backup.file_tree import FileTree
from vmrestorekit.backup.images import ImageError, RawImage
from vmrestorekit.backup.manifest import build_manifest, describe_manifest
from vmrestorekit.traces.references import enabled_units

UNITS = "/usr/lib/systemd/system"
OWN = "/etc/systemd/system"


def read_data(data):
    return read_elf(lambda offset, length: data[offset : offset + length])


def manifest_of(tmp_path, files, links=None):
    root = write_tree(merged_usr(tmp_path / "root"), files, links)
    return build_manifest(image_of(root, tmp_path / "disk.img"))


# --- ELF ----------------------------------------------------------------------------------------------


def told_by_readelf(path):
    text = run("readelf", "-dlW", path)
    search = re.findall(r"\(RUNPATH\).*\[(.*)\]", text) or re.findall(r"\(RPATH\).*\[(.*)\]", text)
    return (
        "".join(re.findall(r"program interpreter: (.*)\]", text)),
        tuple(re.findall(r"\(NEEDED\).*\[(.*)\]", text)),
        tuple(folder for each in search for folder in each.split(":") if folder),
    )


def test_the_programs_of_this_machine_need_what_readelf_tells():
    need("readelf", modules=())
    folders = [
        Path("/usr/bin"),
        Path("/usr/sbin"),
        Path("/usr/lib/systemd"),
        Path("/usr/lib/x86_64-linux-gnu"),
    ]
    checked = 0
    for path in [path for folder in folders if folder.is_dir() for path in sorted(folder.iterdir())]:
        if not path.is_file() or path.is_symlink() or path.open("rb").read(4) != b"\x7fELF" or checked == 150:
            continue
        found = read_data(path.read_bytes())
        if path.name.endswith(".o"):
            assert found is None
            continue
        assert (found.interpreter, found.needed, found.search) == told_by_readelf(path), path
        checked += 1
    assert checked > 50


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("order", ["<", ">"])
def test_every_class_and_byte_order(tmp_path, bits, order):
    need("readelf", modules=())
    file = tmp_path / "made.so"
    for rpath, runpath in (("", ""), ("/old:/older", ""), ("/old", "$ORIGIN/../lib:/new")):
        kind = {"bits": bits, "order": order, "machine": 8, "rpath": rpath, "runpath": runpath}
        file.write_bytes(elf(["libone.so.1", "libtwo.so"], interpreter="/lib/ld.so.1", **kind))
        found = read_data(file.read_bytes())
        assert (found.interpreter, found.needed, found.search) == told_by_readelf(file)
        assert found.needed == ("libone.so.1", "libtwo.so")
        assert found.machine == (bits // 32, 1 if order == "<" else 2, 8)


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_a_damaged_elf_file_is_no_error(data):
    whole = bytearray(
        elf(
            ["liba.so"],
            interpreter="/lib/ld.so",
            runpath="$ORIGIN",
            bits=data.draw(st.sampled_from([32, 64])),
        )
    )
    for _ in range(data.draw(st.integers(0, 4))):
        whole[data.draw(st.integers(4, len(whole) - 1))] = data.draw(st.sampled_from([0, 1, 0x7F, 0xFF]))
    read_data(bytes(whole[: data.draw(st.integers(0, len(whole)))]))
    read_data(bytes(whole))


# --- programs -----------------------------------------------------------------------------------------


def copied(root, path):
    """Copy a file of this machine to where it is, links on the way followed; return that place."""
    real = os.path.realpath(path)
    place = Path(f"{root}{real}")
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(real, place)
    return real


def test_programs_load_what_ldd_tells(tmp_path):
    need("ldd", "readelf", modules=())
    root = merged_usr(tmp_path / "root")
    expected = {}
    pending = ["/bin/ls", "/bin/bash", "/bin/tar", shutil.which("mke2fs", path="/sbin:/usr/sbin")]
    while pending:
        path = copied(root, pending.pop())
        interpreter, needed, _ = told_by_readelf(path)
        where = dict(re.findall(r"(\S+) => (/\S+) \(", run("ldd", path)))
        if interpreter:
            where[interpreter] = interpreter
        # the dynamic linker is already there when a library asks for it, so ldd tells no place
        wanted = [where[name] for name in (interpreter, *needed) if name in where]
        expected[path] = {os.path.realpath(place) for place in wanted}
        for place in wanted:
            link = Path(f"{root}{os.path.realpath(os.path.dirname(place))}/{os.path.basename(place)}")
            if f"{root}{os.path.realpath(place)}" != str(link) and not link.is_symlink():
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(os.path.realpath(place))
        pending += [place for place in wanted if os.path.realpath(place) not in expected]
    found = references_of(build_manifest(image_of(root, tmp_path / "disk.img")), "loads")
    linker = os.path.realpath("/lib64/ld-linux-x86-64.so.2")
    for path, targets in expected.items():
        assert found.get(path, set()) - {linker} == targets - {linker}, path
        assert targets <= found.get(path, set())
    assert len(found) > 8


LIBRARIES = "/usr/lib/x86_64-linux-gnu"


def test_libraries_are_found_as_the_dynamic_linker_finds_them(tmp_path):
    files = {
        "/opt/app/bin/by-origin": elf(["libown.so"], runpath="$ORIGIN/../lib:/nothing"),
        "/opt/app/bin/by-braces": elf(["libown.so"], rpath="${ORIGIN}/../lib"),
        "/opt/app/bin/by-path": elf(["/opt/app/lib/libown.so"]),
        "/opt/app/bin/not-there": elf(["libown.so", "libmissing.so"]),
        "/opt/app/bin/runpath-wins": elf(["libsame.so"], runpath="/opt/app/lib", rpath="/opt/old"),
        "/opt/app/bin/configured": elf(["libsite.so", "libsame.so"]),
        "/opt/app/bin/other-machine": elf(["libsame.so"], bits=32, machine=3),
        "/opt/app/lib/libown.so": elf([]),
        "/opt/app/lib/libsame.so": elf([]),
        "/opt/old/libsame.so": elf([]),
        "/opt/site/libsite.so": elf([]),
        f"{LIBRARIES}/libsame.so.1.2": elf([]),
        "/usr/lib/i386-linux-gnu/libsame.so": elf([], bits=32, machine=3),
        "/etc/ld.so.conf": "# site\ninclude /etc/ld.so.conf.d/*.conf\ninclude ld.so.conf\n",
        "/etc/ld.so.conf.d/site.conf": "/opt/site\n/lib/x86_64-linux-gnu # as Debian says\n",
        "/etc/ld.so.conf.d/old.conf.bak": "/opt/old\n",
        "/usr/lib/modules/6.1/kernel/real.ko": elf(["libsame.so"]),
    }
    links = {f"{LIBRARIES}/libsame.so": "libsame.so.1.2"}
    found = references_of(manifest_of(tmp_path, files, links), "loads")
    own, bin_ = {"/opt/app/lib/libown.so"}, "/opt/app/bin"
    assert found == {
        f"{bin_}/by-origin": own,
        f"{bin_}/by-braces": own,
        f"{bin_}/by-path": own,
        f"{bin_}/runpath-wins": {"/opt/app/lib/libsame.so"},
        f"{bin_}/configured": {"/opt/site/libsite.so", f"{LIBRARIES}/libsame.so.1.2"},
        f"{bin_}/other-machine": {"/usr/lib/i386-linux-gnu/libsame.so"},
    }


def test_a_library_with_several_names_is_found_by_each(tmp_path):
    root = write_tree(merged_usr(tmp_path / "root"), {"/usr/lib/libz.so": elf([])})
    os.link(root / "usr/lib/libz.so", root / "usr/lib/liba.so")
    write_tree(root, {"/usr/bin/tool": elf(["libz.so"])})
    found = references_of(build_manifest(image_of(root, tmp_path / "disk.img")), "loads")
    assert found == {"/usr/bin/tool": {"/usr/lib/liba.so"}}  # as in the files of the manifest


def test_scripts_load_their_interpreters(tmp_path):
    files = {
        "/usr/bin/dash": "x",
        "/usr/bin/env": "x",
        "/usr/bin/python3.11": "x",
        "/srv/shell": "#!/bin/sh -e\n",
        "/srv/spaces": "#!  /bin/sh\n",
        "/srv/env": "#!/usr/bin/env python3\nprint()\n",
        "/srv/env-split": "#!/usr/bin/env -S LANG=C python3 -u\n",
        "/srv/env-alone": "#!/usr/bin/env",
        "/srv/missing": "#!/usr/bin/nothing\n",
        "/srv/folder": "#!/usr\n",
        "/srv/empty": "#!\n",
        "/srv/none": "#!",
        "/srv/relative": "#!dash\n",
        "/srv/noise": b"#!\xff\xfe\0" + bytes(range(256)),
    }
    links = {"/usr/bin/sh": "dash", "/usr/bin/python3": "python3.11"}
    found = references_of(manifest_of(tmp_path, files, links), "loads")
    by_env = {"/usr/bin/env", "/usr/bin/python3.11"}
    assert found == {
        "/srv/shell": {"/usr/bin/dash"},
        "/srv/spaces": {"/usr/bin/dash"},
        "/srv/env": by_env,
        "/srv/env-split": by_env,
        "/srv/env-alone": {"/usr/bin/env"},
    }


# --- units --------------------------------------------------------------------------------------------


def service(command="/usr/bin/tool", more="", wanted="multi-user.target"):
    return f"[Unit]\nDescription=x\n{more}\n[Service]\nExecStart={command}\n[Install]\nWantedBy={wanted}\n"


SYSTEM = {
    f"{UNITS}/multi-user.target": "[Unit]\nRequires=basic.target\nAllowIsolate=yes\n",
    f"{UNITS}/graphical.target": "[Unit]\nRequires=multi-user.target\nWants=display-manager.service\n"
    "AllowIsolate=yes\n",
    f"{UNITS}/basic.target": "[Unit]\nWants=sockets.target \\\n  timers.target\n# Wants=commented.service\n",
    f"{UNITS}/sockets.target": "[Unit]\n",
    f"{UNITS}/timers.target": "[Unit]\n",
    "/usr/bin/tool": "x",
}


def test_enabled_units_are_those_that_systemctl_enables(tmp_path):
    need("systemctl")
    units = {f"{UNITS}/{name}.service": service() for name in ("yes", "also", "no", "masked", "again")}
    units[f"{UNITS}/chain.service"] = service(more="Requires=needed.service\nWants=absent.service")
    units[f"{UNITS}/needed.service"] = "[Service]\nExecStart=/usr/bin/tool\n"
    units[f"{UNITS}/worker@.service"] = service()
    units[f"{UNITS}/listen.socket"] = "[Socket]\nListenStream=1\n[Install]\nWantedBy=sockets.target\n"
    root = write_tree(merged_usr(tmp_path / "root"), SYSTEM | units)

    def systemctl(*words):
        return run("systemctl", f"--root={root}", *words)

    systemctl("set-default", "multi-user.target")
    systemctl("enable", "yes.service", "also.service", "masked.service", "chain.service", "listen.socket")
    systemctl("enable", "worker@one.service", "again.service")
    systemctl("disable", "again.service")
    systemctl("mask", "masked.service")
    manifest = build_manifest(image_of(root, tmp_path / "disk.img"))
    found = enabled_units(manifest)
    for name in sorted({path.rpartition("/")[2] for path in units} - {"needed.service", "worker@.service"}):
        told = subprocess.run(
            ["systemctl", f"--root={root}", "is-enabled", name], capture_output=True, text=True, check=False
        ).stdout
        assert (name in found) == (told.strip() == "enabled"), (name, told)
    targets = {"multi-user.target", "basic.target", "sockets.target", "timers.target"}
    enabled = {"yes.service", "also.service", "chain.service", "listen.socket"}
    assert set(found) == targets | enabled | {"needed.service", "worker@.service"}
    links = references_of(manifest, "enables")
    assert links[f"{OWN}/default.target"] == {f"{UNITS}/multi-user.target"}


def test_where_units_come_from(tmp_path):
    """A file in /etc wins, links count by their name, drop-ins add, what is not there has no unit file."""
    files = {
        f"{UNITS}/shadowed.service": service("/usr/bin/wrong", "Wants=wrong.service"),
        f"{OWN}/shadowed.service": service(),
        f"{UNITS}/wrong.service": service("/usr/bin/wrong"),
        f"{UNITS}/added.service": service("/usr/bin/tool"),
        f"{OWN}/added.service.d/30-more.conf": "[Unit]\nUpholds=shadowed.service\n[Service]\nExecStart=\n",
        f"{UNITS}/added.service.d/20-taken-back.conf": "[Service]\nExecStart=/usr/bin/wrong\n",
        f"{UNITS}/added.service.d/30-more.conf": "[Service]\nExecStart=/usr/bin/wrong\n",
        f"{UNITS}/added.service.d/40-again.conf": "[Service]\nExecStart=/usr/bin/other\n",
        f"{UNITS}/added.service.d/50-no-conf": "[Service]\nExecStart=/usr/bin/wrong\n",
        f"{UNITS}/empty.service": "",
        f"{UNITS}/noise.service": bytes(range(256)) * 20,
        "/opt/linked.service": service(),
        "/usr/bin/other": "x",
        "/usr/bin/wrong": "x",
        f"{UNITS}/folder.service/file": "x",
    }
    links = {
        f"{OWN}/linked.service": "/opt/linked.service",
        f"{OWN}/default.target": "/lib/systemd/system/graphical.target",
        f"{OWN}/display-manager.service": f"{UNITS}/added.service",
        f"{OWN}/multi-user.target.wants/shadowed.service": f"{UNITS}/shadowed.service",
        f"{OWN}/multi-user.target.wants/empty.service": f"{UNITS}/empty.service",
        f"{OWN}/multi-user.target.wants/gone.service": "/nothing",
        f"{OWN}/multi-user.target.wants/outside.service": "/opt/linked.service",
        f"{UNITS}/plugged.device.requires/linked.service": "../linked.service",
    }
    manifest = manifest_of(tmp_path, SYSTEM | files, links)
    enables = references_of(manifest, "enables")
    assert enables == {
        f"{OWN}/default.target": {f"{UNITS}/graphical.target"},
        f"{UNITS}/graphical.target": {f"{UNITS}/multi-user.target", f"{UNITS}/added.service"},
        f"{UNITS}/multi-user.target": {
            f"{UNITS}/basic.target",
            f"{OWN}/shadowed.service",
            "/opt/linked.service",
        },
        f"{UNITS}/basic.target": {f"{UNITS}/sockets.target", f"{UNITS}/timers.target"},
        f"{UNITS}/added.service": {f"{OWN}/shadowed.service"},
        f"{OWN}/plugged.device": {"/opt/linked.service"},
    }
    tool = {"/usr/bin/tool"}
    assert references_of(manifest, "starts") == {
        f"{UNITS}/added.service": {"/usr/bin/other"},
        f"{UNITS}/wrong.service": {"/usr/bin/wrong"},
        f"{OWN}/shadowed.service": tool,
        "/opt/linked.service": tool,
    }


def test_commands_of_units_and_scripts_of_system_v(tmp_path):
    commands = {
        "plain": "/usr/bin/tool --flag",
        "prefixed": "-@/bin/tool name",
        "all": "+!!:-/usr/bin/tool",
        "quoted": '"/usr/bin/with space" x',
        "named": "tool",
        "linked": "/usr/bin/link",
        "instance": "/usr/bin/%i",
        "missing": "/usr/bin/nothing",
        "folder": "/usr/bin",
        "nothing": "-",
    }
    files = {f"{UNITS}/{name}.service": service(command) for name, command in commands.items()}
    several = (
        "[Service]\nExecStartPre = /usr/bin/other\nExecStart=/usr/bin/tool \\\n  -x\nExecReload=/bin/kill\n"
    )
    files |= {f"{UNITS}/several.service": several, "/usr/bin/kill": "x", "/usr/bin/other": "x"}
    files |= {"/usr/bin/tool": "x", "/usr/bin/with space": "x", "/etc/init.d/old": "x"}
    links = {
        "/usr/bin/link": "tool",
        "/etc/rc2.d/S01old": "../init.d/old",
        "/etc/rc0.d/K01old": "../init.d/old",
        "/etc/rcS.d/S01gone": "../init.d/gone",
    }
    found = references_of(manifest_of(tmp_path, files, links), "starts")
    tool = {"/usr/bin/tool"}
    expected = {f"{UNITS}/{name}.service": tool for name in ("plain", "prefixed", "all", "named", "linked")}
    expected[f"{UNITS}/quoted.service"] = {"/usr/bin/with space"}
    expected[f"{UNITS}/several.service"] = tool | {"/usr/bin/other", "/usr/bin/kill"}
    expected["/etc/rc2.d/S01old"] = {"/etc/init.d/old"}
    assert found == expected


def test_files_are_read_once_for_all_that_asks_for_them(tmp_path, monkeypatch):
    files = {
        "/usr/bin/python3.11": elf([]),
        "/usr/bin/serve": "#!/usr/bin/python3.11\nimport sys\n",
        "/usr/bin/shell": "#!/usr/bin/tool\n",
        f"{UNITS}/serve.service": service("/usr/bin/serve app:main"),
    }
    read, asked = FileTree.read_range, []

    def counted(tree, file, offset, length):
        asked.append((file.path, offset, length))
        return read(tree, file, offset, length)

    monkeypatch.setattr(FileTree, "read_range", counted)
    manifest_of(tmp_path, SYSTEM | files)
    assert len(asked) == len(set(asked))
    # first bytes of a script, and the whole of it for what it imports
    assert [path for path, *_ in asked].count("/usr/bin/serve") == 2
    assert [path for path, *_ in asked].count("/usr/bin/shell") == 1


def test_units_that_are_too_large_say_nothing(tmp_path, monkeypatch):
    """And no more than so many bytes of all: one file can have any number of names."""
    fill = "#" * 1000 + "\n"
    files = {f"{UNITS}/{name}.service": service() + fill for name in "abc"}
    files[f"{UNITS}/a.service.d/more.conf"] = "[Service]\nExecStartPre=/usr/bin/other\n" + "#" * (1 << 20)
    files |= {"/usr/bin/tool": "x", "/usr/bin/other": "x"}
    tool = {"/usr/bin/tool"}
    every = {f"{UNITS}/{name}.service": tool for name in "abc"}
    assert references_of(manifest_of(tmp_path / "one", files), "starts") == every
    monkeypatch.setattr(units_of_a_disk, "_MOST_BYTES_OF_ALL", 2500)
    del every[f"{UNITS}/c.service"]
    assert references_of(manifest_of(tmp_path / "two", files), "starts") == every


# --- kernel modules and links -------------------------------------------------------------------------


def test_kernel_modules_need_what_depmod_wrote(tmp_path):
    top = "/usr/lib/modules/6.1.0-1"
    names = ("kernel/fs/ext4.ko", "kernel/lib/crc16.ko", "kernel/fs/mbcache.ko.xz", "updates/own.ko")
    files = {f"{top}/{name}": "module" for name in names}
    files[f"{top}/modules.dep"] = (
        "kernel/fs/ext4.ko: kernel/lib/crc16.ko kernel/fs/mbcache.ko.xz kernel/gone.ko\n"
        f"kernel/lib/crc16.ko:\n{top}/updates/own.ko: kernel/fs/ext4.ko\n"
        "kernel/gone.ko: kernel/lib/crc16.ko\nx\n:\n"
    )
    files["/usr/lib/modules/noise/modules.dep"] = bytes(range(256)) * 9
    assert references_of(manifest_of(tmp_path, files), "needs_module") == {
        f"{top}/kernel/fs/ext4.ko": {f"{top}/kernel/lib/crc16.ko", f"{top}/kernel/fs/mbcache.ko.xz"},
        f"{top}/updates/own.ko": {f"{top}/kernel/fs/ext4.ko"},
    }


def test_links_lead_where_the_system_would_go(tmp_path):
    long = "/".join(["long" * 10] * 6)
    links = {
        "/short": "usr/bin/tool",
        "/absolute": "/bin/tool",  # by a link to a folder
        "/of 59 bytes": "usr/bin" + "/" * 48 + "tool",  # the longest that lies in the inode
        "/of 60 bytes": "usr/bin" + "/" * 49 + "tool",
        **{f"/step {number}": f"step {number + 1}" for number in range(10)},
        "/step 10": "usr/bin/tool",
        "/long": f"/srv/{long}/file",  # in a block of its own
        "/two steps": "short",
        "/upwards": "../../usr/../usr/bin/tool",
        "/srv/beside": "./file",
        "/to folder": "srv",
        "/through": "to folder/file",
        "/broken": "nothing",
        "/circle": "circle",
        "/round": "about",
        "/about": "round",
        "/through a file": "srv/file/more",
    }
    files = {"/usr/bin/tool": "x", "/srv/file": "x", f"/srv/{long}/file": "x"}
    found = references_of(manifest_of(tmp_path, files, links), "links")
    tool, file = {"/usr/bin/tool"}, {"/srv/file"}
    expected = {path: tool for path in ("/short", "/absolute", "/of 59 bytes", "/two steps", "/upwards")}
    expected |= {"/of 60 bytes": tool} | {f"/step {number}": tool for number in range(11)}
    expected |= {
        "/long": {f"/srv/{long}/file"},
        "/srv/beside": file,
        "/through": file,
        "/to folder": {"/srv"},
    }
    expected |= {f"/{name}": {f"/usr/{name}"} for name in ("bin", "sbin", "lib", "lib64")}
    assert found == expected


# --- odd disks ----------------------------------------------------------------------------------------


def test_the_description_counts_references(tmp_path):
    manifest = manifest_of(tmp_path, SYSTEM)
    told = {row["kind"]: row["references"] for row in describe_manifest(manifest)["references"]}
    assert told == {"enables": 4, "links": 4}


def test_what_cannot_be_read_is_an_error_and_no_gap(tmp_path):
    """The disk fails where a script lies, which only the search for references reads before its blocks."""
    root = write_tree(merged_usr(tmp_path / "root"), {"/srv/script": "#!/bin/sh\n", "/usr/bin/sh": "x"})
    image = image_of(root, tmp_path / "disk.img")
    place = image.read_bytes().index(b"#!/bin/sh")

    class Failing(RawImage):
        def read(self, offset, length):
            if offset <= place < offset + length and length < 4096:
                raise ImageError(f"{self.name}: cannot be read")
            return super().read(offset, length)

    with Failing(image) as disk, pytest.raises(ImageError, match="cannot be read"):
        build_manifest(disk)


def test_xfs_tells_the_same_as_ext4(tmp_path):
    unit = {
        f"{UNITS}/own.service": service(),
        "/usr/bin/script": "#!/bin/sh\n",
        "/usr/bin/sh": elf(["libx.so"]),
    }
    links = {
        f"{OWN}/default.target": "/lib/systemd/system/graphical.target",
        f"{OWN}/multi-user.target.wants/own.service": f"{UNITS}/own.service",
        "/long": "/usr//" * 60 + "bin/tool",
    }
    packages = {"/usr/lib/libx.so": elf([]), "/var/lib/dpkg/info/a.list": "/bin/script\n/usr/lib/libx.so\n"}
    root = write_tree(merged_usr(tmp_path / "root"), SYSTEM | unit | packages, links)
    one = build_manifest(image_of(root, tmp_path / "ext4.img"))
    other = build_manifest(xfs_image_of(root, tmp_path / "xfs.img"))
    assert other.partitions["file_system"].to_list() == ["xfs"]
    assert other.references.equals(one.references)
    assert other.references["kind"].n_unique() == 4
    owned = [each.files.drop_nulls("package").select("path", "package").rows() for each in (one, other)]
    assert owned[0] == owned[1] == [("/usr/bin/script", "a"), ("/usr/lib/libx.so", "a")]


def test_a_disk_that_is_no_linux(tmp_path):
    need("mkntfs")
    image = tmp_path / "windows.img"
    with open(image, "wb") as file:
        file.truncate(20 << 20)
    run("mkntfs", "-q", "-F", "-s", "512", str(image))
    manifest = build_manifest(image)
    assert manifest.references.height == manifest.files["package"].drop_nulls().len() == 0
    assert manifest.files.height > 0
    assert enabled_units(manifest) == []
