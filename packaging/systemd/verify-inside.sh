#!/usr/bin/env bash
# What verify.sh looks at inside the machine: on the first boot the package, the unit and an upgrade; on
# the second what a reboot, a removal and a purge leave. Not for a machine that anybody uses.
set -uo pipefail

cd /
readonly report=/verify/report
readonly unit=sweepd.service
readonly state=/var/lib/sweepd
readonly incoming=$state/spool/incoming

exec 3>>"$report"
# shellcheck source=packaging/checks.sh
source /verify/checks.sh

properties() {
    local each
    local -a values=()
    for each in "$@"; do values+=("$(property "$each")"); done
    printf '%s' "${values[*]}"
}
property() { systemctl show --property="$1" --value "$unit"; }
is() { [[ $(property "$1") == "$2" ]]; }
is_not() { [[ $(property "$1") != "$2" ]]; }
status() { sweepd status --json | jq --raw-output "$1"; }
queued() { status .tenants.contoso.jobs.queued; }
# How many machines of the long list are still to be scanned.
open_jobs() { sweepd sweep list --json | jq 'select(.name == "long.txt") | .open'; }
journal() { journalctl --no-pager --quiet --boot --unit="$unit" --after-cursor="$cursor" --output=cat; }
mark() { cursor=$(journalctl --no-pager --quiet --show-cursor --lines=0 | sed -n 's/^-- cursor: //p'); }
has_logged() { holds "$(journal)" "$1"; }

# What the daemon itself answers to a GET.
answer() {
    (
        exec 3<>/dev/tcp/127.0.0.1/9464 || exit 1
        printf 'GET %s HTTP/1.0\r\nHost: 127.0.0.1:9464\r\n\r\n' "$1" >&3
        timeout 5 cat <&3
    ) 2>/dev/null
}
answers() { [[ $(answer "$1" | head -n 1) == *" $2 "* ]]; }
# The limit that is in force; not what stands in the file.
limit() { answer /api/status | tail -n 1 | jq .tenants.contoso.budget.scan.minute.limit; }

drop_in() {
    mkdir -p "/etc/systemd/system/$unit.d"
    printf '[Service]\n%s\n' "$2" >"/etc/systemd/system/$unit.d/$1.conf"
    systemctl daemon-reload
}

without_drop_in() {
    rm -f "/etc/systemd/system/$unit.d/$1.conf"
    systemctl daemon-reload
}

# A list of machines that the simulated tenant has, from one number to another.
machines() { sed -n 's/^# \([0-9a-f]\{40\}\)$/\1/p' /run/simulator | sed -n "$1,$2p"; }

installs() {
    local seen
    seen=$(dpkg --install /verify/older.deb 2>&1)
    check 'the package installs' "$(dpkg-query --show sweepd)" same "$(dpkg-query --show --showformat='${Status}' sweepd)" 'install ok installed'
    check 'without a word of trouble' "$(grep -ciE 'warn|error|fail' <<<"$seen") such lines" fails grep -iE 'warn|error|fail' <<<"$seen"
    check 'it makes the user' "$(getent passwd sweepd)" holds "$(getent passwd sweepd)" /usr/sbin/nologin
    check 'and the user of the weekly sweep, in no group but its own' "$(id sweepd-sweep)" \
        same "$(id --name --groups sweepd-sweep)" sweepd-sweep
    seen=$(stat --format='%n %U:%G %a' "$state" "$incoming" /etc/sweepd)
    check 'it makes the folders' "$seen" same "$seen" \
        "$state sweepd:sweepd 750"$'\n'"$incoming sweepd:sweepd 3770"$'\n''/etc/sweepd root:root 755'
    check 'it brings the unit, neither started nor enabled' "$(property LoadState), $(property ActiveState), $(property UnitFileState)" \
        same "$(property LoadState) $(property ActiveState) $(property UnitFileState)" 'loaded inactive disabled'
    check 'it brings an example configuration' "$(wc -l </usr/share/doc/sweepd/examples/sweepd.toml) lines" \
        grep --quiet '^\[tenants.contoso\]' /usr/share/doc/sweepd/examples/sweepd.toml
    seen=$(dpkg-query --listfiles sweepd)
    check 'it brings man pages, of the subcommands too' "$(grep -c '/man1/.*\.1\.gz$' <<<"$seen") pages" grep --quiet '/man1/sweepd-sweep-list.1.gz$' <<<"$seen"
    check 'it brings completions' "$(grep -E 'completions/' <<<"$seen")" same "$(grep -cE 'completions(\.d)?/[^/]*$' <<<"$seen")" 3
    seen=$(systemd-analyze verify --man=no "/usr/lib/systemd/system/$unit" /usr/lib/systemd/system/sweepd-sweep.{service,timer} 2>&1)
    check 'systemd-analyze verify finds nothing in the units' "$seen" same "$seen" ''
}

