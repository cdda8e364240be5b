package afpacket

import (
	"context"
	"errors"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"portsentry/internal/capture"
	"portsentry/internal/config"
)

// advanced is what advanced mode watches: ports 1 to below-1 less n exclusions,
// none next to another.
func advanced(below, n int) config.PortSet {
	var exclude config.PortSet
	for i := range n {
		p := uint16(3 + i*(below-4)/n)
		exclude = append(exclude, config.PortRange{First: p, Last: p})
	}
	return config.PortSet{{First: 1, Last: uint16(below - 1)}}.Less(exclude)
}

// Under a flood of probes of a port that all port lists have, the lists are
// replaced many times while another goroutine replaces the interfaces: the
// kernel hands over or counts each probe.
func TestKernelSetPortsLosesNothing(t *testing.T) {
	const swaps = 200
	n := newTestNet(t)
	sets := []config.PortSet{someTCP, advanced(65536, 300), {{First: 11, Last: 11}}, advanced(1024, 50)}
	ring := n.open(Config{TCP: sets[0], UDP: someUDP, Workers: 2})
	watch(t, ring, n.recv)
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	for _, w := range ring.Workers() {
		wg.Go(func() {
			if err := w.Run(ctx, func(*capture.Frame) {}); err != nil {
				t.Errorf("Run: %v", err)
			}
		})
	}
	swapped := make(chan struct{})
	wg.Go(func() {
		defer close(swapped)
		for i := range swaps {
			udp := someUDP
			if i%2 == 0 {
				udp = nil
			}
			if err := ring.SetPorts(sets[(i+1)%len(sets)], udp); err != nil {
				t.Errorf("SetPorts: %v", err)
			}
		}
	})
	wg.Go(func() {
		for range swaps / 4 {
			if err := ring.SetInterfaces([]int32{n.recv}); err != nil {
				t.Errorf("SetInterfaces: %v", err)
			}
		}
	})
	sent := uint64(0)
	for done := false; !done; {
		flood(n, 500)
		sent += 500
		select {
		case <-swapped:
			done = true
		default:
		}
	}
	eventually(t, "every probe", func() bool {
		s := total(ring)
		return s.Frames+s.Dropped >= sent
	})
	cancel()
	wg.Wait()
	if s := total(ring); s.Frames+s.Dropped != sent || s.Frames == 0 || s.Other != 0 {
		t.Errorf("%d sent: %+v", sent, s)
	}
	t.Logf("%d swaps, %d sent: %+v", swaps, sent, total(ring))
}

// Each protocol is captured by its own list, and by none where that is empty.
func TestKernelSetPorts(t *testing.T) {
	n := newTestNet(t)
	ring := n.open(Config{TCP: someTCP, UDP: someUDP})
	watch(t, ring, n.recv)
	c := collect(t, ring)
	later := ipv4(src4, tcpProto, more|1, nil, tcp(11, syn)[8:16]) // the rest of a TCP header
	for _, step := range []struct {
		name     string
		tcp, udp config.PortSet
		want     int
	}{
		{"both", someTCP, someUDP, 3},
		{"no TCP", nil, someUDP, 1},
		{"nothing", nil, nil, 0},
		{"no UDP", someTCP, nil, 2},
		{"other ports", config.PortSet{{First: 12, Last: 13}}, config.PortSet{{First: 500, Last: 500}}, 1},
		{"advanced", advanced(65536, 300), advanced(65536, 300), 3},
	} {
		if err := ring.SetPorts(step.tcp, step.udp); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		n.packet(unix.ETH_P_IP, syn4(11))
		n.packet(unix.ETH_P_IP, ipv4(src4, udpProto, 0, nil, udp(8, 0)))
		n.packet(unix.ETH_P_IP, later)
		if err := ring.SetPorts(someTCP, nil); err != nil { // for the marker
			t.Fatal(err)
		}
		n.marker()
		if got := c.take(); len(got) != step.want {
			t.Errorf("%s: %d frames, want %d", step.name, len(got), step.want)
		}
	}
	if err := ring.SetInterfaces(nil); err != nil {
		t.Fatal(err)
	}
	if err := ring.SetPorts(someTCP, someUDP); err != nil { // which watches no interface again
		t.Fatal(err)
	}
	n.packet(unix.ETH_P_IP, syn4(11))
	watch(t, ring, n.recv)
	n.marker()
	if got := c.take(); len(got) != 0 {
		t.Errorf("%d frames of an interface that is not watched", len(got))
	}
}

// What begins something is captured while it is asked for, beside the ports or
// without any.
func TestKernelSetScans(t *testing.T) {
	n := newTestNet(t)
	ring := n.open(Config{TCP: someTCP, Scans: true})
	watch(t, ring, n.recv)
	c := collect(t, ring)
	for _, step := range []struct {
		name  string
		tcp   config.PortSet
		scans bool
		want  int
	}{
		{"as opened", someTCP, true, 3},
		{"off", someTCP, false, 1},
		{"on", someTCP, true, 3},
		{"alone", nil, true, 3},
		{"nothing", nil, false, 0},
	} {
		if err := ring.SetScans(step.scans); err != nil {
			t.Fatal(err)
		}
		if err := ring.SetPorts(step.tcp, nil); err != nil {
			t.Fatal(err)
		}
		n.packet(unix.ETH_P_IP, syn4(11))
		n.packet(unix.ETH_P_IP, syn4(7777))
		n.packet(unix.ETH_P_IP, ipv4(src4, unix.IPPROTO_ICMP, 0, nil, []byte{8, 0, 0xf7, 0xff, 0, 0, 0, 0}))
		if err := ring.SetPorts(someTCP, nil); err != nil { // for the marker
			t.Fatal(err)
		}
		n.marker()
		if got := c.take(); len(got) != step.want {
			t.Errorf("%s: %d frames, want %d", step.name, len(got), step.want)
		}
	}
}

// The list of advanced mode is exact on the kernel that we run on, and on one
// with little option memory at worst lets more through.
func TestKernelAdvancedFilter(t *testing.T) {
	ports := advanced(65536, 300)
	for _, small := range []bool{false, true} {
		n := newTestNet(t)
		if small {
			if err := os.WriteFile("/proc/sys/net/core/optmem_max", []byte("20480"), 0); errors.Is(err, os.ErrNotExist) {
				t.Skip("needs net.core.optmem_max by network namespace")
			} else if err != nil {
				t.Fatal(err)
			}
		}
		ring := n.open(Config{TCP: ports, UDP: ports})
		watch(t, ring, n.recv)
		if err := ring.SetPorts(ports, ports); err != nil { // beside the one that it replaces
			t.Fatal(err)
		}
		c := collect(t, ring)
		want := ports.Bitmap()
		traps := 0
		for port := 2; port < 65536; port += 97 {
			if want.Has(uint16(port)) {
				traps++
			}
			n.packet(unix.ETH_P_IP, syn4(uint16(port)))
		}
		n.marker()
		got := c.take()
		if len(got) < traps || !small && len(got) != traps {
			t.Errorf("little memory %v: %d frames, want %d", small, len(got), traps)
		}
		t.Logf("little memory %v: %d frames for %d probes of traps", small, len(got), traps)
	}
}

func TestSetPortsAfterClose(t *testing.T) {
	n := newTestNet(t)
	ring := n.open(Config{TCP: someTCP})
	if err := ring.Close(); err != nil {
		t.Fatal(err)
	}
	if err := ring.SetPorts(someTCP, nil); err == nil {
		t.Error("SetPorts after Close")
	}
}
