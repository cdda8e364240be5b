package app

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"portsentry/internal/config"
	"portsentry/internal/detect"
	"portsentry/internal/detect/crowd"
	"portsentry/internal/detect/full"
	"portsentry/internal/detect/memory"
	"portsentry/internal/detect/tools"
)

// fullDetect is what the engines of all workers have in common: what is known of
// sources for days, and of many of them together. It is full.Crowd to them; each call is
// short.
type fullDetect struct {
	labels *tools.Set
	secret uint64

	mu    sync.Mutex
	long  *memory.Long
	crowd *crowd.Crowd
	told  map[uint64]int // groups that have been told of: how many of their members
	names pace           // of members

	file knownFile
	over chan struct{} // closed when nobody uses it any more
}

// newFullDetect takes up again what an earlier run has left in path ("": nothing). With
// an error it begins with nothing, and is as good as any.
func newFullDetect(path string) (f *fullDetect, err error) {
	labels, err := tools.Load()
	if err != nil {
		return nil, fmt.Errorf("the signatures of tools: %w", err)
	}
	f = &fullDetect{
		labels: labels, crowd: crowd.New(crowd.Options{KeyBits: keyBits(labels)}), told: make(map[uint64]int), over: make(chan struct{}), names: memberNames,
	}
	f.long, err = loadLong(path)
	f.secret = f.long.Secret()
	f.file.set(path, err != nil)
	return f, err
}

// engine makes that of a worker.
func (f *fullDetect) engine(own func(netip.Addr) bool) scanner {
	p := memory.NewBatch(f.long, &f.mu)
	return &engine{past: p, Engine: full.New(full.Options{
		Sources: full.DefaultSources / workers(), Local: own, Labels: f.labels, Past: p, Crowd: f, Key: f.secret,
	})}
}

// Contact is for full.Crowd.
func (f *fullDetect) Contact(c *detect.Contact, t detect.Tool, run uint64) uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.crowd.Contact(c, t, run)
}

// Flooded is for full.Crowd.
func (f *fullDetect) Flooded(proto uint8, port uint16) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.crowd.Flooded(proto, port)
}

// Flooding is for full.Crowd.
func (f *fullDetect) Flooding() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.crowd.Flooding()
}

// Tick is for full.Crowd.
func (f *fullDetect) Tick(now int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.crowd.Tick(now)
}

// maxTold bounds the groups that are remembered as told of.
const maxTold = 4096

// memberNames bounds how many members of sweeps are named one by one. The campaign itself
// is told of in any case.
var memberNames = pace{every: 10 * time.Second, ahead: 512 * 10 * time.Second}

// news are sentences about what many sources do together, each once; and those who have
// their part in a sweep, each with its number and with how many they are.
func (f *fullDetect) news(now time.Time) (said []string, members map[netip.Addr]uint64, count map[uint64]int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.crowd.Tick(now.UnixNano())
	for g := range f.crowd.Groups() {
		named, known := f.told[g.ID]
		if !known {
			if len(f.told) >= maxTold {
				clear(f.told)
			}
			said = append(said, fmt.Sprintf("campaign %d: %s", g.ID, g.Reason))
		}
		if g.Shared {
			if members == nil {
				members, count = make(map[netip.Addr]uint64), make(map[uint64]int)
			}
			count[g.ID] = g.Count
			for ; named < len(g.Members) && f.names.may(now.UnixNano()); named++ {
				members[g.Members[named]] = g.ID
			}
		}
		f.told[g.ID] = named
	}
	for n := range f.crowd.Notices() {
		over := ""
		if n.End != 0 {
			over = "; it is over"
		}
		said = append(said, fmt.Sprintf("%s: %s%s", n.What, n.Reason, over))
	}
	return said, members, count
}

// ofMany is why a source is named that has its part in a sweep.
func ofMany(s *detect.Scan, count int) string {
	return fmt.Sprintf("%s; it is one of %d that share out a sweep", s.Reason, count)
}

// horizon is the longest pause between the probes of a scan of five ports that is
// still found.
func horizon() time.Duration {
	const ports = 5
	return memory.Horizon(ports, float64(full.Step), float64(full.Threshold), memory.DefaultHalfLife)
}

// tellEvery is how often there may be news of what many sources do.
const tellEvery = 2 * time.Second

// fullFor gives what the engines have in common, and makes it when c is the first to
// ask for it.
func (d *daemon) fullFor(c *config.Config) (*fullDetect, error) {
	if f := d.full.Load(); f != nil {
		return f, nil
	}
	f, err := newFullDetect(c.SourcesFile)
	if f == nil {
		return nil, err
	}
	if err != nil {
		d.problems.set("sources", fmt.Sprintf("what was known of sources is gone: %v", err))
	}
	d.full.Store(f)
	if d.capturing != nil { // a reload wants it
		d.runFull(f)
	}
	return f, nil
}

// runFull starts what goes on besides, as long as packets come in and f is in use.
func (d *daemon) runFull(f *fullDetect) {
	d.hearCrowd(f)
	d.capturing.start("sources file", func(ctx context.Context) error { return d.keepKnown(ctx, f) })
}

// hearCrowd says what many sources do together, as long as packets come in.
func (d *daemon) hearCrowd(f *fullDetect) {
	d.capturing.start("crowd", func(ctx context.Context) error {
		return f.each(ctx, tellEvery, func(now time.Time) {
			sentences, members, count := f.news(now)
			for _, said := range sentences {
				d.log.Notice("adminalert: " + said)
			}
			if len(members) > 0 {
				d.tellShared(members, count)
			}
		})
	})
}

// each does something once a period until ctx ends or f is not in use any more.
func (f *fullDetect) each(ctx context.Context, period time.Duration, do func(now time.Time)) error {
	tick := time.NewTicker(period)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-f.over:
			return nil
		case now := <-tick.C:
			do(now)
		}
	}
}

// tellShared writes down what members of sweeps have done.
func (d *daemon) tellShared(members map[netip.Addr]uint64, count map[uint64]int) {
	for _, p := range d.pipelines() {
		s := p.scans.Load()
		if s == nil {
			continue
		}
		for _, scan := range s.shared(members) {
			if !d.facts.spares(scan.Source, netip.Addr{}) {
				scan.Reason = ofMany(&scan, count[scan.Campaign])
				d.log.Shared(&scan)
			}
		}
	}
}
