#!/usr/bin/env bash
# netns.sh COMMAND...: runs COMMAND in the first of four network namespaces, with their names as its last arguments. Each has
# an address of its own, and a bridge connects them. Open MPI's ranks go to one namespace each and talk over TCP.
set -euo pipefail

n=4
prefix=kvlane-$$
directory=$(mktemp -d)
cleanup() {
    for namespace in "${namespaces[@]}" "$prefix-bridge"; do
        ip netns del "$namespace" 2>/dev/null || true
    done
    rm -rf "$directory"
}
namespaces=()
trap cleanup EXIT

if ! ip netns add "$prefix-bridge" 2>/dev/null || ! ip netns exec "$prefix-bridge" unshare --uts true 2>/dev/null ||
    ! ip -n "$prefix-bridge" link add bridge type bridge 2>/dev/null ||
    ! ip -n "$prefix-bridge" link add probe0 type veth peer name probe1 2>/dev/null; then
    echo "skipped: network namespaces, with a bridge and veth, need iproute2 and root"
    exit
fi
ip -n "$prefix-bridge" link del probe0
ip -n "$prefix-bridge" link set bridge up
for ((i = 0; i < n; ++i)); do
    namespace=$prefix-$i
    namespaces+=("$namespace")
    ip netns add "$namespace"
    ip -n "$namespace" link add eth0 type veth peer name "port$i" netns "$prefix-bridge"
    ip -n "$prefix-bridge" link set "port$i" master bridge up
    ip -n "$namespace" addr add "10.77.0.$((i + 1))/24" dev eth0
    ip -n "$namespace" link set eth0 up
    ip -n "$namespace" link set lo up
    echo "10.77.0.$((i + 1)) slots=1" >>"$directory/hosts"
done

# enter NAMESPACE COMMAND...: with a host name of its own, by which Open MPI tells machines apart.
cat >"$directory/enter" <<'SH'
#!/bin/sh
export NAMESPACE=$1
shift
exec ip netns exec "$NAMESPACE" unshare --uts sh -c 'hostname "$NAMESPACE" && exec "$@"' sh "$@"
SH
# agent ADDRESS COMMAND: what Open MPI calls in place of ssh; COMMAND is words of a shell.
cat >"$directory/agent" <<SH
#!/bin/sh
host=\$((\${1##*.} - 1))
shift
exec "$directory/enter" "$prefix-\$host" sh -c "\$*"
SH
chmod +x "$directory/enter" "$directory/agent"

export OMPI_MCA_orte_default_hostfile=$directory/hosts OMPI_MCA_plm_rsh_agent=$directory/agent
export OMPI_MCA_btl=tcp,self OMPI_MCA_btl_tcp_if_include=eth0 OMPI_MCA_oob_tcp_if_include=eth0
"$directory/enter" "${namespaces[0]}" "$@" "${namespaces[@]}"
