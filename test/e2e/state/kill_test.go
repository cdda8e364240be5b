package state_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	_ "modernc.org/sqlite"

	"portsentry/internal/pktgen"
	"portsentry/internal/view"
)

// crowd is who scans meanwhile: nobody has these addresses.
var crowd = netip.MustParsePrefix("198.18.0.0/15")

// unverified is how long who may be forged is banned.
const unverified = 30 * time.Minute

// Whatever the moment at which it is killed, the database is whole, no ban that a person
// has made is lost, nor what was known of anybody, and no ban lasts for ever.
func TestKilled(t *testing.T) {
	kills := 4
	if os.Getenv("PORTSENTRY_LONG") == "1" {
		kills = 100
	}
	s := newStage(t)
	send, err := s.Scanner.Sender()
	check(t, err)
	t.Cleanup(func() { send.Close() })
	made := make(map[netip.Prefix]bool)
	var last netip.Prefix  // of them
	var seen []view.Source // that were written down when it was killed
	forged := 0
	for n := range kills + 1 {
		d := s.start(map[string]string{"BAN_TIME_UNVERIFIED": "30m", "BAN_TIME": "1h"})
		stand := d.all()
		for p := range made {
			if _, is := stand[p]; !is {
				t.Fatalf("after %d kills: the ban of %s is lost", n, p)
			}
		}
		for p, b := range stand {
			most := time.Hour
			if !made[p] {
				most = unverified
				forged++
			}
			if b.Until == nil || b.Until.Sub(b.Since) > most+time.Minute || time.Until(*b.Until) > most+time.Minute {
				t.Fatalf("after %d kills: the ban of %s lasts from %v until %v", n, p, b.Since, b.Until)
			}
		}
		if last.IsValid() {
			if y := d.why(last.Addr()); y.Verdict != view.VerdictBanned || y.Ban == nil || y.Ban.By != "uid 0" {
				t.Errorf("after %d kills: of %s, whom a person banned, is said %+v", n, last, y)
			}
		}
		for _, was := range seen {
			y := d.why(was.Address)
			if y.Verdict != view.VerdictBanned && y.Verdict != view.VerdictSeen || y.Seen == nil || y.Seen.Probes < was.Probes {
				t.Errorf("after %d kills: of %+v is said %+v", n, was, y)
			}
		}
		if seen = d.sources(3); n == kills {
			break
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.IntN(700))*time.Millisecond)
		flooded := make(chan error, 1)
		go func() {
			probe := pktgen.Packet{
				Src: crowd.Addr(), Dst: s.Host.Addrs[0].Addr(), Proto: pktgen.ProtoTCP, SrcPort: 4000, DstPort: 1, Flags: pktgen.SYN, TTL: 64,
			}
			_, err := send.Flood(ctx, probe, pktgen.FloodOpts{Count: 1000, Rate: 2000, SourcePrefix: crowd, Sources: 1000})
			flooded <- err
		}()
		for i := 0; ctx.Err() == nil; i++ {
			p := netip.PrefixFrom(netip.AddrFrom4([4]byte{100, byte(n), byte(i >> 8), byte(i)}), 32)
			if _, err := d.Command(t.Context(), "ban", "--for", "1h", p.Addr().String()); err != nil {
				t.Fatal(err)
			}
			made[p], last = true, p
		}
		cancel()
		<-flooded
		d.Kill()
		if n%2 == 1 {
			s.emptyKernel()
		}
		whole(t, s.db)
	}
	if forged == 0 || len(seen) == 0 {
		t.Errorf("%d bans of the forged, %d of them known: nothing was tried", forged, len(seen))
	}
}

// why is what is known of a.
func (d *daemon) why(a netip.Addr) (y view.Why) {
	d.t.Helper()
	out, err := d.Command(d.t.Context(), "why", a.String(), "--json")
	if err := json.Unmarshal(out, &y); err != nil {
		d.t.Fatal(err)
	}
	if _, unknown := errors.AsType[*exec.ExitError](err); err != nil && !unknown {
		d.t.Fatal(err)
	}
	return y
}

// sources are n of those that are written down.
func (d *daemon) sources(n int) []view.Source {
	d.t.Helper()
	out, err := d.Command(d.t.Context(), "sources", "-n", strconv.Itoa(n), "--json")
	check(d.t, err)
	var list view.SourceList
	check(d.t, json.Unmarshal(out, &list))
	return list.Sources
}

// all are the bans in force.
func (d *daemon) all() map[netip.Prefix]view.Ban {
	d.t.Helper()
	out, err := d.Command(d.t.Context(), "bans", "--json")
	check(d.t, err)
	var list view.BanList
	check(d.t, json.Unmarshal(out, &list))
	all := make(map[netip.Prefix]view.Ban)
	for _, b := range list.Bans {
		all[b.Prefix] = b
	}
	return all
}

// whole asks SQLite whether anything is wrong with the file.
func whole(t *testing.T, path string) {
	t.Helper()
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=busy_timeout(5000)")
	check(t, err)
	defer db.Close()
	var said string
	if err := db.QueryRow("PRAGMA integrity_check").Scan(&said); said != "ok" || err != nil {
		t.Fatal(fmt.Sprint(said, err))
	}
}
