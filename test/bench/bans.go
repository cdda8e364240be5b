package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"portsentry/internal/bpf"
	"portsentry/internal/judge"
	"portsentry/internal/respond"
	"portsentry/internal/respond/xdp"
)

// manyBans is how many the table of the XDP program is measured with.
const manyBans = 1_000_000

// bans measures the table of bans of the XDP program, without a daemon: a million
// of them put in force, and those of an earlier run found again.
func (b *bench) bans(ctx context.Context) (err error) {
	mount := filepath.Join(b.dir, "bpf")
	if err := os.Mkdir(mount, 0o700); err != nil {
		return err
	}
	if err := unix.Mount("bpf", mount, "bpf", 0, ""); err != nil {
		return fmt.Errorf("mount a BPF file system: %w", err)
	}
	defer func() { err = errors.Join(err, unix.Unmount(mount, 0)) }()

	all := banList(b.count(manyBans))
	empty, took, full, err := b.putBans(ctx, all)
	if err != nil {
		return err
	}
	b.note("xdp", thousands(len(all))+" bans put in force at once", "%v; %.1f MiB of BPF maps, %.0f bytes a ban",
		took.Round(time.Millisecond), mib(full), float64(full-empty)/float64(len(all)))
	for _, c := range []struct {
		n     int
		limit time.Duration
	}{{100_000, 2 * time.Second}, {550_000, 10 * time.Second}} {
		n := b.count(c.n)
		opened, listed, err := restoreBans(ctx, filepath.Join(mount, "portsentry"), all[:n])
		if err != nil {
			return err
		}
		b.row("xdp", thousands(n)+" bans of an earlier run found in the kernel", fmt.Sprintf("at most %v", c.limit), opened+listed <= c.limit,
			"%v to take over, %v to list", opened.Round(time.Millisecond), listed.Round(time.Millisecond))
	}
	return nil
}

// putBans puts bans into a new table. What BPF maps take, in bytes, is as the
// kernel says, before and after.
func (b *bench) putBans(ctx context.Context, bans []respond.Ban) (empty int64, took time.Duration, full int64, err error) {
	s, err := bpf.OpenSensor(bpf.SensorOptions{Bans: manyBans})
	if err != nil {
		return 0, 0, 0, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	empty = mapBytes()
	begin := time.Now()
	err = xdp.New(s).BanAll(ctx, bans)
	return empty, time.Since(begin), mapBytes(), err
}

// restoreBans leaves bans in a folder, as a daemon that stops does, and finds them
// again as the next one does.
func restoreBans(ctx context.Context, folder string, bans []respond.Ban) (opened, listed time.Duration, err error) {
	o := bpf.SensorOptions{Bans: manyBans, Folder: folder}
	before, err := bpf.OpenSensor(o)
	if err != nil {
		return 0, 0, err
	}
	if err := errors.Join(xdp.New(before).BanAll(ctx, bans), before.Leave()); err != nil {
		return 0, 0, err
	}
	begin := time.Now()
	s, err := bpf.OpenSensor(o)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	opened = time.Since(begin)
	found, err := xdp.New(s).Existing(ctx)
	listed = time.Since(begin) - opened
	if err == nil && len(found) != len(bans) {
		err = fmt.Errorf("%d of %d bans found again", len(found), len(bans))
	}
	return opened, listed, err
}

// banList are n bans of an hour, every fourth of an IPv6 /64.
func banList(n int) []respond.Ban {
	bans, now := make([]respond.Ban, n), time.Now()
	v4, v6 := netip.MustParseAddr("11.0.0.0"), [16]byte{0x20, 0x01, 0x0d, 0xb8}
	for i := range bans {
		b := &bans[i]
		b.Strength, b.Evidence, b.Since, b.Until, b.Times = judge.Soft, judge.E1, now, now.Add(time.Hour), 1
		b.Kind, b.Port, b.Proto = "syn", trapPort, unix.IPPROTO_TCP
		if i%4 == 3 {
			v6[5], v6[6], v6[7] = byte(i>>16), byte(i>>8), byte(i)
			b.Prefix = netip.PrefixFrom(netip.AddrFrom16(v6), 64)
			continue
		}
		b.Prefix = netip.PrefixFrom(v4, 32)
		v4 = v4.Next()
	}
	return bans
}

// mapBytes is what the BPF maps that this process holds open take, in bytes.
func mapBytes() (sum int64) {
	entries, _ := os.ReadDir("/proc/self/fdinfo")
	seen := make(map[string]bool) // by number of the map
	for _, e := range entries {
		info, _ := os.ReadFile("/proc/self/fdinfo/" + e.Name()) // it may be closed by now
		var id string
		var size int64
		for lines := bufio.NewScanner(bytes.NewReader(info)); lines.Scan(); {
			fields := strings.Fields(lines.Text())
			switch {
			case len(fields) != 2:
			case fields[0] == "map_id:":
				id = fields[1]
			case fields[0] == "memlock:":
				_, _ = fmt.Sscan(fields[1], &size)
			}
		}
		if id != "" && !seen[id] {
			seen[id] = true
			sum += size
		}
	}
	return sum
}
