# %% [markdown]
# # 06 · Live mount
#
# *Run the cells one by one with <kbd>Shift</kbd>+<kbd>Enter</kbd>; widgets appear only then.*
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
# | O23 | prepare and launch | as for an instant restore, but nothing is ever copied to *primary storage*, the fast storage that servers normally run on |
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
from vmrestorekit.restore.simulate import warmup
from vmrestorekit.show.backups.selection_tables import bytes_read_by_boot
from vmrestorekit.show.chart_frame import finished, heading
from vmrestorekit.show.guessing.guess_form import GuessForm
from vmrestorekit.show.sentences import KIND_NAMES

warmup()  # compile the engine now, so that nobody waits for it later
KIB, MIB, SECOND = 2**10, 2**20, 1_000_000_000

# %% [markdown]
# ## The server
#
# A real one, recorded: Debian 12 with Samba, a disk for the system and one for the shared files. One of its boots was recorded, and the minute after, in which a client used
# the shares. The backup copy is what its disks held just before. Its table of contents, one for each disk, is called a **manifest**.

# %%
corpus = vr.load_corpus()
server = corpus["bookworm-files"]
boot = server.boot("boot-2")
for number, manifest in enumerate(boot.manifests):
    stored = (manifest.blocks["content"] != 0).sum() * 4096 / MIB
    print(
        f"disk {number}: {manifest.files.height:,} files and folders with blocks of their own, {stored:.0f} MiB stored"
    )

# %% [markdown]
# ## Your guess
#
# Anna's file is `/srv/share/3/31.txt`, 74 KiB.
#
# Two sizes come again and again. A disk keeps files in pieces of 4 KiB: these are always called *4 KiB blocks* here. The backup copy is read in *blocks of 64 KiB*: who wants one
# byte of such a block gets all of it.

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
# The file manager, with all machines that were recorded; it opens at the folder of Anna's file. Walk with the arrow keys, open with <kbd>Enter</kbd>, go up with
# <kbd>Backspace</kbd>, choose with <kbd>Space</kbd>. What the choice costs appears below the list once something is chosen. The map has all that the copy stores of a disk; click a
# cell, or walk with the arrow keys there, to see whose it is.
#
# 1. Type `31.txt` into **Find**, press <kbd>Enter</kbd>, and choose the file. Where on the disk are its blocks (**C**)? What are the blocks with an **L** for?
# 2. Set *Map of* to *needed blocks only*. The larger the square, the more of the block is wanted. How much comes along that nobody asked for?
# 3. Go up, and choose all of `/srv` instead. By how much do the bytes grow, and by how much the files?
# 4. Press *Choose nothing*. Which one folder of disk 0 costs more than booting the whole machine? Compare the bars *for the selection* and *to boot the machine*.
# 5. Choose `31.txt` alone again, and try other sizes of the *block of the read cache*. With which one does the least have to be read?

# %%
browser = vr.BackupBrowser(corpus)
browser.go_to("bookworm-files", "before boot-2", disk=1, path="/srv/share/3")
browser

# %% [markdown]
# ## The answer: one file
#
# The same file manager without looking: `select` chooses, `cost` counts.

# %%
# NBVAL_CHECK_OUTPUT
files = vr.BackupBrowser(boot)


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
# as a tree (in two copies), and the tree has to be walked through. On the system's disk, with ext4, what leads to a file is the start of the disk and the folders on the way.
#
# So the first file is dear, and the next ones are cheap: 57 files cost twice as much as one, 570 files ten times.

# %% [markdown]
# ## Mount (O23)
#
# Anna's file is read through the mounted copy; no machine boots for it. Ben needs the machine. The blocks that are fetched for him before the machine asks, its **first set**, are
# those that the server read when it booted the time before. So that you need not wait for an hour, his mount expires 80 seconds after the request, and he is warned 20 seconds before.

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

# %% tags=["plumbing"]
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
# - For **files**, browse and mount: one file takes half a percent of the copy, and all shared files five percent. That is still cheaper than booting the machine that serves them.
# - The **machine** takes a fifth of the copy to boot. That is the price when a file is no help: the data of a database, a program that has to run, an update to be tried.
# - Files are **not always cheaper**: to read all of `/usr` costs more than four boots. A boot reads only a small part of the system.
# - A **full restore** takes it all, before anything happens. It is for those who want to keep the machine.

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


