package docs

// fakes stand for what a machine of a test cannot have. Each does what was asked
// with what we ship, and refuses what is not there.
var fakes = map[string]string{
	// Everybody is root already; -u still becomes somebody else.
	"sudo": `#!/bin/sh
case $1 in
-u) user=$2; shift 2; exec setpriv --reuid="$user" --regid="$user" --init-groups -- "$@" ;;
-E) shift ;;
-*) echo "sudo $1: not foreseen" >&2; exit 1 ;;
esac
exec "$@"
`,
	// systemd cannot run here. The commands of the unit do.
	"systemctl": `#!/bin/sh
unit=/etc/systemd/system/portsentry.service
of() { sed -n "s/^$1=//p" "$unit"; }
verb=$1
shift
[ "$verb" != daemon-reload ] || exit 0
[ "$1" != --now ] || { shift; verb=start; }
[ "$*" = portsentry ] || { echo "Unit $* not found." >&2; exit 5; }
MAINPID=
read -r MAINPID 2>/dev/null </run/unit.pid
alive() { [ -n "$MAINPID" ] && kill -0 "$MAINPID" 2>/dev/null; }
stop() {
	! alive || kill "$MAINPID"
	while alive; do sleep 0.02; done
}
start() {
	! alive || return 0
	setsid $(of ExecStart | sed 's|^/usr/sbin/|/usr/local/sbin/|') </dev/null >/run/unit.log 2>&1 &
	MAINPID=$!
	echo "$MAINPID" >/run/unit.pid
	until portsentry status >/dev/null 2>&1; do
		alive || { cat /run/unit.log >&2; exit 1; }
		sleep 0.02
	done
}
case $verb in
start) start ;;
stop) stop ;;
restart) stop; start ;;
reload) alive || { echo "portsentry.service is not active" >&2; exit 1; }; eval "$(of ExecReload)" ;;
*) echo "Unknown command verb $verb." >&2; exit 1 ;;
esac
`,
	// What make would do is other tests' business; that it could is ours.
	"make": `#!/bin/sh
exec /usr/bin/make -n "$@"
`,
}
