package state_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"testing"
	"time"

	_ "modernc.org/sqlite"

	"portsentry/internal/pktgen"
	"portsentry/internal/view"
)

// crowd is who scans meanwhile: nobody has these addresses.
var crowd = netip.MustParsePrefix("198.18.0.0/15")

// Whatever the moment at which it is killed, the database is whole, no ban that a person
// has made is lost, and none lasts for ever.
func TestKilled(t *testing.T) {
	kills := 3
	if os.Getenv("PORTSENTRY_LONG") == "1" {
		kills = 100
	}
	s := newStage(t)
	send, err := s.Scanner.Sender()
	check(t, err)
	t.Cleanup(func() { send.Close() })
	made := make(map[netip.Prefix]bool)
	for n := range kills {
		d := s.start(map[string]string{"BAN_TIME_UNVERIFIED": "1h", "BAN_TIME": "1h"})
		stand := d.all()
		for p := range made {
			if _, is := stand[p]; !is {
				t.Fatalf("after %d kills: the ban of %s is lost", n, p)
			}
		}
		for p, b := range stand {
			if b.Until == nil || time.Until(*b.Until) > 61*time.Minute {
				t.Fatalf("after %d kills: the ban of %s lasts until %v", n, p, b.Until)
			}
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
			made[p] = true
		}
		cancel()
		<-flooded
		d.Kill()
		if n%2 == 1 {
			s.emptyKernel()
		}
		whole(t, s.db)
	}
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
