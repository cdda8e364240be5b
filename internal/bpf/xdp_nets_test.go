package bpf_test

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"portsentry/internal/bpf"
)

// stated is a ban of a prefix in words.
type stated struct {
	prefix   string
	strength bpf.Strength
	lasts    time.Duration
}

func (r *rig) put(bans ...stated) {
	r.t.Helper()
	var all []bpf.Ban
	for _, b := range bans {
		all = append(all, bpf.Ban{
			Prefix: netip.MustParsePrefix(b.prefix), Strength: b.strength, Protos: bpf.BanAll,
			Until: time.Now().Add(b.lasts), Since: time.Now(),
		})
	}
	r.must(r.PutBans(all))
}

// What a banned range leaves an address in it, beside bans of its own.
func TestNetBans(t *testing.T) {
	r := newRig(t, bpf.SensorOptions{}, bpf.Rules{})
	r.must(r.SetSpare([]netip.Prefix{netip.MustParsePrefix("203.0.113.200/32")}))
	for _, tc := range []struct {
		name string
		bans []stated
		want map[string]outcome
	}{
		{"full", []stated{{"203.0.113.0/24", bpf.Full, time.Hour}}, map[string]outcome{
			"203.0.113.0": full, "203.0.113.255": full, "203.0.112.255": nothing, "203.0.114.0": nothing,
			"203.0.113.200": nothing, // spared
			"::203.0.113.7": nothing,
		}},
		{"soft", []stated{{"203.0.113.0/24", bpf.Soft, time.Hour}}, map[string]outcome{"203.0.113.7": soft, "203.0.114.0": nothing}},
		{"IPv6", []stated{{"2001:db8:2::/48", bpf.Full, time.Hour}, {"2001:db8:3:300::/56", bpf.Soft, time.Hour}}, map[string]outcome{
			"2001:db8:2:ffff::7": full, "2001:db8:1:ffff::7": nothing, "2001:db8:3:3ff::7": soft, "2001:db8:3:400::7": nothing,
		}},
		{"a narrower one that is weaker", []stated{{"203.0.112.0/20", bpf.Full, time.Hour}, {"203.0.113.0/24", bpf.Soft, time.Hour}},
			map[string]outcome{"203.0.113.7": full, "203.0.114.7": full}},
		{"a narrower one that is harder", []stated{{"203.0.113.0/24", bpf.Full, time.Hour}, {"203.0.112.0/20", bpf.Soft, time.Hour}},
			map[string]outcome{"203.0.113.7": full, "203.0.114.7": soft}},
		{"a wider one that has ended", []stated{{"203.0.112.0/20", bpf.Full, -time.Second}, {"203.0.113.0/24", bpf.Soft, time.Hour}},
			map[string]outcome{"203.0.113.7": soft, "203.0.114.7": nothing}},
		{"an address that is banned more gently", []stated{{"203.0.113.0/24", bpf.Soft, time.Hour}, {"203.0.113.7/32", bpf.Limited, time.Hour}},
			map[string]outcome{"203.0.113.7": soft}},
		{"an address that is banned harder", []stated{{"203.0.113.0/24", bpf.Soft, time.Hour}, {"203.0.113.7/32", bpf.Full, time.Hour}},
			map[string]outcome{"203.0.113.7": full, "203.0.113.8": soft}},
		{"an address that is pardoned", []stated{{"203.0.113.0/24", bpf.Soft, time.Hour}, {"203.0.113.7/32", bpf.Pardon, time.Hour}},
			map[string]outcome{"203.0.113.7": soft}},
		{"everybody but half", []stated{{"128.0.0.0/1", bpf.Full, time.Hour}}, map[string]outcome{"203.0.113.7": full, "127.255.255.255": nothing}},
	} {
		r.put(tc.bans...)
		for src, want := range tc.want {
			r.check(tc.name+": "+src, frame(t, tcp(netip.MustParseAddr(src), noTrap, syn)), want)
		}
		for _, b := range tc.bans {
			r.must(r.DeleteBan(netip.MustParsePrefix(b.prefix)))
		}
		r.check(tc.name+", lifted", frame(t, tcp(from4, noTrap, syn)), nothing)
	}
	// What goes through this host is dropped by a full ban alone, as of an address.
	r.put(stated{"203.0.113.0/24", bpf.Full, time.Hour})
	through := tcp(from4, noTrap, syn)
	through.Dst = other4
	r.check("through this host", frame(t, through), full)
	r.put(stated{"203.0.113.0/24", bpf.Soft, time.Hour})
	r.check("through this host, soft", frame(t, through), nothing)
}

// A wider ban that ends leaves the narrower one in force, though nobody does anything
// then, and the other way round.
func TestNetBanEnds(t *testing.T) {
	r := newRig(t, bpf.SensorOptions{}, bpf.Rules{})
	const short = 300 * time.Millisecond
	r.put(stated{"203.0.112.0/20", bpf.Full, short}, stated{"203.0.113.0/24", bpf.Soft, time.Hour},
		stated{"2001:db8::/32", bpf.Soft, time.Hour}, stated{"2001:db8:2::/48", bpf.Full, short})
	verdict := func(src string) outcome {
		got := outcome{verdict: r.run(frame(t, tcp(netip.MustParseAddr(src), noTrap, syn)))}
		got.tally = r.counted()
		return got
	}
	ends := time.Now().Add(short)
	for _, src := range []string{"203.0.113.7", "203.0.114.7", "2001:db8:2::7"} {
		if got := verdict(src); got != full && time.Now().Before(ends) {
			t.Errorf("%s at first: %+v", src, got)
		}
	}
	for deadline := time.Now().Add(5 * time.Second); verdict("203.0.114.7") != nothing && time.Now().Before(deadline); {
	}
	for src, want := range map[string]outcome{"203.0.113.7": soft, "203.0.114.7": nothing, "2001:db8:2::7": soft, "2001:db8:3::7": soft} {
		if got := verdict(src); got != want {
			t.Errorf("%s then: %+v, want %+v", src, got, want)
		}
	}
	if left, err := r.Sweep(); left != 2 || err != nil {
		t.Errorf("%d left, %v", left, err)
	}
	if got := verdict("2001:db8:2::7"); got != soft {
		t.Errorf("swept: %+v", got)
	}
}

