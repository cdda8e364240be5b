package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"portsentry/internal/config"
	"portsentry/internal/detect/full"
	"portsentry/internal/detect/memory"
)

// keepEvery is how often what is known of sources is written: so much of it is lost
// with the power.
const keepEvery = 10 * time.Minute

// knownFile is SOURCES_FILE.
type knownFile struct {
	mu    sync.Mutex // one writes at a time
	path  string     // "": nothing is kept
	inWay bool       // what is there could not be read, so it is not ours to replace
}

func (k *knownFile) set(path string, inWay bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.path, k.inWay = path, inWay
}

// loadLong is what is in path, as much as nothing where there is nothing.
func loadLong(path string) (*memory.Long, error) {
	empty := memory.New(memory.Options{})
	if path == "" {
		return empty, nil
	}
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // a pipe must not hold up the start
	if errors.Is(err, fs.ErrNotExist) {
		return empty, nil
	}
	if err != nil {
		return empty, err
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return empty, errors.Join(err, fmt.Errorf("%s is no regular file; move it aside", path))
	}
	long, err := memory.Load(file, memory.Options{})
	if err != nil {
		return empty, fmt.Errorf("%s: %w", path, err)
	}
	return long, nil
}

// save writes what is known to the file, in whole or not at all. Packets go on being
// looked at meanwhile, however slow the disk is.
func (f *fullDetect) save() error {
	k := &f.file
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.path == "" || k.inWay && exists(k.path) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(k.path), 0o755); err != nil {
		return err
	}
	whole := k.path + ".new"
	if err := os.Remove(whole); err != nil && !errors.Is(err, fs.ErrNotExist) { // of a run that was killed
		return err
	}
	w, err := os.OpenFile(whole, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	err = f.long.Save(w, &f.mu)
	if err == nil {
		err = w.Sync()
	}
	if closed := w.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(whole, k.path)
	}
	if err != nil {
		os.Remove(whole)
		return err
	}
	k.inWay = false
	return nil
}

// blocked reports whether what was there could not be read, and was still there when
// it was to be written.
func (k *knownFile) blocked() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.inWay
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

// engine is the engine of one worker, which goes on after Remember.
type engine struct {
	*full.Engine
	past *memory.Batch
}

// Remember is for scanner.
func (e *engine) Remember() { e.past.Still(e.Engine.Remember) }

// pipelines are those of all workers.
func (d *daemon) pipelines() (all []*pipeline) {
	if s := d.sensor.Load(); s != nil {
		all = append(all, s.pipelines...)
	}
	if p := d.packets.Load(); p != nil {
		all = append(all, p.pipelines...)
	}
	return all
}

// keep writes what is known of sources, that of the workers too.
func (d *daemon) keep(f *fullDetect) error {
	for _, p := range d.pipelines() {
		if s := p.scans.Load(); s != nil {
			s.remember()
		}
	}
	if err := f.save(); err != nil {
		return fmt.Errorf("what is known of sources is not kept: %w", err)
	}
	return nil
}

// keepOn is keep for a daemon that goes on with whatever comes of it.
func (d *daemon) keepOn(f *fullDetect) {
	said := ""
	if err := d.keep(f); err != nil {
		said = err.Error()
	} else if !f.file.blocked() {
		d.problems.set("sources", "") // it was moved out of the way
	}
	d.problems.set("sources kept", said)
}

// keepKnown writes now and then what is known of sources, as long as f is in use.
func (d *daemon) keepKnown(ctx context.Context, f *fullDetect) error {
	return f.each(ctx, keepEvery, func(time.Time) { d.keepOn(f) })
}

// closeFullDetect keeps what is known for the next run. No packets come in any more.
func (d *daemon) closeFullDetect() error {
	if f := d.full.Load(); f != nil {
		return d.keep(f)
	}
	return nil
}

// setKnown has what is known of sources follow c, which is in force. Where scans are
// found no more it is written, and let go of. Another SOURCES_FILE is taken up, if
// there is one, and begun with what is known if not; the old one stays as it was at
// last.
func (d *daemon) setKnown(c *config.Config) {
	f := d.full.Load()
	switch {
	case f == nil:
	case !findsScans(c):
		d.keepOn(f)
		d.dropKnown()
	case c.SourcesFile != f.file.path: // this goroutine alone writes it
		d.keepOn(f)
		d.problems.set("sources", "")
		if c.SourcesFile != "" && exists(c.SourcesFile) {
			d.takeUp(f, c.SourcesFile)
			return
		}
		f.file.set(c.SourcesFile, false)
		d.keepOn(f)
	}
}

// takeUp has the workers go on with what is known in path, not with f. If that cannot
// be read, they go on as before.
func (d *daemon) takeUp(f *fullDetect, path string) {
	other, err := newFullDetect(path)
	if err != nil {
		d.problems.set("sources", fmt.Sprintf("what is known of sources is not kept: %v", err))
		f.file.set(path, true)
		return
	}
	d.full.Store(other)
	for _, p := range d.pipelines() {
		p.scans.Store(d.scansOf(other))
	}
	close(f.over)
	d.runFull(other)
}

// dropKnown lets go of what is known of sources, if there is any.
func (d *daemon) dropKnown() {
	if f := d.full.Swap(nil); f != nil {
		close(f.over)
	}
}

// scansOf makes what a worker has besides to find scans with f.
func (d *daemon) scansOf(f *fullDetect) *scans {
	return newScans(f.engine(func(a netip.Addr) bool { return d.facts.watcher.Snapshot().IsOwn(a) }))
}
