#!/usr/bin/env bash
# A private Docker engine beside whatever else the machine runs: own socket, own data, own pid file.
#   docker_engine.sh install    Debian's packages (root)
#   docker_engine.sh start      prints what to eval: DOCKER_HOST, PATH
#   docker_engine.sh status     exits 0 while it runs
#   docker_engine.sh stop       ends it and everything it runs; images stay for the next start
set -euo pipefail

folder=${FLASC_ENGINE_FOLDER:-${TMPDIR:-/tmp}/flasc-engine}
socket=unix://$folder/docker.sock
pid_file=$folder/dockerd.pid
# Not whatever `docker` comes first: a podman wrapper of that name would not know this socket.
docker=/usr/bin/docker

running() { [ -s "$pid_file" ] && kill -0 "$(cat "$pid_file")" 2>/dev/null; }

install_packages() {
  if [ -x "$docker" ] && command -v dockerd docker-compose mmdebstrap >/dev/null; then return; fi
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q >&2
  apt-get install -y -q --no-install-recommends \
    docker.io docker-compose mmdebstrap arch-test iptables ca-certificates >&2
}

start() {
  mkdir -p "$folder"
  if ! running; then
    rm -f "$pid_file"
    # Inside a container the engine may not raise limits, and its own defaults are higher than
    # what it was given: without these two every container fails to start.
    setsid nohup dockerd --host "$socket" --data-root "$folder/data" --exec-root "$folder/exec" \
      --pidfile "$pid_file" --exec-opt native.cgroupdriver=cgroupfs --bip 172.29.0.1/24 \
      --default-ulimit nofile=16384:16384 --default-ulimit nproc=4096:4096 \
      >"$folder/dockerd.log" 2>&1 </dev/null &
    for _ in $(seq 1 120); do
      if "$docker" -H "$socket" version >/dev/null 2>&1; then break; fi
      sleep 0.25
    done
  fi
  if ! "$docker" -H "$socket" version >/dev/null 2>&1; then
    echo "the engine does not answer; its log ends with:" >&2
    tail -n 20 "$folder/dockerd.log" >&2
    exit 1
  fi
  echo "export DOCKER_HOST=$socket DOCKER_BUILDKIT=1 COMPOSE_DOCKER_CLI_BUILD=1 PATH=/usr/bin:\$PATH"
}

stop() {
  running || return 0
  pid=$(cat "$pid_file")
  kill "$pid"
  for _ in $(seq 1 120); do
    kill -0 "$pid" 2>/dev/null || return 0
    sleep 0.25
  done
  echo "the engine (process $pid) does not end" >&2
  exit 1
}

case "${1:-}" in
install) install_packages ;;
start) start ;;
status) running ;;
stop) stop ;;
*) echo "usage: $0 install|start|status|stop" >&2; exit 2 ;;
esac
