#!/bin/sh
# install.sh DIRECTORY FILE…: what `meson install` does with files that admins edit: those that are there stay as they are.
set -eu
to=${DESTDIR:-}$1
shift
umask 022
mkdir -p "$to"
for file in "$@"; do
    if [ -e "$to/${file##*/}" ]; then
        echo "Keeping $to/${file##*/}"
    else
        echo "Installing $file to $to"
        install -m 0644 "$file" "$to"
    fi
done
