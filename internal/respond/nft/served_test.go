package nft

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"portsentry/internal/host"
	"portsentry/internal/judge"
)

// With TrapServed a service on a trap port helps nobody who asks for it anew;
// connections that stand go on.
func TestTrapServed(t *testing.T) { bothWays(t, testTrapServed) }

func testTrapServed(t *testing.T, traps func() Options) {
	for _, served := range []bool{false, true} {
		l := newLab(t)
		l.serve(l.host, "tcp", "10.9.0.1:11")
		l.echoUDP(l.host, "10.9.0.1:7")
		o := traps()
		table := l.open(o)
		c, err := l.dial(l.scanner, "tcp", "10.9.0.1:11", time.Second)
		if err != nil {
			t.Fatal(err)
		}
		o.TrapServed = served
		l.reconfigure(table, o)
		a := l.hits(table)
		for network, ask := range map[string]func() error{
			"tcp": func() error { _, err := l.dial(l.scanner, "tcp", "10.9.0.1:11", patience); return err },
			"udp": func() error { return l.askUDP("10.9.0.1:7") },
		} {
			if err := ask(); silent(err) != served || !served && err != nil {
				t.Errorf("%v: %s: %v", served, network, err)
			}
			if served {
				eventually(t, "the hit by "+network, func() bool { return a.of(scannerV4) > 0 })
				if err := table.Revoke(t.Context(), scannerV4); err != nil {
					t.Fatal(err)
				}
				a.mu.Lock()
				clear(a.sources)
				a.mu.Unlock()
			}
		}
		if err := echo(c); err != nil {
			t.Errorf("%v: connection: %v", served, err)
		}
		// What is no question for a service stays a matter of the socket.
		hits := l.stats(table).TrapHits
		l.raw().send(l.tcp(scannerV4, 4000, 11, fin))
		if s := l.stats(table); s.TrapHits != hits {
			t.Errorf("%v: a FIN to a served port is a hit", served)
		}
	}
}

// markedSocket is a listener with the mark, which echoes.
type markedSocket struct {
	syscall.RawConn
	datagrams atomic.Int32 // received
}

func (l *lab) marked(network, addr string) *markedSocket {
	l.t.Helper()
	s := new(markedSocket)
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		cerr := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, host.TrapMark) })
		if cerr != nil {
			return cerr
		}
		return err
	}}
	lc.SetMultipathTCP(false) // sk_lookup takes no such socket
	l.in(l.host, func() error {
		if network == "udp" {
			pc, err := lc.ListenPacket(context.Background(), network, addr)
			if err != nil {
				return err
			}
			l.t.Cleanup(func() { pc.Close() })
			go func() {
				buf := make([]byte, 64)
				for {
					n, from, err := pc.ReadFrom(buf)
					if err != nil {
						return
					}
					s.datagrams.Add(1)
					if _, err := pc.WriteTo(buf[:n], from); err != nil {
						return
					}
				}
			}()
			s.RawConn, err = pc.(*net.UDPConn).SyscallConn()
			return err
		}
		ln, err := lc.Listen(context.Background(), network, addr)
		if err != nil {
			return err
		}
		l.t.Cleanup(func() { ln.Close() })
		go func() {
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				l.t.Cleanup(func() { c.Close() })
				go func() {
					buf := make([]byte, 64)
					for {
						n, err := c.Read(buf)
						if err != nil {
							return
						}
						if _, err := c.Write(buf[:n]); err != nil {
							return
						}
					}
				}()
			}
		}()
		s.RawConn, err = ln.(*net.TCPListener).SyscallConn()
		return err
	})
	return s
}

