package log

import (
	"net/netip"

	"portsentry/internal/config"
	"portsentry/internal/decode"
	"portsentry/internal/judge"
	"portsentry/internal/store"
)

// scan2x writes the lines of PortSentry 2.x in its order: why nothing was done,
// or what was, then the scan line. It said "Ignoring packet ..., a service is
// running" as well, for each packet of a client: ours are counted where packets
// are, and never get here.
func (w *Writer) scan2x(r *store.Record) {
	s := &r.Verdict.Sighting
	switch {
	case r.Verdict.Spared == judge.Ignored && w.o.Verbose:
		b := appendAddr(append(w.begin(), "Host: "...), s.Src)
		b = append(append(b, " found in ignore file "...), w.o.IgnoreFile...)
		w.end(levelInfo, append(b, ", aborting actions"...))
	case r.Verdict.Spared == judge.Own && s.Src == s.Dst && w.o.Debug:
		b := appendAddr(append(w.begin(), "Source address "...), s.Src)
		b = appendAddr(append(b, " same as destination address "...), s.Dst)
		w.end(levelDebug, append(b, ", skipping"...))
	}
	failed := w.actionsOf(r)
	f := r.Flags()
	switch {
	case f.Blocked == decode.Yes && r.Outcome.Already:
		w.alreadyBlocked(r)
	case failed && f.NoBlock == decode.No && f.Blocked == decode.No:
		b := append(w.begin(), "attackalert: Error during target dispose "...)
		w.end(levelError, append(appendHost(b, r), '!'))
	}
	w.emit(levelNotice, store.AppendScanLine(w.begin(), r)) // of which the name alone is another's, and was looked at
}

// Ignored names whom the ignore file names, where 2.x was asked to be verbose.
func (w *Writer) Ignored(hosts []netip.Prefix) {
	if !w.o.Verbose || w.o.Format != config.Log2x {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range hosts {
		b := appendAddr(append(w.begin(), "Ignoring IP: "...), p.Addr())
		w.end(levelInfo, appendMask(append(b, '/'), p))
	}
	w.flush()
}

// appendMask appends the mask of p as an address, as inet_ntop wrote it.
func appendMask(b []byte, p netip.Prefix) []byte {
	mask := make([]byte, p.Addr().BitLen()/8)
	for i := range p.Bits() {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(mask)
	return appendAddr(b, a)
}

// appendHost appends "name/address"; without a name, the address twice.
func appendHost(b []byte, r *store.Record) []byte {
	if name := store.HostName(r.Name); name != "" {
		b = append(b, name...)
	} else {
		b = appendAddr(b, r.Verdict.Sighting.Src)
	}
	return appendAddr(append(b, '/'), r.Verdict.Sighting.Src)
}

func appendAddr(b []byte, a netip.Addr) []byte { return a.WithZone("").AppendTo(b) }