is_not_tortured_by_a_wrong_configuration() {
    mark
    systemctl start "$unit"
    check 'without a configuration it ends with 78 and says why' "$(journal | grep -m 1 'configuration')" is ExecMainStatus 78
    check 'and is not started again' "$(property ActiveState), $(property SubState), restarted $(property NRestarts) times" is SubState failed
}

configure() {
    cat >/etc/systemd/system/simulator.service <<'END'
[Service]
DynamicUser=yes
ExecStart=sweepd simulator --listen 127.0.0.1:8700 --machines 1000
StandardOutput=truncate:/run/simulator
END
    systemctl daemon-reload
    systemctl start simulator
    within 100 grep --quiet '^# [0-9a-f]' /run/simulator
    {
        grep -v '^#' /run/simulator
        printf '[daemon]\nshutdown_grace = "4s"\n[intake]\nsettle = "200ms"\nrescan = "1s"\n'
    } >/etc/sweepd/sweepd.toml
    (umask 077 && sed -n "s/^# printf '%s' '\(.*\)' > contoso-secret/\1/p" /run/simulator >/etc/sweepd/contoso-secret)
    install -D -m 0644 /usr/share/doc/sweepd/examples/credentials.conf "/etc/systemd/system/$unit.d/credentials.conf"
    systemctl daemon-reload
    useradd --groups sweepd ann
    useradd bob
}

is_ready_only_when_it_is() {
    local holder seen
    # Who holds the lock keeps the daemon waiting for two seconds; it is not ready before it has it.
    runuser --user sweepd -- flock "$state/sweepd.lock" sleep 1 &
    holder=$!
    within 50 fails runuser --user sweepd -- flock --nonblock "$state/sweepd.lock" true
    systemctl start --no-block "$unit"
    within 50 is_not MainPID 0
    seen="the process runs: $(property ActiveState), status \"$(property StatusText)\""
    check 'it is activating while it is not ready' "$seen" same "$(property ActiveState) $(property StatusText)" 'activating '
    wait "$holder"
    within 100 is ActiveState active
    check 'and active once it is' "" is ActiveState active
    check 'which it has said itself' "Type=$(property Type), status \"$(property StatusText)\"" same "$(property Type) $(property StatusText)" 'notify ready'
    check 'the drop folder and the database are there' "$(ls "$state/spool")" test -s "$state/sweepd.db" -a -d "$state/spool/processed"
    within 100 answers /readyz 200
    check 'it signs in with the credential (/readyz)' "" answers /readyz 200
    systemctl stop "$unit"
    runuser --user sweepd -- flock "$state/sweepd.lock" sleep 3 &
    holder=$!
    within 50 fails runuser --user sweepd -- flock --nonblock "$state/sweepd.lock" true
    mark
    systemctl start "$unit"
    seen=$?
    check 'a start that does not come to be ready fails' "systemctl start ends with $seen; $(journal | grep -m 1 'another sweepd')" fails same "$seen" 0
    wait "$holder"
    within 150 is ActiveState active
    check 'and is tried again, since it may pass' "restarted $(property NRestarts) times, $(property ActiveState)" same "$(property ActiveState)" active
}

