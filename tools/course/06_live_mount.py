# %% [markdown]
# # 06 · Live mount
#
# Two calls, one morning. **Anna** has overwritten a text file on the file server; last night it was still right. **Ben** wants to try an update on that server, for an hour, and
# not on the real one.
#
# Both need last night's **backup copy**: all that was on the server's disks, kept on other, slower storage. Neither wants the server back, it runs. That is
# what a **live mount** is for: take things from a backup copy, or let a machine run from it, for a while, and then drop it. In the patent:
#
# | | operation | |
# |---|---|---|
# | O22 | browse | a **file manager** lists backed-up machines with their drives, folders and files; you select |
# | O23 | prepare and launch | as for an instant restore, but nothing is ever relocated to primary storage |
# | O24 | use | the machine runs, or its files are read; what it writes goes to a **write cache** |
# | O25 | warn of expiry | a mount has an end, the **expiry**; its user is warned before |
# | O26 | expire | the machine is powered down, and everything is let go |
#
# **How much must the backup give: for one file, for a machine that boots, for everything? And what becomes of what Ben's machine writes?**

# %%
import altair as alt
import polars as pl
from checks import live_mount

import vmrestorekit as vr
from vmrestorekit.predict.profiles import SelectedInBackup, first_set
from vmrestorekit.restore.simulate import warmup
from vmrestorekit.show.backup_browser import BackupBrowser
from vmrestorekit.show.chart_frame import finished, heading
from vmrestorekit.show.guess_form import GuessForm
from vmrestorekit.show.selection_tables import bytes_read_by_boot

warmup()  # compile the engine now, so that nobody waits for it later
KIB, MIB, SECOND = 2**10, 2**20, 1_000_000_000

# %% [markdown]
# ## The server
#
# A real one, recorded: Debian 12 with Samba, a disk for the system and one for the shared files. One of its boots was recorded, and the minute after, in which a client used
# the shares. The backup copy is what its disks held just before.

# %%
corpus = vr.load_corpus()
server = corpus["bookworm-files"]
boot = server.boot("boot-2")
for number, manifest in enumerate(boot.manifests):  # the tables of contents of its disks
    stored = (manifest.blocks["content"] != 0).sum() * 4096 / MIB
    print(
        f"disk {number}: {manifest.files.height:,} files and folders with blocks of their own, {stored:.0f} MiB stored"
    )

# %% [markdown]
# ## Your guess
#
# Anna's file is `/srv/share/3/31.txt`, 74 KiB. The backup copy is read in *blocks* of 64 KiB.

# %%
guesses = GuessForm(
    file=(
        "What has to be read from the backup to have Anna's 74 KiB?",
        ["74 KiB", "128 KiB", "about 3 MiB", "about 100 MiB"],
    ),
    boot=(
        "The copy holds 550 MiB. How many MiB must be read until the server has booted from it?",
        range(551),
    ),
    writes=(
        "Ben's machine writes to its disks. When the mount expires, where are these writes?",
        ["in the backup copy", "on primary storage", "nowhere"],
    ),
)
guesses

# %% [markdown]
# ## Browse (O22)
#
# The file manager, with all machines that were recorded; it opens at Anna's folder. Walk with the arrow keys, open with <kbd>Enter</kbd>, go up with <kbd>Backspace</kbd>,
# choose with <kbd>Space</kbd>. The map has all that the copy stores of a disk; click a cell, or walk with the arrow keys there, to see whose it is.
#
# 1. Choose `31.txt`. Where on the disk are its blocks (**C**)? What are the blocks with an **L** for?
# 2. Set *Map of* to *needed blocks only*. The larger the square, the more of the block is wanted. How much comes along that nobody asked for?
# 3. Choose all of `/srv`. By how much do the bytes grow, and by how much the files?
# 4. On disk 0, which folder costs more than booting the whole machine?
# 5. Try other sizes of blocks. For which is one file cheapest?

# %%
browser = BackupBrowser(corpus)
browser.go_to("bookworm-files", "before boot-2", disk=1, path="/srv/share/3")
browser

# %% [markdown]
# ## The answer: one file
#
# The same file manager without looking: `select` chooses, `cost` counts.

# %%
# NBVAL_CHECK_OUTPUT
files = BackupBrowser(boot)


def cost_of(path, disk):
    files.clear()
    files.select(path, disk=disk)
    cost = files.cost
    return {
        "selection": path,
        "files": cost.files,
        "their size (MiB)": round(cost.file_bytes / MIB, 2),
        "blocks of 64 KiB": len(cost.cache_blocks),
        "read (MiB)": round(cost.media_bytes / MIB, 1),
    }


