package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// way is how a daemon sees probes and bans their sources. The zero way leaves
// that to the daemon.
type way struct {
	name                 string
	capture, blockMethod string  // CAPTURE and BLOCK_METHOD
	perMillion           float64 // target: CPU seconds per million probes recorded
	detect               string  // SCAN_DETECT; "": the daemon's default
}

// ways are in the order of the table.
func ways() []way {
	return []way{
		{"xdp", "xdp", "auto", 2, ""},
		{"afpacket", "afpacket", "nftables", 4, ""},
	}
}

// chooseWays gives the ways of a list of names with commas between.
func chooseWays(list string) ([]way, error) {
	var chosen []way
	for name := range strings.SplitSeq(list, ",") {
		i := slices.IndexFunc(ways(), func(w way) bool { return w.name == name })
		if i < 0 {
			return nil, fmt.Errorf("-ways %s: there are %s", name, wayNames())
		}
		chosen = append(chosen, ways()[i])
	}
	return chosen, nil
}

func wayNames() string {
	var names []string
	for _, w := range ways() {
		names = append(names, w.name)
	}
	return strings.Join(names, ",")
}

// logOnly and banning are the configurations measured.
func (w way) logOnly() map[string]string {
	c := map[string]string{"TCP_PORTS": trapPorts, "UDP_PORTS": "7,9,69", "BLOCK_TCP": "0", "BLOCK_UDP": "0"}
	if w.capture != "" {
		c["CAPTURE"] = w.capture
	}
	if w.detect != "" {
		c["SCAN_DETECT"] = w.detect
	}
	return c
}

func (w way) banning() map[string]string {
	c := w.logOnly()
	maps.Copy(c, map[string]string{"BLOCK_TCP": "1", "BLOCK_UDP": "1", "BLOCK_METHOD": w.blockMethod})
	return c
}

// each runs one section for every chosen way.
func (b *bench) each(f func(way) error) error {
	for _, w := range b.ways {
		if err := f(w); err != nil {
			return fmt.Errorf("%s: %w", w.name, err)
		}
	}
	return nil
}
