package bpf

import "github.com/cilium/ebpf"

// Program is run on bytes by the tests outside the package.
func (s *Sensor) Program() *ebpf.Program { return s.objects.Sense }

// MarkPeer says that a has opened a connection to a served port.
func (s *Sensor) MarkPeer(a [16]byte) error { return s.objects.Peers.Put(a, uint64(1)) }

// Helpers that both test packages use.
var (
	EnterSpace = enterSpace
	Command    = command
	Eventually = eventually
	Listening  = listening
)
