package app

import (
	"net/netip"
	"time"

	"portsentry/internal/decode"
	"portsentry/internal/detect"
)

// scanner finds scans among contacts. Calls come from one goroutine.
type scanner interface {
	// Contact looks at one contact. It gives the scan that is found by it, and again
	// when that has grown by much, for each goes into a queue; else nil. The scan is
	// good until the next call.
	Contact(c *detect.Contact) *detect.Scan
	// Together looks at a contact for what it is part of alone.
	Together(c *detect.Contact)
	// Remember keeps for later what is known.
	Remember()
}

// scans is what a worker has besides that finds scans which touch no trap.
type scans struct {
	scanner   scanner
	contact   detect.Contact
	success   detect.Contact
	successes chan success
	named     int64 // up to when mayName is used up, unix nanoseconds
}

// A hit that is answered anyway is looked at for what it is part of, so many a second
// and at once, for of a flood there is nothing to name.
const (
	nameEvery = int64(5 * time.Millisecond)
	nameAhead = 512 * nameEvery
)

// mayName reports whether a hit at the time t may be looked at for that (the generic
// cell rate algorithm).
func (s *scans) mayName(t int64) bool {
	if s.named > t+nameAhead {
		return false
	}
	s.named = max(s.named, t) + nameEvery
	return true
}

// maxSuccesses wait for the worker: it takes them in with its next contact.
const maxSuccesses = 256

func newScans(s scanner) *scans {
	return &scans{scanner: s, successes: make(chan success, maxSuccesses)}
}

// success is a handshake that somebody completed with a port that is served.
type success struct {
	at    int64 // unix nanoseconds
	who   netip.Addr
	local netip.AddrPort
}

// look has the scanner look at the contact; at what had succeeded before it first.
// A success is evidence for nothing: it says that this attempt did not fail.
func (s *scans) look() *detect.Scan {
	for len(s.successes) > 0 {
		k := <-s.successes
		s.success = detect.Contact{
			Time: k.at, Src: k.who, Dst: k.local.Addr(), DstPort: k.local.Port(),
			Proto: decode.ProtoTCP, Kind: detect.KindSYN, Outcome: detect.Answered,
		}
		s.scanner.Contact(&s.success)
	}
	return s.scanner.Contact(&s.contact)
}