gets_its_credentials() {
    local handed=/run/credentials/$unit/contoso-secret
    local seen
    seen=$(stat --format='%U:%G %a' /etc/sweepd/contoso-secret)
    check 'the secret is root'"'"'s alone' "$seen" same "$seen" 'root:root 600'
    check 'the service user cannot read it' "" fails runuser --user sweepd -- cat /etc/sweepd/contoso-secret
    check 'systemd hands the service a copy (LoadCredential)' "$(property LoadCredential)" cmp "$handed" /etc/sweepd/contoso-secret
    check 'which nobody else can read' "$(stat --format='%U:%G %a' "$handed")" fails runuser --user ann -- cat "$handed"
    systemd-creds encrypt --with-key=host --name=contoso-secret /etc/sweepd/contoso-secret /etc/sweepd/contoso-secret.cred 2>/dev/null
    drop_in credentials 'LoadCredentialEncrypted=contoso-secret:/etc/sweepd/contoso-secret.cred'
    mv /etc/sweepd/contoso-secret /root/
    systemctl restart "$unit"
    within 100 answers /readyz 200
    check 'LoadCredentialEncrypted serves it too' "" answers /readyz 200
    mv /root/contoso-secret /etc/sweepd/
    drop_in credentials 'LoadCredential=contoso-secret:/etc/sweepd/nowhere'
    mark
    systemctl restart "$unit"
    check 'a credential without a file ends the start with 243, once' "$(properties ExecMainStatus SubState NRestarts)" \
        same "$(properties ExecMainStatus SubState)" '243 failed'
    printf 'SetCredential=contoso-secret:\\n\n' >>"/etc/systemd/system/$unit.d/credentials.conf"
    systemctl daemon-reload
    systemctl restart "$unit"
    check 'with its second line sweepd ends with 78, once, and names it' "$(journal | grep -m 1 'contoso-secret')" \
        has_logged "/run/credentials/$unit/contoso-secret is empty: LoadCredential= names no file that is there"
    check 'and is not started again' "$(properties ExecMainStatus SubState NRestarts)" same "$(properties ExecMainStatus SubState)" '78 failed'
    systemctl reset-failed "$unit"
    drop_in credentials 'LoadCredential=contoso-secret:/etc/sweepd/contoso-secret'
    systemctl restart "$unit"
    within 100 answers /readyz 200
}

takes_what_its_group_drops() {
    local seen
    machines 1 5 >/tmp/list.txt
    chmod 0644 /tmp/list.txt
    check 'a member of the group drops a list' "$(id ann)" runuser --user ann -- sh -c "umask 027 && cp /tmp/list.txt $incoming/ann.txt"
    within 100 test -e "$state/spool/processed/ann.txt.receipt.json"
    check 'it is taken' "" test -e "$state/spool/processed/ann.txt.receipt.json"
    seen=$(runuser --user ann -- jq --compact-output '[.status, .lines, .queued]' "$state/spool/processed/ann.txt.receipt.json")
    check 'she reads the receipt' "$seen" same "$seen" '["taken",5,5]'
    seen=$(sweepd audit export | jq --raw-output 'select(.kind == "file_taken").body | fromjson | .. | .uid? // empty')
    check 'the record says whose it was' "$seen" same "$seen" "$(id --user ann)"
    check 'but not the database' "$(stat --format='%U:%G %a' "$state/sweepd.db")" fails runuser --user ann -- cat "$state/sweepd.db"
    check 'who is not in the group cannot drop' "$(id bob)" fails runuser --user bob -- cp /tmp/list.txt "$incoming/bob.txt"
    within 300 has_queued 0
    check 'its scans are asked for' "$(status '.tenants.contoso.jobs | tojson')" has_queued 0
}

