#!/usr/bin/env bash
# demo.sh [PROGRAM]: a failover, a divergence and a rewind on real servers, from nothing.
#
# A primary and a standby are made in a temporary directory, on free ports of 127.0.0.1. The standby is promoted while
# the old primary goes on writing, so that both hold transactions the other lacks. The old primary crashes, is rewound
# with PROGRAM (default: bin/fastrewind, built first), and becomes a standby of the new one. In the end every table of
# both is compared. Everything is removed again, whatever happens.
#
# As root the servers and the rewind run as the user postgres. Any PostgreSQL from 13 to 19 will do; if there is none, one is
# installed (see install-deps).
#
#   DEMO_SCALE    pgbench's scale factor: 100,000 accounts, about 15 MB each (default 20)
#   DEMO_SECONDS  how long each side is loaded after the promotion (default 8)
#   DEMO_JOBS     -j of the rewind (default: the number of processors)
#   DEMO_KEEP     if set, the directory is left behind
#   PG_BINDIR     PostgreSQL's programs, if they are not in a usual place
set -euo pipefail

self=${BASH_SOURCE[0]}
scale=${DEMO_SCALE:-20}
seconds=${DEMO_SECONDS:-8}
jobs=${DEMO_JOBS:-$(nproc)}

bold='' plain=''
if [ -t 1 ]; then bold=$'\033[1m' plain=$'\033[0m'; fi
step() { printf '\n%s== %s%s\n' "$bold" "$*" "$plain"; }
die() {
	printf 'demo: error: %s\n' "$*" >&2
	exit 1
}

# ---- outside: as whoever called; build, make a directory, go on as a user PostgreSQL accepts ---------------------------

work='' inner=''
as_server=()
if [ "$(id -u)" = 0 ]; then as_server=(setpriv --reuid=postgres --regid=postgres --init-groups); fi

