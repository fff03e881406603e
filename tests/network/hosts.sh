# shellcheck shell=bash
# Two hosts made of namespaces: each a network of its own with one end of a veth pair, and a name of its own. To be sourced after
# scratch (an empty folder) is set.
: "${scratch:?}"
first_host=adamem-a-$$
second_host=adamem-b-$$
first_address=10.213.77.1
second_address=10.213.77.2

# What is missing for hosts, as one line; empty: nothing.
hosts_lack() {
    local program
    for program in ip unshare mpirun; do
        [[ -n $(PATH=$PATH:/usr/sbin:/sbin command -v $program) ]] ||
            { echo "$program is missing (apt-get install iproute2 openmpi-bin)" && return; }
    done
    if ! { ip netns add "$first_host" && ip netns exec "$first_host" unshare --uts true && ip netns del "$first_host"; } \
        >/dev/null 2>&1; then
        ip netns del "$first_host" 2>/dev/null || true
        echo "not allowed to make network namespaces"
    fi
}

hosts_up() {
    ip netns add "$first_host"
    ip netns add "$second_host"
    ip link add name near netns "$first_host" type veth peer name far netns "$second_host"
    ip -n "$first_host" address add "$first_address/24" dev near
    ip -n "$second_host" address add "$second_address/24" dev far
    ip -n "$first_host" link set lo up
    ip -n "$second_host" link set lo up
    link_join
    # A peer that does not answer is given up after 15 minutes by default (15 retransmissions): here after a second or two.
    local host
    for host in "$first_host" "$second_host"; do
        ip netns exec "$host" bash -c 'echo 3 >/proc/sys/net/ipv4/tcp_retries2'
    done
    # mpirun calls it as ssh: the host, then a command line for its shell.
    cat >"$scratch/agent" <<AGENT
#!/bin/bash
shift
exec ip netns exec "$second_host" unshare --uts bash -c 'hostname second && exec bash -c "\$0"' "\$*"
AGENT
    chmod +x "$scratch/agent"
}

# With all that still runs there.
hosts_down() {
    local process
    for process in $({ ip netns pids "$first_host" && ip netns pids "$second_host"; } 2>/dev/null); do
        kill -KILL "$process" 2>/dev/null || true
    done
    ip netns del "$first_host" 2>/dev/null || true
    ip netns del "$second_host" 2>/dev/null || true
}

# The bytes that have come to the second host over the wire, and gone from it.
wire_bytes() {
    local file sum=0
    for file in rx tx; do
        sum=$((sum + $(ip netns exec "$second_host" cat "/sys/class/net/far/statistics/${file}_bytes")))
    done
    echo "$sum"
}

# Packets vanish, as when a switch dies: neither side is told.
link_cut() {
    ip -n "$second_host" link set far down
    ip -n "$first_host" link set near down
}

link_join() {
    ip -n "$first_host" link set near up
    ip -n "$second_host" link set far up
}

# on_hosts RANKS-PER-HOST COMMAND...: by mpirun on the first host; becomes it. Even ranks of one host talk by TCP, never through
# memory. The agent has another name since Open MPI 5.
on_hosts() {
    local each=$1
    shift
    export OMPI_MCA_plm_rsh_agent=$scratch/agent PRTE_MCA_plm_ssh_agent=$scratch/agent
    export OMPI_MCA_oob_tcp_if_include=$first_address/24
    # shellcheck disable=SC2016 # for the inner shell
    exec ip netns exec "$first_host" unshare --uts bash -c 'hostname first && exec "$@"' first \
        mpirun --mca btl tcp,self --mca btl_tcp_if_include "$first_address/24" --bind-to none \
        --host "$first_address:$each,$second_address:$each" -n $((2 * each)) "$@"
}
