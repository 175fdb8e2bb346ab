#!/usr/bin/env bash
# Makes sure that the two images which everything here builds on are in the engine. Each is pulled
# where that works; on a machine without an image registry a stand-in of the same name is made from
# Debian's packages (root, mmdebstrap), so that the Dockerfile and compose.yaml work unchanged.
#   local_base_image.sh [python] [postgres]
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/flasc-base-images
python_image=${PYTHON_IMAGE:-python:3.11-slim-bookworm}
postgres_image=${POSTGRES_IMAGE:-postgres:17-bookworm}

present() { docker image inspect "$1" >/dev/null 2>&1; }
pulled() { timeout 300 docker pull --quiet "$1" >/dev/null 2>&1; }

# debian_tar NAME PACKAGES HOOK...: a root file system, made once per version of these scripts.
recipe=$(cat "$here/local_base_image.sh" "$here/local_postgres_entrypoint.sh" | sha256sum | cut -c1-12)
debian_tar() {
  local tar=$cache/$1-$recipe.tar packages=$2
  if [ ! -s "$tar" ]; then
    mkdir -p "$cache"
    rm -f "$cache/$1"-*.tar
    shift 2
    mmdebstrap --quiet --format=tar --mode=root --variant=minbase --include="$packages" \
      --dpkgopt=force-unsafe-io --dpkgopt='path-exclude=/usr/share/man/*' \
      --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
      "$@" bookworm "$tar.part" >&2
    mv "$tar.part" "$tar"
  fi
  echo "$tar"
}

python_stand_in() {
  # What pip needs to reach the index that this machine uses: its certificates.
  local tar
  tar=$(debian_tar python ca-certificates,python3,python3-venv,python3-pip \
    --customize-hook='ln -sf python3 "$1/usr/bin/python"' \
    --customize-hook='install -D -m644 /etc/ssl/certs/ca-certificates.crt "$1/etc/ssl/certs/ca-certificates.crt"' \
    --customize-hook='printf "[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n" >"$1/etc/pip.conf"' \
    --customize-hook='rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/*.bin')
  docker import --change 'CMD ["python3"]' \
    --change 'ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' \
    "$tar" "$python_image" >/dev/null
}

postgres_stand_in() {
  # /var/run becomes a folder of its own, since what lies in /run does not get into the tar.
  local tar
  tar=$(debian_tar postgres postgresql,ca-certificates \
    --customize-hook="install -m755 '$here/local_postgres_entrypoint.sh' \"\$1/usr/local/bin/docker-entrypoint.sh\"" \
    --customize-hook='ln -s "$(ls -d "$1"/usr/lib/postgresql/* | sed "s#^$1##")" "$1/opt/postgresql"' \
    --customize-hook='chroot "$1" install -d -m1777 -o postgres -g postgres /var/lib/postgresql/data' \
    --customize-hook='rm "$1/var/run"' \
    --customize-hook='chroot "$1" install -d -m3777 -o postgres -g postgres /var/run/postgresql' \
    --customize-hook='rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/*.bin "$1"/var/lib/postgresql/1*')
  docker import --change 'CMD ["postgres"]' \
    --change 'ENTRYPOINT ["docker-entrypoint.sh"]' \
    --change 'ENV PATH=/opt/postgresql/bin:/usr/local/bin:/usr/bin:/bin' \
    --change 'ENV PGDATA=/var/lib/postgresql/data' \
    --change 'VOLUME /var/lib/postgresql/data' \
    "$tar" "$postgres_image" >/dev/null
}

ensure() {
  if present "$1"; then echo "$1: present"; return; fi
  if pulled "$1"; then echo "$1: pulled"; return; fi
  if ! command -v mmdebstrap >/dev/null; then
    echo "$1 can not be pulled, and without mmdebstrap no stand-in can be made" >&2
    exit 1
  fi
  "$2"
  echo "$1: a stand-in from Debian's packages"
}

for image in "${@:-python}"; do
  case "$image" in
  python) ensure "$python_image" python_stand_in ;;
  postgres) ensure "$postgres_image" postgres_stand_in ;;
  *) echo "usage: $0 [python] [postgres]" >&2; exit 2 ;;
  esac
done