// What a range has dropped is counted, and goes on to be when it is banned anew.
func TestNetBanCounts(t *testing.T) {
	r := newRig(t, bpf.SensorOptions{}, bpf.Rules{})
	r.put(stated{"203.0.113.0/24", bpf.Soft, time.Hour}, stated{"203.0.112.0/20", bpf.Soft, time.Hour})
	for range 3 {
		r.run(frame(t, tcp(from4, noTrap, syn)))
	}
	r.run(frame(t, tcp(netip.MustParseAddr("203.0.114.7"), noTrap, syn)))
	r.put(stated{"203.0.113.0/24", bpf.Full, 2 * time.Hour})
	r.run(frame(t, tcp(from4, noTrap, syn)))
	for p, want := range map[string]uint64{"203.0.113.0/24": 4, "203.0.112.0/20": 1} {
		if b, there, err := r.Ban(netip.MustParsePrefix(p)); !there || err != nil || b.Dropped != want || b.Prefix.String() != p {
			t.Errorf("%+v, %v, %v: want %d dropped", b, there, err, want)
		}
	}
	// One that is not there is not taken for the wider one.
	if b, there, err := r.Ban(netip.MustParsePrefix("203.0.113.0/25")); there || err != nil {
		t.Errorf("%+v, %v", b, err)
	}
}

// There is room for so many, and all of a batch or none are put in force.
func TestNetBansAllOrNone(t *testing.T) {
	r := newRig(t, bpf.SensorOptions{Bans: 1}, bpf.Rules{})
	var all []stated
	for i := range bpf.MaxNets {
		all = append(all, stated{fmt.Sprintf("10.%d.%d.0/24", i/256, i%256), bpf.Soft, time.Hour})
	}
	r.put(all...)
	hour := time.Now().Add(time.Hour)
	ban := func(p string) bpf.Ban {
		return bpf.Ban{Prefix: netip.MustParsePrefix(p), Strength: bpf.Full, Protos: bpf.BanAll, Until: hour}
	}
	if err := r.PutBans([]bpf.Ban{ban("11.0.0.0/8")}); !errors.Is(err, bpf.ErrBansFull) {
		t.Errorf("one more: %v", err)
	}
	if err := r.PutBans([]bpf.Ban{ban("10.0.0.0/24"), ban("192.0.2.1/32"), ban("192.0.2.2/32")}); !errors.Is(err, bpf.ErrBansFull) {
		t.Errorf("more addresses than there is room for: %v", err)
	}
	n := 0
	r.must(r.EachBan(func(b *bpf.Ban) bool {
		if n++; b.Strength != bpf.Soft || b.Prefix.Bits() != 24 {
			t.Errorf("there is %+v", b)
		}
		return true
	}))
	if n != bpf.MaxNets {
		t.Errorf("%d bans", n)
	}
	for _, bad := range []bpf.Ban{
		ban("0.0.0.0/0"), ban("::ffff:10.0.0.0/112"),
		{Prefix: netip.MustParsePrefix("12.0.0.0/8"), Strength: bpf.Limited, Protos: bpf.BanAll, Until: hour},
		{Prefix: netip.MustParsePrefix("12.0.0.0/8"), Strength: bpf.Soft, Protos: bpf.BanTCP, Until: hour},
	} {
		if err := r.PutBans([]bpf.Ban{bad}); err == nil {
			t.Errorf("taken: %+v", bad)
		}
	}
}

// Banned ranges outlive the process, and hold the folder that they are in.
func TestNetBansArePinned(t *testing.T) {
	bpf.EnterSpace(t)
	parent := t.TempDir()
	if err := unix.Mount("bpf", parent, "bpf", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(parent, unix.MNT_DETACH) })
	folder := filepath.Join(parent, "ours")
	o := bpf.SensorOptions{Folder: folder}
	s, err := bpf.OpenSensor(o)
	if err != nil {
		t.Fatal(err)
	}
	banned := bpf.Ban{Prefix: netip.MustParsePrefix("203.0.113.0/24"), Strength: bpf.Full, Protos: bpf.BanAll, Until: time.Now().Add(time.Hour), Times: 3}
	if err := s.PutBans([]bpf.Ban{banned}); err != nil {
		t.Fatal(err)
	}
	if err := s.Rest(); err != nil {
		t.Fatal(err)
	}
	if err := bpf.ClearAway(filepath.Join(parent, "theirs")); err != nil {
		t.Fatal(err)
	}
	next, err := bpf.OpenSensor(o)
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	got, there, err := next.Ban(banned.Prefix)
	if !there || err != nil || got.Times != 3 || got.Until.Sub(banned.Until).Abs() > time.Second {
		t.Errorf("%+v, %v, %v", got, there, err)
	}
	r := &rig{Sensor: next, t: t}
	r.verdictOf("after the restart", frame(t, tcp(from4, noTrap, syn)), drop)
}
