package app

import (
	"net/netip"
	"sync"
	"time"

	"portsentry/internal/decode"
	"portsentry/internal/detect"
)

// scanner finds scans among contacts. Calls come one at a time.
type scanner interface {
	// Contact looks at one contact. It gives the scan that is found by it, and again
	// when that has grown by much, for each goes into a queue; else nil. The scan is
	// good until the next call.
	Contact(c *detect.Contact) *detect.Scan
	// Together looks at a contact for what it is part of alone.
	Together(c *detect.Contact)
	// Shared gives what members of sweeps that many share out have done, each with the
	// number of its sweep, if they were not found alone.
	Shared(members map[netip.Addr]uint64) []detect.Scan
	// Remember keeps for later what is known, which goes on.
	Remember()
}

// scans is what a worker has besides that finds scans which touch no trap.
type scans struct {
	mu        sync.Mutex // for scanner: seldom another one than the worker calls it
	scanner   scanner
	contact   detect.Contact
	success   detect.Contact
	successes chan success
	naming    pace
}

// naming bounds how many hits that are answered anyway are looked at for what they are
// part of: of a flood there is nothing to name.
var naming = pace{every: 5 * time.Millisecond, ahead: 512 * 5 * time.Millisecond}

// maxSuccesses wait for the worker: it takes them in with its next contact.
const maxSuccesses = 256

func newScans(s scanner) *scans {
	return &scans{scanner: s, successes: make(chan success, maxSuccesses), naming: naming}
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
	s.mu.Lock()
	defer s.mu.Unlock()
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

// together looks at the contact for what it is part of alone.
func (s *scans) together() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.scanner.Together(&s.contact)
}

// shared is Shared of the scanner. Any goroutine may call it, as remember.
func (s *scans) shared(members map[netip.Addr]uint64) []detect.Scan {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.scanner.Shared(members)
}

// remember keeps for later what is known. Any goroutine may call it: the worker waits
// for it at its next contact, some milliseconds at most.
func (s *scans) remember() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.scanner.Remember()
}