# %% tags=["plumbing"]
# NBVAL_CHECK_OUTPUT
def blocks_written(mount):
    """Return when each 4 KiB block of the disks was first written, in seconds."""
    writes = mount.events.filter(pl.col("kind") == "written").select("time_ns", row="request")
    rows = boot.trace.frame.with_row_index("row").select(
        pl.col("row").cast(pl.Int32), "disk", "offset", "length"
    )
    last = (pl.col("offset") + pl.col("length") - 1) // 4096
    touched = pl.int_ranges(pl.col("offset") // 4096, last + 1).alias("block")
    each = writes.join(rows, on="row").with_columns(touched).explode("block")
    return each.group_by("disk", "block").agg(second=pl.col("time_ns").min() / SECOND)


lost = blocks_written(mount)
print(f"in the write cache at the expiry: {lost.height} blocks of 4 KiB, {lost.height * 4} KiB")
print(f"on primary storage: {mount.events.filter(pl.col('kind') == 'relocated').height}")

# %% tags=["plumbing"]
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
    second=(pl.col("time_ns") / SECOND).round(),
    what=pl.col("kind").cast(pl.String).replace(KIND_NAMES),
    by=pl.col("actor").cast(pl.String).str.replace_all("_", " "),
)

# %% [markdown]
# First the read cache is emptied, then the disk is unmounted: the machine is powered down, so nobody reads any more. (In notebook 05 it is the other way round, for there the machine runs on.)
#
# Ben's writes are nowhere any more: the write cache goes with the mount, and the backup copy (the table says when it is *de-associated*, let go) stays as it was, byte for byte.
# So Ben may break what he likes, and so Ben must fetch what he wants to keep **before** the expiry.

# %% [markdown]
# ## When to end it?
#
# The same mount with other expiries; the last one was **extended** by a minute while it ran, which is possible until it expires. *Cut off* counts requests that were under way;
# *null* says that the boot was never done.


# %% tags=["plumbing"]
# NBVAL_CHECK_OUTPUT
def ending(expiry, **extension):
    run = vr.simulate(boot, plan.replace(expiry_ns=expiry * SECOND, **extension), "object_storage")
    figures = run.summary()
    booted = figures["time_to_ready_ns"]
    return {
        "expiry (s)": f"{expiry} + 60" if extension else str(expiry),
        "boot done (s)": None if booted is None else round(booted / SECOND),
        "cut off": figures["cut_off"],
        "4 KiB blocks lost": blocks_written(run).height,
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
# **Counting a file's blocks.** A manifest has a row for each 4 KiB block of a disk, with the number of its file; `content` is 0 where nothing is stored. Here for Anna's file:

# %%
# NBVAL_CHECK_OUTPUT
manifest = boot.manifests[1]  # of the second disk
anna = manifest.files["path"].to_list().index("/srv/share/3/31.txt")  # the number of her file
numbered = manifest.blocks.with_row_index("block")
hers = numbered.filter(pl.col("file") == anna, pl.col("content") != 0)["block"]
print("her 4 KiB blocks:", hers.to_list())
print("16 of them are a block of 64 KiB; hers lie in", (hers // 16).n_unique(), "of these")

# %% [markdown]
# Now with a machine of your own. Choose another seed than your neighbour, and it is another one.

# %%
SEED = 1

# %%
case = live_mount.draw(corpus, SEED)
case

# %% [markdown]
# **1 · One file, two sizes of blocks.** How many *bytes* are read from the backup for your file, in blocks of 64 KiB, and in blocks of 1 MiB? Count the stored blocks of the file
# alone, not what leads to it. The manifest is `case.boot.manifests[0]`, the path of the file `case.path`.

# %%
# BEGIN SOLUTION read = {64 * KIB: ..., MIB: ...}
manifest = case.boot.manifests[0]
number = manifest.files["path"].to_list().index(case.path)
stored = (pl.col("file") == number) & (pl.col("content") != 0)
mine = manifest.blocks.with_row_index("block").filter(stored)["block"]
read = {size: (mine // (size // 4096)).n_unique() * size for size in (64 * KIB, MIB)}
# END SOLUTION
live_mount.check_bytes(read, case)

# %% [markdown]
# **2 · When may it expire?** Find the shortest expiry, in whole seconds from the request, with which the boot is done, the machine then serves as long as it is to (`case.service_seconds`), and the expiry cuts off no
# request. `ends(seconds)` runs your mount with an expiry: `time_to_ready_ns` is when the boot was done (in nanoseconds from the request, None if it never was), and `cut_off` counts
# the requests that were cut off.


# %%
def ends(seconds):
    plan = case.plan.replace(expiry_ns=seconds * SECOND)
    figures = vr.simulate(case.boot, plan, case.hardware, detail="summary").summary()
    return {name: figures[name] for name in ("time_to_ready_ns", "cut_off")}


ends(10)

# %%
# BEGIN SOLUTION expiry = ...
ready = ends(3600)["time_to_ready_ns"]
expiry = -(-ready // SECOND) + case.service_seconds  # rounded up
while ends(expiry)["cut_off"]:
    expiry += 1
# END SOLUTION
live_mount.check_expiry(expiry, case)

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
# `vr.BackupBrowser(BackupStore(folder))`.
