# The guardian of a sandbox: sh -c "$(cat guardian.sh)" airfleet-guardian FOLDER ID KEEP
#
# Runs in its own session. Standard input is a pipe whose other end only the
# owner holds, so it ends when the owner closes it or dies, by whatever cause.
# Then every process of the sandbox is killed and the folder removed
# (KEEP = nothing), reduced to its logs (logs) or left in place (all).
# Standard output is the sandbox's lock: never write to it.
folder=$1 id=$2 keep=$3
trap '' HUP INT QUIT TERM PIPE
cd /
while read -r _; do :; done

# Prints the ids of the living processes of the sandbox: members of a recorded
# process group, carriers of the marker variable, and everything below these.
# Servers such as PostgreSQL overwrite their environment and open sessions of
# their own, so none of the three tests is enough alone.
victims() {
    {
        for record in "$folder"/pids/*; do
            [ -f "$record" ] && sed 's/^/group /' "$record"
        done
        grep -lzxF "AIRFLEET_LOCAL_ID=$id" /proc/[0-9]*/environ |
            sed 's|/proc/\([0-9]*\)/.*|marked \1|'
        grep -lzxF "AIRFLEET_LOCAL_GUARDIAN=1" /proc/[0-9]*/environ |
            sed 's|/proc/\([0-9]*\)/.*|guardian \1|'
        cat /proc/[0-9]*/stat
    } 2>/dev/null | awk '
        $1 == "group"    { group[$2] = $3; next }
        $1 == "marked"   { victim[$2] = 1; next }
        $1 == "guardian" { spared[$2] = 1; next }
        {
            pid = $1
            sub(/^.*\) /, "")      # the command name may hold anything
            if ($1 == "Z" || $1 == "X") next
            parent[pid] = $2; pgrp[pid] = $3; begun[pid] = $20
        }
        END {
            # A leader with another start time: the id was given away again.
            for (g in group) if ((g in begun) && begun[g] != group[g]) delete group[g]
            for (p in parent) if ((pgrp[p] in group) && begun[p] + 0 >= group[pgrp[p]] + 0) victim[p] = 1
            do {
                grown = 0
                for (p in parent)
                    if (!(p in victim) && !(p in spared) && (parent[p] in victim)) { victim[p] = 1; grown = 1 }
            } while (grown)
            for (p in victim) if ((p in parent) && !(p in spared)) print p
        }'
}

round=0
while found=$(victims) && [ -n "$found" ] && [ "$round" -lt 100 ]; do
    # shellcheck disable=SC2086 # a list of numbers
    kill -KILL $found 2>/dev/null
    round=$((round + 1))
    sleep 0.05
done

# A killed PostgreSQL leaves its System V shared memory segment behind.
find "$folder" -maxdepth 4 -name postmaster.pid 2>/dev/null | while read -r file; do
    owner=$(sed -n 1p "$file")
    segment=$(sed -n 7p "$file" | awk '{ print $2 }')
    awk -v s="$segment" -v o="$owner" '$2 == s && $5 == o && $7 == 0 { found = 1 } END { exit !found }' \
        /proc/sysvipc/shm 2>/dev/null && ipcrm -m "$segment" 2>/dev/null
done

case $keep in
all) rm -rf "$folder/pids" ;;
logs)
    for entry in "$folder"/* "$folder"/.[!.]*; do
        # With its record, the next owner knows the folder for a sandbox's.
        case $entry in "$folder/logs" | "$folder/.guard") ;; *) rm -rf "$entry" ;; esac
    done
    ;;
*) rm -rf "$folder" ;;
esac
exit 0
