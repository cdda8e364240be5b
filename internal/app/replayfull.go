package app

import (
	"fmt"
	"net/netip"

	"portsentry/internal/capture"
	"portsentry/internal/decode"
	"portsentry/internal/detect"
	"portsentry/internal/detect/crowd"
	"portsentry/internal/detect/flows"
	"portsentry/internal/detect/full"
	"portsentry/internal/detect/tools"
	"portsentry/internal/view/cli"
)

// replayFull is the full detection over captures: which packets begin something
// and what became of it, and what that says of their sources.
type replayFull struct {
	tracker *flows.Tracker
	engine  *full.Engine
	crowd   *crowd.Crowd
	groups  map[uint64]crowd.Group // as they stand at last
	notices map[uint64]crowd.Notice

	packets uint64

	rules detect.Rules // whose ports are traps
	own   func(netip.Addr) bool
}

func newReplayFull(rules detect.Rules, local *localNetworks) (*replayFull, error) {
	labels, err := tools.Load()
	if err != nil {
		return nil, fmt.Errorf("the signatures of tools: %w", err)
	}
	r := &replayFull{
		crowd:  crowd.New(crowd.Options{KeyBits: keyBits(labels)}),
		groups: make(map[uint64]crowd.Group), notices: make(map[uint64]crowd.Notice),
		rules: rules, own: local.own,
	}
	r.engine = full.New(full.Options{Scans: maxReplayScans, Local: local.known(), Labels: labels, Crowd: r.crowd})
	r.tracker = flows.New(flows.Options{}, r.contact)
	return r, nil
}

// maxReplayScans findings are kept, in whole.
const maxReplayScans = 1 << 16

// keyBits tells how many bits the run key of a tool has, by what the tool puts in it:
// three choose a number of 32 bits for a run.
func keyBits(labels *tools.Set) func(detect.Tool) int {
	return func(t detect.Tool) int {
		switch labels.Name(t) {
		case "naabu", "unicornscan", "fi6s":
			return 32
		}
		return 16
	}
}

// packet is for replayEngine.
func (r *replayFull) packet(p *decode.Probe, f *capture.Frame) {
	if r.tracker.Packet(p, f) {
		r.crowd.Backscatter(p)
	}
	if r.packets++; r.packets%collectEvery == 0 {
		r.collect()
	}
}

// collectEvery is after how many packets the crowd is asked what it has found.
const collectEvery = 1 << 12

func (r *replayFull) collect() {
	for g := range r.crowd.Groups() {
		r.groups[g.ID] = g
	}
	for n := range r.crowd.Notices() {
		r.notices[n.ID] = n
	}
}

// contact takes what the tracker has come to know.
func (r *replayFull) contact(c *detect.Contact) {
	switch c.Proto {
	case decode.ProtoTCP:
		c.Trap = r.rules.TCP.Has(c.DstPort) && r.own(c.Dst)
	case decode.ProtoUDP:
		c.Trap = r.rules.UDP.Has(c.DstPort) && r.own(c.Dst)
	}
	r.engine.Contact(c)
}

// scans is for replayEngine.
func (r *replayFull) scans() []*detect.Scan {
	r.tracker.Flush()
	r.crowd.Finish()
	r.collect()
	var out []*detect.Scan
	for s := range r.engine.Scans() {
		one := *s
		out = append(out, &one)
	}
	return append(out, r.shared()...)
}

// shared are those who have their part in a sweep that many share out.
func (r *replayFull) shared() (out []*detect.Scan) {
	members := make(map[netip.Addr]uint64)
	for _, g := range r.groups {
		if g.Shared {
			for _, m := range g.Members {
				members[m] = max(members[m], g.ID)
			}
		}
	}
	if len(members) == 0 {
		return nil
	}
	for _, s := range r.engine.Shared(members) {
		s.Reason = ofMany(&s, r.groups[s.Campaign].Count)
		out = append(out, &s)
	}
	return out
}

// losses is for replayEngine.
func (r *replayFull) losses() (said []string) {
	if n := r.tracker.Stats().Full; n > 0 {
		said = append(said, quantity(n, "conversation")+" found no room among those that were followed, and may hide a scan")
	}
	return said
}

// together is what many sources did together, for people.
func (r *replayFull) together() (groups []cli.ReplayGroup, notices []cli.ReplayNotice) {
	for _, g := range r.groups {
		groups = append(groups, cli.ReplayGroup{
			ID: g.ID, What: g.What.String(), Members: g.Members, Count: g.Count, Real: g.Real,
			First: g.First, Last: g.Last, Contacts: g.Contacts, Ports: g.Ports, Reason: g.Reason,
		})
	}
	for _, n := range r.notices {
		notices = append(notices, cli.ReplayNotice{
			ID: n.ID, What: n.What.String(), First: n.First, Last: n.Last, Packets: n.Packets, Sources: n.Sources,
			Victim: n.Victim, Proto: n.Proto, Port: n.Port, Reason: n.Reason,
		})
	}
	return groups, notices
}