_ = pl.Config.set_tbl_cols(-1)
selections = {"/srv/share/3/31.txt": 1, "/srv/share/3": 1, "/srv": 1, "/etc": 0, "/boot": 0, "/usr": 0}
costs = pl.DataFrame([cost_of(path, disk) for path, disk in selections.items()])
costs

# %%
# NBVAL_CHECK_OUTPUT
files.clear()
files.select("/srv/share/3/31.txt", disk=1)
needed = files.table()  # a row for each 4 KiB block
needed.group_by("why").agg(
    pl.len().alias("4 KiB blocks"), pl.col("cache_block").n_unique().alias("of blocks of 64 KiB")
).sort("why")

# %% [markdown]
# The file itself lies in two blocks of 64 KiB. To *find* it, forty-one others are read: this disk has btrfs, a file system that keeps its tables of names and places
# as a tree (in two copies), and the tree has to be walked through. On the system's disk, with ext4, it is the start of the disk and the folders on the way.
#
# So the first file is dear, and the next one is nearly free: 57 files cost twice as much as one, 570 files ten times.

# %% [markdown]
# ## Mount (O23): the selection is the profile
#
# What was selected is one of the forms in which the media agent is told what will be wanted (O3). Its blocks are the **first set**, which it stages in its read cache before
# anybody asks (O4, O5). For Anna that is all: her file is read through the mounted file system, no machine ever boots.

# %%
# NBVAL_CHECK_OUTPUT
for_anna = files.plan
told = first_set([SelectedInBackup(files.selection)], boot.manifests)
print(
    f"{for_anna.mode}: {len(for_anna.first_set)} blocks, {len(for_anna.first_set) * for_anna.block_bytes / MIB:.1f} MiB"
)
print("the same as the media agent makes of the message:", told.tolist() == for_anna.first_set.tolist())

# %% [markdown]
# Ben needs the machine. His first set is what the server read when it booted the time before. So that you need not wait for an hour, his mount expires after 80 seconds
# from the request, and he is warned 20 seconds before.

# %%
plan = vr.make_plan(
    vr.LastBootReplay().fit([server.boot("boot-1")]),
    boot,
    mode="live_mount",
    expiry_ns=80 * SECOND,
    warning_ns=20 * SECOND,
)
mount = vr.simulate(boot, plan, "object_storage")
full = vr.simulate(boot, plan.with_mode("full_restore", expiry_ns=None), "object_storage", detail="summary")
mount

# %% [markdown]
# ## The answer: file, machine, everything

# %%
# NBVAL_CHECK_OUTPUT
to_boot = round(bytes_read_by_boot(files.open_copy) / MIB)  # in blocks of 64 KiB
rows = {
    "Anna: one file": costs["read (MiB)"][0],
    "Anna: all shared files": costs["read (MiB)"][2],
    "boot the machine": to_boot,
    "Ben: boot it, then use it": mount.summary()["media_bytes"] / MIB,
    "full restore": full.summary()["media_bytes"] / MIB,
}
ways = pl.DataFrame({"way": list(rows), "read (MiB)": [round(mib, 1) for mib in rows.values()]})
ways

# %%
folders = costs.filter(pl.col("selection") != "/srv/share/3").select(way="selection", mib="read (MiB)")
bars = pl.concat(
    [
        folders,
        pl.DataFrame(
            {"way": ["boot the machine", "full restore"], "mib": [float(to_boot), rows["full restore"]]}
        ),
    ]
)
bars = bars.with_columns(
    label=pl.format("{}  {} MiB", "way", pl.col("mib").round(1)),
    what=pl.when(pl.col("way").str.starts_with("/")).then(pl.lit("files")).otherwise(pl.lit("machine")),
)
chart = (
    alt.Chart(bars)
    .mark_bar()
    .encode(
        alt.X("mib:Q", title="MiB read from the backup, in blocks of 64 KiB"),
        alt.Y("label:N", sort="x", title=None, axis=alt.Axis(labelLimit=260)),
        alt.Color(
            "what:N", scale=alt.Scale(domain=["files", "machine"], range=["#009E73", "#0072B2"]), title="as"
        ),
        tooltip=["way:N", alt.Tooltip("mib:Q", format=".1f", title="MiB")],
    )
)
finished(chart.properties(width=560), heading("What the backup has to give", "bookworm-files, before boot-2"))

