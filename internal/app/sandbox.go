package app

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"portsentry/internal/config"
	"portsentry/internal/proc"
)

// readable is where the facts of this machine are read (package host), beside the
// configuration: a file there may be another one tomorrow, so it is the folders.
var readable = []string{
	"/etc", "/proc", "/sys", "/run", "/var/run", "/dev", "/usr/share/zoneinfo",
	"/var/lib/NetworkManager", "/var/lib/dhcp", "/var/lib/dhclient", // leases
}

// pinned is the file system of what outlives us in the kernel.
const pinned = "/sys/fs/bpf"

// enterSandbox gives up what is not needed any more, when everything is open.
func (d *daemon) enterSandbox() {
	if err := proc.DropTo(d.capabilities()...); err != nil {
		d.problems.set("capabilities", fmt.Sprintf("more privileges are kept than are needed: %v", err))
	}
	c := d.conf.Load()
	s := &proc.Sandbox{Read: readable, Write: []string{pinned}, Helper: d.helper}
	for _, f := range writtenFiles(c) {
		s.Write = append(s.Write, filepath.Dir(f.path))
	}
	for _, f := range readFiles(c) {
		s.Read = append(s.Read, filepath.Dir(f.path))
	}
	own := []string{d.o.Socket, d.o.PIDFile}
	if strings.HasPrefix(c.MetricsListen, "/") {
		own = append(own, c.MetricsListen)
	}
	for _, path := range own {
		if path != "" {
			s.Remove = append(s.Remove, filepath.Dir(path)) // at the stop
		}
	}
	d.sandbox, d.lacks = s, s.Enter()
}

// capabilities are those that are needed from here on.
func (d *daemon) capabilities() []proc.Capability {
	keep := []proc.Capability{proc.NetAdmin, proc.NetRaw, proc.DACOverride}
	if d.sensor.Load() != nil {
		keep = append(keep, proc.BPF) // interfaces that appear later
	}
	if accepts(d.conf.Load().Modes) || d.o.Dialect == config.Dialect1x {
		// For trap ports that a reload adds, or a second start with a flag of 1.x.
		keep = append(keep, proc.BPF, proc.NetBindService)
	}
	return keep
}

// named is a file under the key that names it.
type named struct{ key, path string }

// writtenFiles are the files of c that are written, readFiles those that are only
// read.
func writtenFiles(c *config.Config) []named {
	return given(named{"HISTORY_FILE", c.HistoryFile}, named{"BLOCKED_FILE", c.BlockedFile},
		named{"SOURCES_FILE", c.SourcesFile}, named{"DATABASE_FILE", c.DatabaseFile})
}

func readFiles(c *config.Config) []named {
	all := given(named{"", c.Path}, named{"IGNORE_FILE", c.IgnoreFile})
	for _, path := range c.GeoFiles {
		all = append(all, given(named{"GEO_FILES", path})...)
	}
	return all
}

func given(files ...named) (out []named) {
	for _, f := range files {
		if f.path != "" {
			out = append(out, f)
		}
	}
	return out
}

// reaches refuses a configuration with files in folders that were none of ours at
// the start: the right to open them is gone for good.
func (d *daemon) reaches(next *config.Config) error {
	var all []error
	refuse := func(f named, verb string) {
		all = append(all, fmt.Errorf("%s: %s is in a folder that portsentry gave up the right to %s at its start; restart it once", f.key, f.path, verb))
	}
	for _, f := range writtenFiles(next) {
		if !d.sandbox.Writes(f.path) {
			refuse(f, "write to")
		}
	}
	for _, f := range readFiles(next) {
		if !d.sandbox.Reads(f.path) {
			refuse(f, "read")
		}
	}
	return errors.Join(all...)
}
