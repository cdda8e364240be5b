package app

import (
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"portsentry/internal/capture/xdp"
	"portsentry/internal/config"
	"portsentry/internal/host"
	banxdp "portsentry/internal/respond/xdp"
)

// Where trap sockets watch, no packets are read; the banned are kept out all the
// same, on every interface.
func TestBansBelowTrapSockets(t *testing.T) {
	needsRoot(t)
	p := newProgram(t)
	source, err := xdp.Open(p.sensor)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := source.Close(); err != nil {
			t.Error(err)
		}
	})
	var link netlink.Link
	p.do(func() {
		err = netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "here"}, PeerName: "there"})
		if err == nil {
			link, err = netlink.LinkByName("here")
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	index := int32(link.Attrs().Index)
	all := []host.Link{
		{Index: index, Name: "here", HardwareType: unix.ARPHRD_ETHER},
		{Index: index + 1000, Name: "tun", HardwareType: unix.ARPHRD_NONE},
	}
	d := &daemon{facts: new(facts)}
	d.sensor.Store(&sensor{Sensor: p.sensor, source: source, method: banxdp.New(p.sensor)})
	c := &config.Config{
		Modes: config.Modes{TCP: config.Connect, UDP: config.Connect}, BlockTCP: config.BlockBan, BlockMethods: []config.Method{config.MethodXDP},
	}

	p.do(func() { _, err = d.pointAt(c, nil, all) })
	if on := p.sensor.Attached(); err != nil || len(on) != 1 || on[index] {
		t.Errorf("the program is on %v, not on %d alone: %v", on, index, err)
	}
	if watched := d.facts.watched.Load(); len(*watched) > 0 {
		t.Errorf("packets are read on %v", *watched)
	}
	if said := strings.Join(d.problems.list(), "\n"); !strings.HasPrefix(said, "tun: our XDP program does not run there") || !strings.Contains(said, "nobody is kept out") ||
		strings.Contains(said, "AF_PACKET") {
		t.Errorf("said: %q", said)
	}

	logOnly := *c
	logOnly.BlockTCP = config.BlockNone
	p.do(func() { _, err = d.pointAt(&logOnly, nil, all) })
	if on := p.sensor.Attached(); err != nil || len(on) > 0 || len(d.problems.list()) > 0 {
		t.Errorf("without bans the program is on %v, %v, said: %q", on, err, d.problems.list())
	}
}
