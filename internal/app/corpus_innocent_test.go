package app

import (
	"fmt"
	"testing"
	"time"

	"portsentry/internal/detect/crowd"
	"portsentry/internal/pktgen"
)

// 1. Connection tracking has expired, and 10,000 clients of an open port still have
// packets to send for connections that are gone: FIN with and without ACK, ACK, data,
// RST, each from a connection of its own, and half of them again. For half an hour the
// host refuses; then there is a minute in which a firewall drops what it does not know.
// Half of the connections were with a machine of which nothing else is to be seen: not
// even that its port is open.
func TestCorpus01LateTails(t *testing.T) {
	t.Parallel()
	w := newCorpus(t)
	const clients = 10000
	for n := range clients {
		from, refuses := w.anybody(), n < clients/2
		for i := range 6 {
			p := w.stackSYN(from, 443)
			p.Ack, p.TCPOptions = w.rng.Uint32(), nil
			if n%2 == 0 {
				p.Dst = p.Dst.Next()
			}
			p.Flags = []uint16{
				pktgen.FIN | pktgen.ACK, pktgen.RST, pktgen.ACK, pktgen.FIN, pktgen.ACK | pktgen.PSH, pktgen.RST | pktgen.ACK,
			}[i]
			for range 1 + (i+1)%2 {
				w.send(p)
				if refuses && p.Flags&pktgen.RST == 0 {
					w.send(reply(p, pktgen.RST))
				}
			}
		}
		if refuses {
			w.pass(30 * time.Minute / (clients / 2))
		} else {
			w.pass(time.Minute / (clients / 2))
		}
	}
	w.noScan()
}

// 11. Somebody is flooded in our name, and what he answers comes here: SYN-ACKs, which
// this host resets, RSTs and ICMP errors, from one victim or from two thousand, to
// thousands of our ports. No scan, and one notice, which knows the victim if there is one.
// (What comes to a port again goes on, and does not count.)
func TestCorpus11BackscatterStorm(t *testing.T) {
	t.Parallel()
	for _, victims := range []int{1, 2000} {
		t.Run(fmt.Sprint(victims, " victims"), func(t *testing.T) {
			w := newCorpus(t)
			for i := range 20000 {
				victim := addrs(7 * (i % victims))
				p := pktgen.Packet{
					Src: victim, Dst: corpusHost, Proto: 6, SrcPort: 80, DstPort: uint16(1024 + w.rng.Uint32()%60000),
					Flags: pktgen.SYN | pktgen.ACK, Seq: w.rng.Uint32(), Ack: w.rng.Uint32(), Window: 65535,
				}
				switch i % 4 {
				case 1:
					p.Flags = pktgen.RST | pktgen.ACK
				case 2:
					w.frame(w.unreachable(&p))
					w.pass(5 * time.Millisecond)
					continue
				}
				w.send(p)
				if i%4 == 0 {
					w.send(reply(p, pktgen.RST))
				}
				w.pass(5 * time.Millisecond)
			}
			w.pass(time.Minute)
			w.noScan()
			if len(w.notices) != 1 {
				t.Fatalf("%d notices: %+v", len(w.notices), w.notices)
			}
			for _, n := range w.notices {
				if n.What != crowd.Backscatter || n.Packets < 15000 || n.End == 0 {
					t.Errorf("%+v", n)
				}
				if (n.Victim == addrs(0)) != (victims == 1) {
					t.Errorf("victim %v of %d", n.Victim, victims)
				}
			}
		})
	}
}

// unreachable is the error of p's source about a packet that p answers.
func (w *corpus) unreachable(p *pktgen.Packet) []byte {
	about := *p
	about.Src, about.Dst, about.SrcPort, about.DstPort, about.Flags = p.Dst, p.Src, p.DstPort, p.SrcPort, pktgen.SYN
	return w.icmp(p.Src, 3, 3, w.bytes(about)[:28])
}

// 12. A client tries one port, then the other, and again, for a day: of a service that
// has moved, is down on both, or answers on one of them; over TCP, and by datagrams.
func TestCorpus12TwoPorts(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"refused", "silent", "one of them open", "datagrams"} {
		t.Run(how, func(t *testing.T) {
			w := newCorpus(t)
			client := w.anybody()
			for i := range 2880 {
				port := []uint16{8083, 9001}[i%2]
				switch p := w.stackSYN(client, port); {
				case how == "datagrams":
					p.Proto, p.Payload = pktgen.ProtoUDP, []byte("anybody?")
					w.send(p)
				case how == "one of them open" && i%2 == 0:
					w.visit(client, port)
				case how == "silent":
					w.send(p)
					w.pass(time.Second)
					w.send(p)
				default:
					w.refused(p)
				}
				w.pass(30 * time.Second)
			}
			w.noScan()
		})
	}
}
