package config

import (
	"slices"
	"strings"
)

// filler turns assignments into a Config: keys and values first, then what
// the settings say about each other.
type filler struct {
	c     *Config
	rep   *report
	seen  map[string]assignment // the first of each key, blank values too
	given map[string]int        // line of each key with a value, good or bad
	meant map[string]bool       // keys that a misspelt one probably stands for
}

func fill(c *Config, all []assignment, rep *report) {
	f := filler{c, rep, map[string]assignment{}, map[string]int{}, map[string]bool{}}
	table := settings(c)
	names := make([]string, len(table))
	byKey := make(map[string]setting, len(table))
	for i, s := range table {
		names[i], byKey[s.key] = s.key, s
		if s.def != "" {
			s.read(s.def)
		}
	}
	for _, a := range all {
		if s, ok := byKey[a.key]; ok {
			f.set(s, a)
		} else {
			f.unknown(a, names)
		}
	}
	f.block("BLOCK_TCP", c.BlockTCP)
	f.block("BLOCK_UDP", c.BlockUDP)
	f.undo("KILL_ROUTE_UNDO", "KILL_ROUTE", "KILL_ROUTE6")
	f.undo("KILL_RUN_CMD_UNDO", "KILL_RUN_CMD")
}

func (f *filler) unknown(a assignment, names []string) {
	if f.rep.full() {
		f.rep.more++
		return
	}
	s := Suggest(a.key, names)
	switch {
	case s == "":
		f.rep.add(a.line, a.key, "no such key")
		return
	case strings.EqualFold(s, a.key):
		f.rep.add(a.line, a.key, "no such key; keys are in capitals: %s", s)
	default:
		f.rep.add(a.line, a.key, "no such key; did you mean %s?", s)
	}
	f.meant[s] = true
}

// set stores one value. A key may be there twice if both say the same.
func (f *filler) set(s setting, a assignment) {
	if a.bad {
		f.meant[s.key] = true
		return
	}
	if first, twice := f.seen[s.key]; !twice {
		f.seen[s.key] = a
	} else if first.value != a.value {
		f.rep.add(a.line, s.key, "is set twice (line %d says %s, this says %s); PortSentry 1.x took the first, 2.x the last: keep one",
			first.line, said(first.value), said(a.value))
	}
	if strings.Trim(a.value, blanks) == "" {
		return
	}
	if f.given[s.key] == 0 {
		f.given[s.key] = a.line
	}
	problems := s.read(a.value)
	for _, p := range problems {
		f.rep.add(a.line, s.key, "%s", p)
	}
	if problems == nil && f.c.lines[s.key] == 0 {
		f.c.lines[s.key] = a.line
	}
}

func said(value string) string {
	if value == "" {
		return "nothing"
	}
	return brief(value)
}

// has reports whether one of the keys has a value, or was meant to.
func (f *filler) has(keys ...string) bool {
	for _, k := range keys {
		if f.given[k] > 0 || f.meant[k] {
			return true
		}
	}
	return false
}

// block asks that there is something to answer with. 2.x refused 1 where
// there was KILL_RUN_CMD only; 1.x ran it, and so do we.
func (f *filler) block(key string, b Block) {
	native := len(f.c.BlockMethods) > 0 || f.has("BLOCK_METHOD") && f.c.lines["BLOCK_METHOD"] == 0
	// A route and an ipset keep out whole hosts; 2 is for one protocol.
	whole := !slices.ContainsFunc(f.c.BlockMethods, func(m Method) bool { return m != MethodRoute && m != MethodIPSet })
	switch {
	case f.has("KILL_RUN_CMD"):
	case native && b == BlockCommand && len(f.c.BlockMethods) > 0 && whole:
		f.rep.add(f.given[key], key, `"2": no command to run, and BLOCK_METHOD=%q cannot ban one protocol alone; set KILL_RUN_CMD, add nftables, or write "1"`, showMethods(f.c.BlockMethods))
	case native:
	case b == BlockBan && !f.has("KILL_ROUTE", "KILL_ROUTE6", "KILL_HOSTS_DENY"):
		f.rep.add(f.given[key], key, `"1": nothing to ban with; set BLOCK_METHOD="auto", KILL_ROUTE or KILL_HOSTS_DENY, or write "0" to log only`)
	case b == BlockCommand:
		f.rep.add(f.given[key], key, `"2": no command to run; set KILL_RUN_CMD, or BLOCK_METHOD="auto", or write "0" to log only`)
	}
}

func (f *filler) undo(key string, keys ...string) {
	if line := f.given[key]; line > 0 && !f.has(keys...) {
		f.rep.add(line, key, "nothing to undo: %s is not set", strings.Join(keys, " or "))
	}
}
