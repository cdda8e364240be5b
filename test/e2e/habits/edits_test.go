package habits_test

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"portsentry/internal/pktgen"
	"portsentry/internal/view"
	"portsentry/test/lab"
)

const (
	ignore  = "/etc/portsentry/portsentry.ignore"
	blocked = "/var/lib/portsentry/portsentry.blocked"
)

// TestIgnoreEdits: a change of the ignore files holds while the daemon runs,
// whether an editor writes into the file or puts another in its place.
func TestIgnoreEdits(t *testing.T) {
	h := newHost(t, `TCP_PORTS="11"`, `IGNORE_FILE="`+ignore+`"`)
	h.Write(ignore, "10.77.7.1\n")
	h.Write(ignore+".static", "10.77.7.2\n")
	p := h.foreground()
	// shows waits until the last line about a source that probes and probes is as
	// wanted.
	shows := func(last byte, want string) {
		t.Helper()
		begin := time.Now()
		src := netip.AddrFrom4([4]byte{10, 77, 7, last})
		from := fmt.Sprintf("Scan from: [%s]", src)
		lab.Wait(t, patience, fmt.Sprintf("%s %s", src, want), func() bool {
			n := len(about(lines(t, p.Out), from))
			h.probe(src, 11)
			var all []string
			lab.Wait(t, patience, "a line about "+src.String(), func() bool {
				all = about(lines(t, p.Out), from)
				return len(all) > n
			})
			return strings.Contains(all[len(all)-1], want)
		})
		t.Logf("%s %s after %v", src, want, time.Since(begin))
	}
	const yes, no = "ignored: [true]", "ignored: [false]"
	shows(1, yes)
	shows(2, yes)
	h.Write(ignore, "10.77.7.3\n") // in place
	shows(3, yes)
	shows(1, no)
	h.Run("sh", "-c", "echo 10.77.7.4 >/etc/new; mv /etc/new "+ignore)
	shows(4, yes)
	shows(3, no)
	h.Run("sed", "-i", "s/7.2/7.5/", ignore+".static")
	shows(5, yes)
	h.Run("rm", ignore+".static")
	shows(5, no)
	h.Write(ignore+".static", "10.77.7.6\n") // one that is new
	shows(6, yes)
	shows(4, yes)
	h.Write(ignore, "10.77.7.4\n10.77.7.7.7\n") // a mistake is named, the rest holds
	h.says(p.Err, "10.77.7.7.7")
	shows(4, yes)
}

// TestIgnoreFolderLater: a folder that was not there could not be watched. SIGHUP
// has the file read, and watched from then on.
func TestIgnoreFolderLater(t *testing.T) {
	const later = "/etc/later/ignore"
	h := newHost(t, `TCP_PORTS="11"`, `IGNORE_FILE="`+later+`"`, `LOG_FORMAT="2.x"`)
	pid := h.detach("-stcp")
	h.Write(later, "10.77.7.1\n")
	h.hangup(pid, reloaded)
	h.probe(netip.MustParseAddr("10.77.7.1"), 11)
	h.log.Wait(patience, "Scan from: [10.77.7.1] ", "ignored: [true]")
	h.Write(later, "10.77.7.2\n")
	lab.Wait(t, patience, "the edit", func() bool {
		h.probe(netip.MustParseAddr("10.77.7.2"), 11)
		return h.logged("Scan from: [10.77.7.2] ", "ignored: [true]") > 0
	})
	h.stop(pid)
}

// about are the lines that begin with text.
func about(all []string, text string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(l string) bool { return !strings.HasPrefix(l, text) })
}