is_reloaded() {
    local before
    before=$(property MainPID)
    printf '[tenants.contoso.limits]\nper_minute = 77\n' >>/etc/sweepd/sweepd.toml
    systemctl reload "$unit"
    within 50 has_limit 77
    check 'systemctl reload puts a new configuration into force' "the limit is $(limit) a minute" has_limit 77
    check 'in the same process' "$before, $(property ActiveState)" same "$before active" "$(property MainPID) $(property ActiveState)"
    sed -i 's/^per_minute = 77/per_minute = 0/' /etc/sweepd/sweepd.toml
    mark
    systemctl reload "$unit"
    within 50 has_logged 'the old one stays in force'
    check 'a wrong one changes nothing, and the log says what is wrong' "$(journal | grep -m 1 'per_minute')" has_logged 'the old one stays in force'
    check 'it goes on under the old one' "the limit is $(limit) a minute, $(property ActiveState)" has_limit 77
    sed -i 's/^per_minute = 0/per_minute = 100/' /etc/sweepd/sweepd.toml
    systemctl reload "$unit"
}

has_limit() { [[ $(limit) == "$1" ]]; }

is_restarted_when_frozen() {
    local before
    check 'its watchdog is on' "WatchdogUSec=$(property WatchdogUSec)" is WatchdogUSec 5min
    drop_in watchdog $'WatchdogSec=6s\nRestartSec=1s'
    systemctl restart "$unit"
    before=$(property MainPID)
    within 100 answers /healthz 200
    check 'nothing is restarted while all is well' "" fails within 80 is_not MainPID "$before"
    mark
    kill -STOP "$before"
    within 300 has_new_process "$before"
    check 'a frozen process (SIGSTOP) is restarted by the watchdog' "" has_new_process "$before"
    check 'systemd says so' "$(journalctl --quiet --no-pager --after-cursor="$cursor" --output=cat | grep -m 1 'Watchdog timeout')" \
        sh -c "journalctl --quiet --no-pager --after-cursor='$cursor' | grep 'Watchdog timeout'"
    within 100 answers /readyz 200
    check 'and it is ready again' "restarted $(property NRestarts) times" answers /readyz 200
    without_drop_in watchdog
    systemctl restart "$unit"
}

has_new_process() {
    local now
    now=$(property MainPID)
    [[ $now != 0 && $now != "$1" ]] && is ActiveState active
}

is_restarted_when_killed() {
    local before
    drop_in restart 'RestartSec=1s'
    before=$(property MainPID)
    kill -KILL "$before"
    within 100 has_new_process "$before"
    check 'a killed process is restarted' "" has_new_process "$before"
    without_drop_in restart
}

stops_within_the_grace() {
    local began took
    # With a tenant that does not answer, calls stay on the wire.
    within 100 answers /readyz 200
    machines 100 140 >/tmp/list.txt
    systemctl kill --signal=STOP simulator
    runuser --user ann -- sh -c "umask 027 && cp /tmp/list.txt $incoming/slow.txt"
    within 100 test -e "$state/spool/processed/slow.txt.receipt.json"
    within 100 has_sending
    mark
    began=$SECONDS
    systemctl stop "$unit"
    took=$((SECONDS - began))
    check 'a stop with calls on the wire waits for them, and little longer than the grace (4 s)' "$took s; $(journal | grep -m 1 'calls were not answered')" between "$took" 3 20
    check 'and ends in order' "$(property Result), exit code $(property ExecMainStatus)" same "$(property Result) $(property ExecMainStatus)" 'success 0'
    systemctl kill --signal=CONT simulator
    began=$SECONDS
    systemctl start "$unit"
    systemctl stop "$unit"
    check 'one without is at once' "$((SECONDS - began)) s with the start" between "$((SECONDS - began))" 0 3
    systemctl start "$unit"
}

has_queued() { [[ $(queued) == "$1" ]]; }
has_sending() { (($(status .tenants.contoso.jobs.sending) > 0)); }

