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

// Egress is the program that remembers what is sent.
func (s *Sensor) Egress() *ebpf.Program { return s.sent.Remember }

// AgeSent makes all that has been sent older, by units of 2^30 ns.
func (s *Sensor) AgeSent(units uint32) error {
	var line sentSentLine
	for i := range s.objects.Sent.MaxEntries() {
		if err := s.objects.Sent.Lookup(i, &line); err != nil {
			return err
		}
		changed := false
		for j, f := range line.Flow {
			if f != 0 {
				line.Flow[j], changed = f>>32<<32|uint64(uint32(f)-units), true
			}
		}
		if changed {
			if err := s.objects.Sent.Put(i, &line); err != nil {
				return err
			}
		}
	}
	return nil
}

// MarkPeer says that a has opened a connection to a served port.
func (s *Sensor) MarkPeer(a [16]byte) error { return s.objects.Peers.Put(a, uint64(1)) }

// Helpers that both test packages use.
var (
	EnterSpace = enterSpace
	Command    = command
	Eventually = eventually
	Listening  = listening
)
