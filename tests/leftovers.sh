#!/bin/sh
# Fails when anything of ours is still on the machine after the tests.
left=
add() { [ -z "$2" ] || left="$left
$1: $(printf '%s' "$2" | tr '\n' ' ')"; }

add "network namespaces" "$(ip netns list | awk '/^cm-(test|labtest|e2e)/ {print $1}')"
add "links" "$(ip -o link show | awk -F': ' '$2 ~ /^cm[-_]/ {print $2}')"
add "mounts" "$(awk '$2 ~ /\/cm-(test|labtest|e2e)|\/clustermesh\/(test|e2e)/ {print $2}' /proc/mounts)"
cgroup2=$(awk '$3 == "cgroup2" {print $2; exit}' /proc/mounts)
[ -z "$cgroup2" ] || add "cgroups" "$(find "$cgroup2" -maxdepth 1 -name 'cm-test*' -o -maxdepth 1 -name 'cm-labtest*' -o -maxdepth 1 -name 'cm-e2e*')"
add "pins in the host's bpffs" "$(ls -A /sys/fs/bpf 2>/dev/null | grep -E '^(clustermesh|cm-)' || true)"
add "processes" "$(ps -eo pid,args | grep -E '[c]m-(test|labtest|e2e)|[/]run/clustermesh/(test|e2e)' || true)"

[ -z "$left" ] && exit 0
printf 'left behind:%s\n' "$left" >&2
exit 1
