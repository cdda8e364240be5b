package bpf

import (
	"bytes"

	"github.com/cilium/ebpf"
)

// OpenUntracked is OpenSensor on a kernel whose connection tracking cannot be asked.
func OpenUntracked(o SensorOptions) (*Sensor, error) {
	o.Prepared = prepare(func() (*ebpf.CollectionSpec, error) {
		other := bytes.ReplaceAll(_XdpBytes, []byte(askTracking), []byte("bpf_xdp_ct_nobody"))
		return ebpf.LoadCollectionSpecFromReader(bytes.NewReader(other))
	})
	return OpenSensor(o)
}

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