does_not_restart_on_a_wrong_configuration() {
    sed -i 's/^per_minute = 100/per_minute = 0/' /etc/sweepd/sweepd.toml
    mark
    systemctl restart "$unit"
    check 'a wrong configuration ends it with 78 and the reason' "$(journal | grep -m 1 'per_minute')" is ExecMainStatus 78
    # RestartSec is ten seconds.
    check 'systemd does not start it again' "$(property SubState)" fails within 130 is_not SubState failed
    check 'nor has tried' "restarted $(property NRestarts) times; RestartPreventExitStatus=$(property RestartPreventExitStatus)" is NRestarts 0
    sed -i 's/^per_minute = 0/per_minute = 100/' /etc/sweepd/sweepd.toml
    systemctl start "$unit"
    within 100 is ActiveState active
}

is_confined() {
    local each seen process
    process=$(property MainPID)
    for each in "$unit:12" sweepd-sweep.service:4; do
        seen=$(systemd-analyze security --no-pager "${each%:*}" | grep 'Overall exposure' | tr -dc '[:print:]')
        check "systemd-analyze security of ${each%:*} is at most ${each#*:} tenths" "$seen" \
            systemd-analyze security --no-pager --threshold="${each#*:}" "${each%:*}"
    done
    check 'nothing but the program can be executed' "$(nsenter --target "$process" --mount /bin/sh -c true 2>&1)" \
        fails nsenter --target "$process" --mount /bin/sh -c true
    check 'but that can' "" nsenter --target "$process" --mount /usr/bin/sweepd --version
    check 'memory, tasks and swap are limited' "$(properties MemoryHigh MemoryMax MemorySwapMax TasksMax)" \
        same "$(properties MemoryHigh MemoryMax MemorySwapMax TasksMax)" '1073741824 2147483648 0 1024'
    for each in /srv /boot /home /root; do
        mkdir -p "$each/other"
        seen=$(stat --format=%a "/proc/$process/root$each")
        check "it sees nothing of $each, and may not open it" "mode $seen" same "$seen $(ls "/proc/$process/root$each")" '0 '
    done
    seen=$(grep -E '^(NoNewPrivs|Seccomp|CapEff|CapBnd):' "/proc/$process/status" | tr '\t' ' ')
    check 'the running process has no privilege left' "$seen" holds "$seen" 'CapBnd: 0000000000000000'
    seen=$(touch "/proc/$process/root/usr/touched" 2>&1)
    check 'and cannot write outside its folder' "$seen" holds "$seen" 'Read-only file system'
    check 'but can in it' "" touch "/proc/$process/root$state/touched"
    rm -f "$state/touched"
}

sweeps_every_week() {
    local seen
    { printf 'DeviceId\n' && machines 50 59; } >/etc/sweepd/fleet.csv
    chgrp sweepd /etc/sweepd/fleet.csv
    chmod 0640 /etc/sweepd/fleet.csv
    seen=$(systemctl start sweepd-sweep.service 2>&1)
    check 'the weekly sweep hands its list over' "$seen" same "$(systemctl show --property=Result --value sweepd-sweep.service)" success
    within 100 has_swept
    check 'which is taken' "" has_swept
    seen=$(sweepd audit export | jq --raw-output 'select(.kind == "file_taken").body | fromjson | .. | .uid? // empty' | tail -n 1)
    check 'as that of its own user' "$seen" same "$seen" "$(id --user sweepd-sweep)"
    seen=$(systemd-run --quiet --wait --pipe --property=User=sweepd-sweep --property=Group=sweepd cat "$state/sweepd.db" 2>&1)
    check 'who cannot read the database' "$seen" holds "$seen" 'Permission denied'
}

has_swept() { holds "$(sweepd sweep list --json | jq --raw-output .name)" scheduled; }

