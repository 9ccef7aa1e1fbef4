#!/bin/bash
# Install the Debian packages that the lab, the real-VM test and the browser test need. Run as root; repeat at will.
#
# QEMU comes from bookworm-backports on Debian 12 (10.0 boots every guest that 7.2's emulation boots only at times);
# that suite is read from wherever this machine gets its Debian from. On any other release its own QEMU is taken.
set -euo pipefail

ETC_APT=${ETC_APT:-/etc/apt}
QEMU=(qemu-system-x86 qemu-utils)
PACKAGES=(
    git make python3-venv        # the project itself
    debootstrap e2fsprogs fdisk  # guests
    grub-pc-bin grub2-common
    busybox-static cpio          # the tiny guest of the real-VM test
    nbdkit libnbd-bin            # independent NBD clients and servers
    ntfs-3g dosfstools mtools    # other file systems, for browsing backups
    xfsprogs btrfs-progs lvm2
    binutils systemd             # others that tell what programs need, and which units are enabled
    chromium fonts-dejavu-core   # the browser test
    fio                          # carries out exported traces, reads from the media agent
    fuse3                        # shows a backup's disks as files
)

# Print a source entry for $2-backports, made from the machine's own entry for suite $2: FORMAT, then the entry.
backports_entry() {
    local etc=$1 suite=$2 file entry
    for file in "$etc"/sources.list.d/*.sources; do
        [[ -f $file ]] || continue
        # paragraphs of "Field: value" lines; the first enabled one with this suite and component main
        entry=$(awk -v suite="$suite" 'BEGIN { RS = ""; FS = "\n" } {
            text = ""; fits = 0; main = 0; binary = 0; enabled = 1
            for (i = 1; i <= NF; i++) {
                line = $i
                if (line ~ /^#/) continue
                if (line ~ /^Types:/ && (line " ") ~ /[: \t]deb[ \t]/) binary = 1
                if (tolower(line) ~ /^enabled:[ \t]*no/) enabled = 0
                if (line ~ /^Components:/ && (line " ") ~ /[: \t]main[ \t]/) main = 1
                if (line ~ /^Suites:/) {
                    if (index(line " ", " " suite " ")) fits = 1
                    line = "Suites: " suite "-backports"
                }
                text = text line "\n"
            }
            if (fits && main && binary && enabled) { printf "%s", text; exit }
        }' "$file")
        if [[ -n $entry ]]; then
            printf 'sources\n%s\n' "$entry"
            return
        fi
    done
    for file in "$etc"/sources.list "$etc"/sources.list.d/*.list; do
        [[ -f $file ]] || continue
        # deb [options] URI SUITE components
        entry=$(awk -v suite="$suite" '$1 == "deb" && match($0, "[ \t]" suite "[ \t]") {
            components = substr($0, RSTART + RLENGTH) " "
            if ((" " components) ~ /[ \t]main[ \t]/) { print substr($0, 1, RSTART) suite "-backports main"; exit }
        }' "$file")
        if [[ -n $entry ]]; then
            printf 'list\n%s\n' "$entry"
            return
        fi
    done
    return 1
}

# Make bookworm-backports known to apt; returns 1 if this machine cannot have it.
have_backports() {
    local format entry added
    if apt-get indextargets --format '$(RELEASE)' | grep -x bookworm-backports >/dev/null; then
        apt-get update -q
        return
    fi
    { read -r format && entry=$(cat); } < <(backports_entry "$ETC_APT" bookworm) || return 1
    added=$ETC_APT/sources.list.d/bookworm-backports.$format
    printf '%s\n' "$entry" > "$added"
    if ! apt-get update -q --error-on=any; then
        rm "$added"
        apt-get update -q
        return 1
    fi
}

installed() {
    dpkg-query --show --showformat '${db:Status-Status}\n' "$@" 2>/dev/null | grep -cx installed || true
}

main() {
    if ((EUID != 0)); then
        echo "$0 installs Debian packages and needs root rights: run it with sudo" >&2
        exit 1
    fi
    if ! command -v apt-get >/dev/null; then
        echo "$0 is for Debian and Ubuntu: on other systems install the equals of ${QEMU[*]} ${PACKAGES[*]}" >&2
        exit 1
    fi
    # shellcheck source=/dev/null
    . /etc/os-release
    local codename=${VERSION_CODENAME:-} qemu_version
    qemu_version=$(dpkg-query --show --showformat '${Version}' qemu-system-x86 2>/dev/null || true)
    if (($(installed "${QEMU[@]}" "${PACKAGES[@]}") == ${#QEMU[@]} + ${#PACKAGES[@]})) &&
        { [[ $codename != bookworm ]] || dpkg --compare-versions "$qemu_version" ge 1:10; }; then
        echo "all Debian packages are there, QEMU $qemu_version"
        apt-get update -q || echo "apt's lists could not be refreshed; the real-VM test downloads a kernel" >&2
        return
    fi

    export DEBIAN_FRONTEND=noninteractive
    local install=(apt-get install --yes -q --no-install-recommends -o Acquire::Retries=3)
    if [[ $codename == bookworm ]] && have_backports; then
        "${install[@]}" --target-release bookworm-backports "${QEMU[@]}"
    else
        [[ $codename != bookworm ]] || echo "bookworm-backports cannot be had here; taking bookworm's own QEMU" >&2
        apt-get update -q
        "${install[@]}" "${QEMU[@]}"
    fi
    "${install[@]}" "${PACKAGES[@]}"
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
    main
fi