outside() {
	local root
	root=$(cd "$(dirname "$self")/.." && pwd)
	step "PostgreSQL and fastrewind"
	"$root/scripts/install-deps" postgresql
	PG_BINDIR=$("$root/scripts/install-deps" bindir)
	export PG_BINDIR

	local program=${1:-}
	if [ -z "$program" ]; then
		make -C "$root" --no-print-directory build
		program=$root/bin/fastrewind
	fi

	work=$(mktemp -d /tmp/fastrewind-demo.XXXXXX)
	trap cleanup EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM
	# Copies: the working tree may be closed to the user postgres. A program that is installed stays where it is.
	install -m 755 "$self" "$work/demo.sh"
	case $program in
	"$root"/*)
		install -m 755 "$program" "$work/"
		program=$work/$(basename "$program")
		;;
	esac
	export DEMO_WORK=$work DEMO_PROGRAM=$program DEMO_SCALE=$scale DEMO_SECONDS=$seconds DEMO_JOBS=$jobs
	if [ "$(id -u)" = 0 ]; then chown postgres: "$work"; fi
	cd "$work"
	# In the background and waited for, so that a signal to this shell is acted on at once; as a process group of its
	# own, so that cleanup can end all of it.
	setsid "${as_server[@]}" bash "$work/demo.sh" --inside &
	inner=$!
	wait "$inner"
}

# The servers belong to the data directories below $work, and pg_ctl finds them by these.
cleanup() {
	local status=$? dir
	trap - EXIT INT TERM
	if [ -n "$inner" ]; then
		kill -TERM -- "-$inner" 2>/dev/null || true # gone already if it came to its end
		wait "$inner" 2>/dev/null || true
	fi
	for dir in "$work"/old "$work"/new; do
		[ -f "$dir/postmaster.pid" ] || continue
		"${as_server[@]}" "$PG_BINDIR/pg_ctl" -s -D "$dir" -m immediate stop >/dev/null 2>&1 || true
	done
	if [ "$status" != 0 ] && [ -d "$work" ]; then
		for dir in old new; do
			[ -f "$work/$dir.log" ] || continue
			printf '\n-- end of the log of %s\n' "$dir" >&2
			tail -n 15 "$work/$dir.log" >&2
		done
	fi
	if [ -n "${DEMO_KEEP:-}" ]; then
		printf '\nDEMO_KEEP is set: left %s behind\n' "$work"
	else
		rm -rf "$work" || { sleep 2 && rm -rf "$work"; }
	fi
	exit "$status"
}

# ---- inside: as the user the servers run as ----------------------------------------------------------------------------

free_port() {
	local port
	for _ in $(seq 100); do
		port=$((10000 + (RANDOM * 32768 + RANDOM) % 22000))
		if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
			printf '%s\n' "$port"
			return
		fi
	done
	die "no free TCP port found"
}

conn() { printf 'host=%s port=%s user=postgres dbname=postgres' "$work/s" "$1"; }
sql() { psql -X -q -A -t -v ON_ERROR_STOP=1 -d "$(conn "$1")" -c "$2"; }

start() { # name port
	# The port is given here and not in postgresql.conf, which a rewind replaces by the source's.
	pg_ctl -s -w -t 120 -D "$work/$1" -l "$work/$1.log" \
		-o "-p $2 -k $work/s -c listen_addresses=127.0.0.1 -c cluster_name=$1" start || die "the server $1 did not start"
}

wait_for() { # what port query
	local n
	for n in $(seq 600); do
		if [ "$(sql "$2" "$3")" = t ]; then return; fi
		sleep 0.1
	done
	die "waited ${n}00 ms in vain for $1"
}

# The end of everything a server has logged, made durable first: commits do not wait for that here.
end_of_wal() { # port
	sql "$1" "SET synchronous_commit = on; SELECT pg_logical_emit_message(true, 'demo', '')" >/dev/null
	sql "$1" "SELECT pg_current_wal_flush_lsn()"
}

state() { # name port: one line about a server
	sql "$2" "SELECT format('%-4s timeline %s at %-10s  %8s history rows  sum of balances %12s  tables: %s', '$1',
		CASE WHEN pg_is_in_recovery() THEN (SELECT received_tli FROM pg_stat_wal_receiver)
			ELSE ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int END,
		CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END,
		(SELECT count(*) FROM pgbench_history), (SELECT sum(abalance) FROM pgbench_accounts),
		(SELECT string_agg(relname, ', ' ORDER BY relname) FROM pg_stat_user_tables WHERE relname LIKE 'only%'))"
}

load() { # port seconds seed
	pgbench -n -c 4 -j 2 -T "$2" --random-seed="$3" -d "$(conn "$1")" 2>/dev/null | grep -E 'transactions actually|^tps' || true
}

# One line for each table: name, rows, and a hash of all rows that does not depend on their order.
sums() { # port
	psql -X -q -A -t -F ' ' -v ON_ERROR_STOP=1 -d "$(conn "$1")" -f - <<-'SQL'
		SELECT format('SELECT %L, count(*), md5(coalesce(sum(hashtextextended(r::text, 0)::numeric), 0)::text) FROM (SELECT * FROM %I.%I) r',
		              n.nspname || '.' || c.relname, n.nspname, c.relname)
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind IN ('r', 'm', 'S') AND c.relpersistence = 'p' ORDER BY n.nspname = 'pg_catalog', 1
		\gexec
	SQL
}

inside() {
	work=$DEMO_WORK
	local program=$DEMO_PROGRAM old_port new_port
	PATH=$PG_BINDIR:$PATH
	export PATH LC_ALL=C
	export HOME=$work # the caller's may be closed to us
	unset PGDATA PGHOST PGPORT PGUSER PGDATABASE PGSERVICE PGOPTIONS
	mkdir -m 700 "$work/s"
	old_port=$(free_port)
	new_port=$(free_port)
	while [ "$new_port" = "$old_port" ]; do new_port=$(free_port); done
	postgres -V
	printf 'old primary: port %s; standby, and new primary to be: port %s; below %s\n' "$old_port" "$new_port" "$work"

	step "A primary with $((scale * 100000)) accounts, and a standby that streams from it"
	initdb -D "$work/old" -U postgres -A trust -E UTF8 --no-locale --data-checksums >/dev/null
	cat >>"$work/old/postgresql.conf" <<-'CONF'
		wal_log_hints = on
		max_wal_size = 4GB
		wal_keep_size = 4GB
		shared_buffers = 256MB
		synchronous_commit = off
	CONF
	start old "$old_port"
	pgbench -q -i -s "$scale" -d "$(conn "$old_port")" 2>/dev/null
	pg_basebackup -d "$(conn "$old_port")" -D "$work/new" -X stream -c fast -R
	start new "$new_port"
	load "$old_port" 2 1
	wait_for "the standby to stream" "$old_port" \
		"SELECT count(*) = 1 FROM pg_stat_replication WHERE application_name = 'new' AND state = 'streaming'"
	wait_for "the standby to catch up" "$new_port" \
		"SELECT pg_last_wal_replay_lsn() >= '$(end_of_wal "$old_port")'"
	state old "$old_port"
	state new "$new_port"

	step "Failover: the standby is promoted, but nobody told the old primary"
	sql "$new_port" "SELECT pg_promote()" >/dev/null
	printf 'the new primary is on timeline 2; its history: %s\n' "$(tr '\t' ' ' <"$work/new/pg_wal/00000002.history")"

	step "Split brain: $seconds s of pgbench on both"
	sql "$old_port" "CREATE TABLE only_old AS SELECT g AS id, md5(g::text) AS t FROM generate_series(1, 100000) g"
	sql "$new_port" "CREATE TABLE only_new AS SELECT g AS id, md5(g::text) AS t FROM generate_series(1, 50000) g"
	load "$old_port" "$seconds" 2 | sed 's/^/old: /' &
	local other=$!
	load "$new_port" "$seconds" 3 | sed 's/^/new: /'
	wait "$other"
	state old "$old_port"
	state new "$new_port"
	sums "$old_port" >"$work/old.before"
	sums "$new_port" >"$work/new.before"
	local differ
	differ=$(diff "$work/old.before" "$work/new.before" | grep -c '^[<>] public' || true)
	printf 'lines of table checksums that differ: %s\n' "$differ"
	[ "$differ" -gt 0 ] || die "the two did not diverge"

	step "The old primary crashes"
	pg_ctl -s -D "$work/old" -m immediate stop
	pg_controldata -D "$work/old" | grep -E 'cluster state|TimeLineID:|REDO location:' | grep -v Prev
	if psql -X -c '' -d "$(conn "$old_port")" >/dev/null 2>&1; then die "the old primary still runs"; fi

	step "Rewind"
	# As any user would call it.
	local rewind=("$program" -D "$work/old" --source-server="host=127.0.0.1 port=$new_port user=postgres dbname=postgres" -P -R)
	if [ "$(basename "$program")" = pg_rewind ]; then
		# Stock does not know -j, and before 16 takes a new primary for one of the old timeline until it has made a
		# checkpoint.
		sql "$new_port" CHECKPOINT
	else
		rewind+=(-j "$jobs")
	fi
	printf '%s\n' "${rewind[*]}"
	local before after
	before=$(date +%s%N)
	"${rewind[@]}" </dev/null
	after=$(date +%s%N)
	local took=$(((after - before) / 1000000))

	step "The old primary comes back as a standby"
	start old "$old_port"
	wait_for "the old primary to stream from the new one" "$new_port" \
		"SELECT count(*) = 1 FROM pg_stat_replication WHERE state = 'streaming'"
	wait_for "the old primary to catch up" "$old_port" \
		"SELECT pg_last_wal_replay_lsn() >= '$(end_of_wal "$new_port")'"
	sql "$new_port" "SELECT format('%s streams, %s at %s', application_name, state, replay_lsn) FROM pg_stat_replication"
	state old "$old_port"
	state new "$new_port"

	step "Every table of both, compared"
	sums "$old_port" >"$work/old.after"
	sums "$new_port" >"$work/new.after"
	grep '^public' "$work/new.after" | awk '{ printf "%-28s %9s rows  %s\n", $1, $2, $3 }'
	printf 'and %s tables of the system catalogs\n' "$(grep -vc '^public' "$work/new.after")"
	diff "$work/old.after" "$work/new.after" || die "the two differ after the rewind"
	pg_ctl -s -D "$work/old" -m fast stop
	pg_checksums --check -D "$work/old" >"$work/checksums" 2>&1 || die "$(cat "$work/checksums")"
	grep -E 'Blocks scanned|Bad checksums' "$work/checksums"
	pg_ctl -s -D "$work/new" -m fast stop

	step "Summary"
	printf 'rewound in %d.%03d s (%s); all %s tables equal; no bad checksum.\n' $((took / 1000)) $((took % 1000)) \
		"$(basename "$program")" "$(wc -l <"$work/new.after")"
}

if [ "${1:-}" = --inside ]; then inside; else outside "$@"; fi
