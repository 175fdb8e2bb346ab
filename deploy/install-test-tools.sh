#!/usr/bin/env bash
# Installs, on Debian or Ubuntu, what `make test` does without and `make test-all` needs.
#   install-test-tools.sh [browser] [buf] [engine]      all three by default; repeating is quick
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
as_root=()
if [ "$(id -u)" != 0 ]; then as_root=(sudo --preserve-env=DEBIAN_FRONTEND); fi
export DEBIAN_FRONTEND=noninteractive
updated=

apt_install() {
  if [ -z "$updated" ]; then
    "${as_root[@]}" apt-get update -q
    updated=yes
  fi
  "${as_root[@]}" apt-get install -y -q --no-install-recommends "$@"
}

install_browser() {
  # Where the tests look for it.
  if [ ! -x /usr/bin/chromium ]; then apt_install chromium; fi
}

install_buf() {
  # Into a folder of the project, where the tests look too.
  local tools=$root/.venv-tools
  if command -v buf >/dev/null || [ -x "$tools/node_modules/.bin/buf" ]; then return; fi
  if ! command -v npm >/dev/null; then apt_install npm; fi
  npm install --prefix "$tools" --no-audit --no-fund --loglevel=error '@bufbuild/buf@^1.50.0'
  "$tools/node_modules/.bin/buf" --version
}

install_engine() {
  # Tests start a private one where none answers, which takes root.
  if docker version >/dev/null 2>&1; then return; fi
  "${as_root[@]}" "$root/deploy/docker_engine.sh" install
}

if [ $# = 0 ]; then set -- browser buf engine; fi
for tool in "$@"; do
  case "$tool" in
  browser | buf | engine) "install_$tool" ;;
  *) echo "usage: $0 [browser] [buf] [engine]" >&2; exit 2 ;;
  esac
done