// steer has sk_lookup give what comes for port to tcp and udp.
func (l *lab) steer(port int32, tcp, udp *markedSocket) {
	l.t.Helper()
	sockets, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.SockMap, KeySize: 4, ValueSize: 8, MaxEntries: 2})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { sockets.Close() })
	for i, raw := range []*markedSocket{tcp, udp} {
		var err error
		if cerr := raw.Control(func(fd uintptr) { err = sockets.Put(uint32(i), uint64(fd)) }); cerr != nil || err != nil {
			l.t.Fatal(cerr, err)
		}
	}
	const protocol, localPort = 12, 60 // offsets in struct bpf_sk_lookup
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: ebpf.SkLookup, AttachType: ebpf.AttachSkLookup, License: "GPL",
		Instructions: asm.Instructions{
			asm.Mov.Reg(asm.R6, asm.R1),
			asm.LoadMem(asm.R2, asm.R6, localPort, asm.Word),
			asm.JNE.Imm(asm.R2, port, "pass"),
			asm.StoreImm(asm.RFP, -4, 0, asm.Word),
			asm.LoadMem(asm.R2, asm.R6, protocol, asm.Word),
			asm.JNE.Imm(asm.R2, unix.IPPROTO_UDP, "find"),
			asm.StoreImm(asm.RFP, -4, 1, asm.Word),
			asm.LoadMapPtr(asm.R1, sockets.FD()).WithSymbol("find"),
			asm.Mov.Reg(asm.R2, asm.RFP),
			asm.Add.Imm(asm.R2, -4),
			asm.FnMapLookupElem.Call(),
			asm.JEq.Imm(asm.R0, 0, "pass"),
			asm.Mov.Reg(asm.R7, asm.R0),
			asm.Mov.Reg(asm.R1, asm.R6),
			asm.Mov.Reg(asm.R2, asm.R7),
			asm.Mov.Imm(asm.R3, 0),
			asm.FnSkAssign.Call(),
			asm.Mov.Reg(asm.R1, asm.R7),
			asm.FnSkRelease.Call(),
			asm.Mov.Imm(asm.R0, 1).WithSymbol("pass"),
			asm.Return(),
		},
	})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { prog.Close() })
	attached, err := link.AttachNetNs(int(l.host), prog)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { attached.Close() })
}

// A limited source does not get to trap sockets of ours, be they bound to their
// ports or steered to by sk_lookup, and gets to services all the same.
func TestOwnTrapsAreSilentForTheLimited(t *testing.T) {
	bothWays(t, testOwnTrapsAreSilentForTheLimited)
}

func testOwnTrapsAreSilentForTheLimited(t *testing.T, traps func() Options) {
	l := newLab(t)
	l.serve(l.host, "tcp", "10.9.0.1:80")
	l.echoUDP(l.host, "10.9.0.1:5353")
	l.marked("tcp", "10.9.0.1:23")
	l.marked("udp", "10.9.0.1:69")
	steered := l.marked("udp", "10.9.0.1:0")
	l.steer(111, l.marked("tcp", "127.0.0.1:0"), steered)
	o := traps()
	o.TrapsTCP, o.TrapsUDP, o.OwnTraps = nil, nil, true
	table := l.open(o)
	tcp := func(port string) error {
		_, err := l.dial(l.scanner, "tcp", "10.9.0.1:"+port, patience)
		return err
	}
	standing, err := l.dial(l.scanner, "tcp", "10.9.0.1:111", time.Second)
	if err != nil {
		t.Fatal(err)
	}
	check := func(when string, traps, services bool) {
		t.Helper()
		var wg sync.WaitGroup
		expect := func(what string, silence bool, ask func() error) {
			wg.Go(func() {
				if err := ask(); silent(err) != silence || !silence && err != nil {
					t.Errorf("%s: %s: %v", when, what, err)
				}
			})
		}
		before := steered.datagrams.Load()
		expect("TCP trap", traps, func() error { return tcp("23") })
		expect("TCP trap behind sk_lookup", traps, func() error { return tcp("111") })
		expect("TCP service", services, func() error { return tcp("80") })
		expect("UDP trap", traps, func() error { return l.askUDP("10.9.0.1:69") })
		// Its answers come from another port, so they are nobody's.
		expect("UDP trap behind sk_lookup", true, func() error { return l.askUDP("10.9.0.1:111") })
		expect("UDP service", services, func() error { return l.askUDP("10.9.0.1:5353") })
		wg.Wait()
		if got := steered.datagrams.Load() - before; (got == 0) != traps {
			t.Errorf("%s: UDP trap behind sk_lookup: %d datagrams", when, got)
		}
	}
	for _, step := range []struct {
		strength judge.Strength
		services bool // are silent too
	}{{judge.Limited, false}, {judge.Soft, true}, {judge.Full, true}} {
		if err := table.Ban(t.Context(), ban("10.9.0.2/32", step.strength, time.Minute)); err != nil {
			t.Fatal(err)
		}
		check(step.strength.String(), true, step.services)
		if err := echo(standing); (err == nil) == (step.strength == judge.Full) {
			t.Errorf("%v: connection: %v", step.strength, err)
		}
	}
	if err := table.Ban(t.Context(), ban("10.9.0.2/32", judge.Limited, time.Minute)); err != nil {
		t.Fatal(err)
	}
	o.OwnTraps = false // control: the ban alone does not do it
	l.reconfigure(table, o)
	check("limited, no OwnTraps", false, false)
}