keeps_its_queue_over_an_upgrade() {
    local before
    sweepd pause --reason upgrade >/dev/null
    machines 201 400 >/tmp/list.txt
    runuser --user ann -- sh -c "umask 027 && cp /tmp/list.txt $incoming/long.txt"
    within 100 test -e "$state/spool/processed/long.txt.receipt.json"
    before=$(property MainPID)
    check 'before the upgrade' "$(dpkg-query --show sweepd), $(open_jobs) queued, process $before" same "$(open_jobs)" 200
    dpkg --install /verify/newer.deb >/verify/upgrade 2>&1
    within 100 has_new_process "$before"
    check 'an upgrade restarts the running daemon' "$(dpkg-query --show sweepd), $(property ActiveState), process $(property MainPID)" has_new_process "$before"
    check 'and keeps the queue' "$(open_jobs) queued" same "$(open_jobs)" 200
    check 'and the configuration and the secret' "" test -s /etc/sweepd/sweepd.toml -a -s /etc/sweepd/contoso-secret
    check 'and the record fits itself' "$(sweepd audit verify)" sweepd audit verify
    systemctl enable --quiet "$unit"
    systemctl enable --quiet --now sweepd-sweep.timer
    check 'the timer of the weekly sweep is set' "$(systemctl show --property=NextElapseUSecRealtime --value sweepd-sweep.timer)" systemctl is-active sweepd-sweep.timer
}

comes_back_with_the_machine() {
    cursor=
    within 300 is ActiveState active
    check 'it starts with the machine' "$(property UnitFileState)" is ActiveState active
    check 'with its queue' "$(open_jobs) queued" same "$(open_jobs)" 200
}

keeps_its_data_when_removed() {
    local seen
    dpkg --remove sweepd >/verify/removal 2>&1
    seen=$(property ActiveState)
    check 'a removal stops the service' "$seen" fails same "$seen" active
    check 'takes the program away' "" fails test -e /usr/bin/sweepd
    check 'and keeps queue, configuration and secret' "$(ls "$state")" test -s "$state/sweepd.db" -a -s /etc/sweepd/sweepd.toml -a -s /etc/sweepd/contoso-secret
    dpkg --install /verify/newer.deb >/verify/again 2>&1
    systemctl start simulator
    systemctl start "$unit"
    check 'installed again, it goes on where it was' "$(property ActiveState), $(open_jobs) queued" same "$(open_jobs)" 200
}

takes_everything_along_when_purged() {
    dpkg --purge sweepd >/verify/purge 2>&1
    check 'a purge leaves no package' "$(dpkg-query --show --showformat='${Status}' sweepd 2>&1)" fails dpkg-query --show sweepd
    check 'no data, no configuration and no secret' "$(find "$state" /etc/sweepd -maxdepth 0 2>/dev/null)" \
        same "$(find "$state" /etc/sweepd -maxdepth 0 2>/dev/null)" ''
    check 'no unit, and nothing enabled' "$(find /etc/systemd/system /var/lib/systemd/deb-systemd-helper-* -name 'sweepd*' ! -name '*.d' 2>/dev/null)" \
        same "$(find /etc/systemd/system /var/lib/systemd/deb-systemd-helper-* -name 'sweepd*' ! -name '*.d' 2>/dev/null)$(systemctl cat "$unit" 2>/dev/null)" ''
    check 'and the user, who may own backups' "$(getent passwd sweepd)" getent passwd sweepd
}

case $(cat /verify/phase) in
first)
    installs
    is_not_tortured_by_a_wrong_configuration
    configure
    is_ready_only_when_it_is
    gets_its_credentials
    takes_what_its_group_drops
    is_reloaded
    is_restarted_when_frozen
    is_restarted_when_killed
    stops_within_the_grace
    does_not_restart_on_a_wrong_configuration
    is_confined
    sweeps_every_week
    keeps_its_queue_over_an_upgrade
    journalctl --no-pager --unit="$unit" >/verify/journal
    ;;
second)
    comes_back_with_the_machine
    keeps_its_data_when_removed
    takes_everything_along_when_purged
    journalctl --no-pager --boot >>/verify/journal
    printf '# all was looked at\n' >>"$report"
    ;;
esac