// TestBlockedEdits: taking a line out of a blocked file lifts the ban. Neither
// file exists at the start.
func TestBlockedEdits(t *testing.T) {
	h := newHost(t, `TCP_PORTS="11"`, `UDP_PORTS="7"`, `BLOCK_TCP="1"`, `BLOCK_UDP="1"`, `BLOCK_METHOD="nftables"`,
		`BAN_TIME_UNVERIFIED="1h"`, `BLOCKED_FILE="`+blocked+`"`)
	pid := h.detach("-stcp", "-sudp")
	without := func(path, src string) (text string) {
		for l := range strings.Lines(h.Read(path)) {
			if !strings.Contains(l, "/"+src+" ") {
				text += l
			}
		}
		return text
	}
	for i, tt := range []struct {
		how  string
		lift func(path, src string)
	}{
		{"in place", func(path, src string) { h.Write(path, without(path, src)) }},
		{"by rename", func(path, src string) {
			h.Write(path+"~", without(path, src))
			h.Run("mv", path+"~", path)
		}},
		{"by truncation", func(path, _ string) { h.Write(path, "") }},
		{"by removal", func(path, _ string) { h.Run("rm", path) }},
	} {
		files := map[string]netip.Addr{blocked + ".stcp": source(2 * i), blocked + ".sudp": source(2*i + 1)}
		h.probe(files[blocked+".stcp"], 11)
		h.knock(files[blocked+".sudp"], 7)
		for path, src := range files {
			h.contains(path, fmt.Sprintf("Host: %s/%[1]s Port: ", src))
		}
		begin := time.Now()
		for path, src := range files {
			tt.lift(path, src.String())
		}
		for path, src := range files {
			h.log.Wait(patience, src.String()+" is no longer banned: its line was taken out of "+path)
			t.Logf("%s: lifted after %v", tt.how, time.Since(begin))
			if slices.ContainsFunc(h.bans(), func(b view.Ban) bool { return b.Prefix.Addr() == src }) {
				t.Errorf("%s: the ban of %s stands", tt.how, src)
			}
			if got := h.Run("nft", "list", "table", "inet", "portsentry"); strings.Contains(got, src.String()+" ") {
				t.Errorf("%s: the kernel still bans %s:\n%s", tt.how, src, got)
			}
		}
	}
	h.stop(pid)
}

// TestEditsUnderFire: while new hosts are banned all the time, the blocked file is
// written and edits are noticed all the same.
func TestEditsUnderFire(t *testing.T) {
	h := newHost(t, `TCP_PORTS="11"`, `UDP_PORTS="7"`, `BLOCK_TCP="1"`, `BLOCK_METHOD="nftables"`, `BAN_TIME_UNVERIFIED="1h"`,
		`IGNORE_FILE="`+ignore+`"`, `BLOCKED_FILE="`+blocked+`"`, `LOG_FORMAT="2.x"`)
	h.Write(ignore, "")
	pid := h.detach("-stcp", "-sudp")
	ctx, cancel := context.WithCancel(t.Context())
	fired := make(chan error, 1)
	go func() {
		_, err := h.send.Flood(ctx, h.packet(source(0), pktgen.ProtoTCP, 11), pktgen.FloodOpts{
			Count: 1000, Rate: 25, SourcePrefix: netip.MustParsePrefix("10.77.64.0/20"), Sources: 1000,
		})
		fired <- err
	}()
	defer func() {
		cancel()
		<-fired
	}()
	h.contains(blocked+".stcp", "TCP Blocked")
	host := strings.Fields(h.Read(blocked + ".stcp"))[5] // "name/address"
	_, addr, _ := strings.Cut(host, "/")
	h.Run("sed", "-i", `\,/`+addr+" ,d", blocked+".stcp")
	h.Write(ignore, "10.77.8.1\n")
	h.log.Wait(patience, addr+" is no longer banned")
	lab.Wait(t, patience, "the edit of the ignore file", func() bool {
		h.knock(netip.MustParseAddr("10.77.8.1"), 7)
		return h.logged("Scan from: [10.77.8.1] ", "ignored: [true]") > 0
	})
	select {
	case err := <-fired:
		t.Errorf("the fire ended before: %v", err)
		fired <- err
	default:
	}
	h.stop(pid)
}
