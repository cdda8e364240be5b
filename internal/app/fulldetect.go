package app

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
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
// sources for days, and of many of them together. It is detect.Past and full.Crowd to
// them; each call is short, and few packets lead to one.
type fullDetect struct {
	labels *tools.Set
	secret uint64

	mu    sync.Mutex
	long  *memory.Long
	crowd *crowd.Crowd
	told  map[uint64]bool // groups that have been told of
}

// newFullDetect takes up again what an earlier run has left in path ("": nothing). With
// an error it begins with nothing, and is as good as any.
func newFullDetect(path string) (f *fullDetect, err error) {
	labels, err := tools.Load()
	if err != nil {
		return nil, fmt.Errorf("the signatures of tools: %w", err)
	}
	f = &fullDetect{labels: labels, crowd: crowd.New(crowd.Options{KeyBits: keyBits(labels)}), told: make(map[uint64]bool)}
	f.long, err = loadLong(path)
	f.secret = f.long.Secret()
	return f, err
}

func loadLong(path string) (*memory.Long, error) {
	empty := memory.New(memory.Options{})
	if path == "" {
		return empty, nil
	}
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return empty, nil
	}
	if err != nil {
		return empty, err
	}
	defer file.Close()
	long, err := memory.Load(file, memory.Options{})
	if err != nil {
		return empty, fmt.Errorf("%s: %w", path, err)
	}
	return long, nil
}

// save writes what is known to path, in whole or not at all.
func (f *fullDetect) save(path string) error {
	var b bytes.Buffer
	f.mu.Lock()
	err := f.long.Save(&b)
	f.mu.Unlock()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	whole, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(whole.Name()) // gone when all went well
	_, err = b.WriteTo(whole)
	if err = errors.Join(err, whole.Sync(), whole.Close()); err != nil {
		return err
	}
	return os.Rename(whole.Name(), path)
}

// engine makes that of a worker.
func (f *fullDetect) engine(own func(netip.Addr) bool) *full.Engine {
	return full.New(full.Options{
		Sources: full.DefaultSources / workers(), Local: own, Labels: f.labels, Past: f, Crowd: f, Key: f.secret,
	})
}

// Recall is for detect.Past.
func (f *fullDetect) Recall(a netip.Addr, now int64) (detect.Memory, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.long.Recall(a, now)
}

// Keep is for detect.Past.
func (f *fullDetect) Keep(a netip.Addr, m detect.Memory) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.long.Keep(a, m)
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

// news are sentences about what many sources do together, each once.
func (f *fullDetect) news(now time.Time) (said []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.crowd.Tick(now.UnixNano())
	for g := range f.crowd.Groups() {
		if f.told[g.ID] {
			continue
		}
		if len(f.told) >= maxTold {
			clear(f.told)
		}
		f.told[g.ID] = true
		said = append(said, fmt.Sprintf("campaign %d: %s", g.ID, g.Reason))
	}
	for n := range f.crowd.Notices() {
		over := ""
		if n.End != 0 {
			over = "; it is over"
		}
		said = append(said, fmt.Sprintf("%s: %s%s", n.What, n.Reason, over))
	}
	return said
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
		d.hearCrowd(f)
	}
	return f, nil
}

// hearCrowd says what many sources do together, as long as packets come in.
func (d *daemon) hearCrowd(f *fullDetect) {
	d.capturing.start("crowd", func(ctx context.Context) error {
		tick := time.NewTicker(tellEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return nil
			case now := <-tick.C:
				for _, said := range f.news(now) {
					d.log.Notice("adminalert: " + said)
				}
			}
		}
	})
}

// closeFullDetect keeps what is known for the next run. No packets come in any more.
func (d *daemon) closeFullDetect() error {
	c, f := d.conf.Load(), d.full.Load()
	if f == nil || c.SourcesFile == "" {
		return nil
	}
	var all []*pipeline
	if s := d.sensor.Load(); s != nil {
		all = append(all, s.pipelines...)
	}
	if p := d.packets.Load(); p != nil {
		all = append(all, p.pipelines...)
	}
	for _, p := range all {
		if s := p.scans.Load(); s != nil {
			s.scanner.Remember()
		}
	}
	if err := f.save(c.SourcesFile); err != nil {
		return fmt.Errorf("what is known of sources is not kept: %w", err)
	}
	return nil
}