# %% [markdown]
# - For **files**, mount and browse: one file takes half a percent of the copy, and all shared files five percent. That is still cheaper than booting the machine that serves them.
# - The **machine** takes a fifth of the copy to boot. That is the price when a file is no help: the data of a database, a program that has to run, an update to be tried.
# - There is a **break**: to read all of `/usr` costs more than four boots. A boot does not read the system, it reads a small part of it.
# - A **full restore** takes it all, before anything happens. It is for who wants to keep the machine.

# %% [markdown]
# ## Ben's hour (O23 to O26)
#
# Step through it. The **media agent** serves the reads from its read cache, or from the backup; the **write cache** on the host's side takes every write.
#
# 1. Jump to **VM writes**. Which way does a write go? Does the backup copy see anything of it?
# 2. Jump to **warning of expiry** (O25). What changes for the machine?
# 3. Jump to **live mount expires** (O26), and step on. In which order is everything let go?

# %%
stepper = vr.Stepper(mount, start=mount.next_of_kind("launch_vm", -1))
stepper

# %% [markdown]
# ## The answer: what becomes of the writes


# %%
# NBVAL_CHECK_OUTPUT
def units_written(mount):
    """When each 4 KiB unit of the disks was first written, in seconds."""
    writes = mount.events.filter(pl.col("kind") == "written").select("time_ns", row="request")
    rows = boot.trace.frame.with_row_index("row").select(
        pl.col("row").cast(pl.Int32), "disk", "offset", "length"
    )
    last = (pl.col("offset") + pl.col("length") - 1) // 4096
    units = pl.int_ranges(pl.col("offset") // 4096, last + 1).alias("unit")
    each = writes.join(rows, on="row").with_columns(units).explode("unit")
    return each.group_by("disk", "unit").agg(second=pl.col("time_ns").min() / SECOND)


lost = units_written(mount)
print(f"in the write cache at the expiry: {lost.height} units of 4 KiB, {lost.height * 4} KiB")
print(f"on primary storage: {mount.events.filter(pl.col('kind') == 'relocated').height}")

# %%
# NBVAL_CHECK_OUTPUT
end = [
    "boot_done",
    "warn_of_expiry",
    "expire",
    "power_down",
    "empty_read_cache",
    "unmount_file_system",
    "de_associate",
]
mount.events.filter(pl.col("kind").is_in(end)).select(
    second=(pl.col("time_ns") / SECOND).round(), what="kind", by="actor", blocks="count"
)

# %% [markdown]
# Nowhere: the write cache goes with the mount, and the backup copy stays as it was, byte for byte. So Ben may break what he likes, and so Ben must fetch what he wants to keep
# **before** the expiry.

# %%
marks = {"boot done": mount.summary()["time_to_ready_ns"] / SECOND, "warning": 60.0, "expiry": 80.0}
steps = lost.sort("second").with_row_index("units", offset=1).select("second", "units")
steps = pl.concat([pl.DataFrame({"second": [0.0], "units": [0]}, schema=steps.schema), steps])
x = alt.X("second:Q", title="seconds since the mount was asked for", scale=alt.Scale(domain=[0, 85]))
line = alt.Chart(steps).mark_line(interpolate="step-after", color="#CC79A7", strokeWidth=2.5)
line = line.encode(
    x, alt.Y("units:Q", title="4 KiB units in the write cache"), tooltip=["second:Q", "units:Q"]
)
at = pl.DataFrame({"second": list(marks.values()), "mark": list(marks)})
rules = (
    alt.Chart(at)
    .mark_rule(strokeWidth=1.5)
    .encode(
        x,
        alt.StrokeDash("mark:N", sort=list(marks), title=None),
        color=alt.value("#8C8C8C"),
        tooltip=["mark:N", "second:Q"],
    )
)
finished(
    (line + rules).properties(width=640, height=220),
    heading("What would be lost", "if the mount ended at that moment"),
)

# %% [markdown]
# ## When to end it?
#
# The same mount with other expiries; the last one was **extended** by a minute while it ran (until the expiry that is possible). `cut off`: requests that were under way.


# %%
# NBVAL_CHECK_OUTPUT
def ending(expiry, **extension):
    run = vr.simulate(boot, plan.replace(expiry_ns=expiry * SECOND, **extension), "object_storage")
    figures = run.summary()
    booted = figures["time_to_ready_ns"]
    return {
        "expiry (s)": f"{expiry}, extended" if extension else str(expiry),
        "boot done (s)": None if booted is None else round(booted / SECOND),
        "cut off": figures["cut_off"],
        "units lost": units_written(run).height,
        "backup copy free (s)": round(figures["released_ns"] / SECOND),
    }


pl.DataFrame(
    [ending(seconds) for seconds in (20, 30, 40, 80)]
    + [ending(40, extend_at_ns=35 * SECOND, extend_by_ns=60 * SECOND)]
)

# %% [markdown]
# Too short, and the machine is powered down in the middle of its boot, or of a request. Too long, and the backup copy stays tied to a mount that nobody needs: it must not be
# pruned (removed when its time is over) as long as it is mounted, and the read cache has less room for others. That is why the **storage manager** has a policy, the warning, and the extension.

# %%
guesses.tell(file="about 3 MiB", boot=to_boot, writes="nowhere")

# %% [markdown]
# ## Your turn
#
# Choose another seed, and you have another machine, file and mount than your neighbour.

# %%
SEED = 1

# %%
case = live_mount.draw(corpus, SEED)
case

# %% [markdown]
# **1 · One file, two sizes of blocks.** How many bytes are read from the backup for the *stored blocks of this file alone* (not for what leads to it), in blocks of 64 KiB and
# of 1 MiB? The **manifest** of the disk, the copy's table of contents, has a row for each 4 KiB block, with its file; `content` is 0 where nothing is stored. (Or browse, and look into `table()`.)

# %%
manifest = case.boot.manifest  # of the first disk
print(manifest.blocks.columns, manifest.files.columns)

# %%
# BEGIN SOLUTION read = {64 * KIB: ..., MIB: ...}
number = manifest.files["path"].to_list().index(case.path)
blocks = manifest.blocks.with_row_index("block").filter((pl.col("file") == number) & (pl.col("content") != 0))
read = {size: (blocks["block"] * 4096 // size).n_unique() * size for size in (64 * KIB, MIB)}
# END SOLUTION
live_mount.check_bytes(read, case)

# %% [markdown]
# **2 · When may it expire?** Find the shortest expiry, in whole seconds from the request, with which the boot is done, the machine then serves for 30 s, and the expiry cuts off no
# request. `vr.simulate(case.boot, case.plan.replace(expiry_ns=...), case.hardware).summary()` has `time_to_ready_ns` and `cut_off`.


# %%
# BEGIN SOLUTION expiry = ...
def figures(seconds):
    return vr.simulate(case.boot, case.plan.replace(expiry_ns=seconds * SECOND), case.hardware).summary()


ready = figures(3600)["time_to_ready_ns"]
expiry = -(-(ready + 30 * SECOND) // SECOND)  # rounded up
while figures(expiry)["cut_off"]:
    expiry += 1
# END SOLUTION
live_mount.check_expiry(expiry, case)

# %% [markdown]
# **3 · What is lost?** Your mount is `case.mount`; it expires while its client works. How many different 4 KiB units had been written then? An event of the kind `written` says in
# `request` which row of `case.boot.trace.frame` was done.

# %%
# BEGIN SOLUTION units = ...
done = case.mount.events.filter(pl.col("kind") == "written")["request"].unique()
units = {
    (disk, unit)
    for disk, offset, length in case.boot.trace.frame[done].select("disk", "offset", "length").iter_rows()
    for unit in range(offset // 4096, -(-(offset + length) // 4096))
}
units = len(units)
# END SOLUTION
live_mount.check_lost(units, case)

# %% [markdown]
# ## So what is it for?
#
# - A **lost file**: browse and mount. It costs some MiB, and nothing boots.
# - A **test**, an audit, a look at last month's machine: mount it and boot it. It costs a fifth of the copy here, and what it writes is gone at the end. That is the point.
# - To have the machine **back** it is the wrong tool: that is instant restore, in notebook 01.
#
# **What is real and what is not.** Real: the machines, what lay where on their disks (names, places and hashes; contents never left the lab, so that nobody can read Anna's file here), and
# every request that was recorded. Simulated: the media agent, the devices and the network, and so all times. Ours, where the patent is silent: writes are discarded at the
# expiry. Anna, Ben, and an hour of 80 seconds are made up. Of a file on btrfs all pieces of its tree are counted, though a driver may get by with fewer;
# on ext4 the block with the file's inode (where a file is described) is *not* counted: a manifest does not know which one it is. A browser on a backup store knows, and can also extract files:
# `BackupBrowser(BackupStore(folder))`.
