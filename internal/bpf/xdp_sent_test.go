package bpf_test

import (
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"

	"portsentry/internal/bpf"
	"portsentry/internal/pktgen"
)

// send has a packet leave. mark is that of its socket.
func (r *rig) send(p pktgen.Packet, mark uint32) {
	r.t.Helper()
	context := make([]byte, 192) // struct __sk_buff
	context[8], context[9] = byte(mark), byte(mark>>8)
	verdict, err := r.egress().Run(&ebpf.RunOptions{Data: frame(r.t, p), Context: context})
	r.must(err)
	if int32(verdict) != -1 { // TCX_NEXT: others have their say
		r.t.Errorf("verdict %d", int32(verdict))
	}
}

// egress is the program on the way out.
func (r *rig) egress() *ebpf.Program {
	r.t.Helper()
	r.must(r.Remember())
	return r.Egress()
}

// turned is p with its ends exchanged.
func turned(p pktgen.Packet) pktgen.Packet {
	p.Src, p.Dst, p.SrcPort, p.DstPort = p.Dst, p.Src, p.DstPort, p.SrcPort
	return p
}

// What makes a packet to a trap, where nobody is any more, an answer.
func TestWhatWasSent(t *testing.T) {
	r := newRig(t, bpf.SensorOptions{}, bpf.Rules{Sense: true, TCP: bpf.BanAll, UDP: bpf.BanAll})
	late, stray := reply, sighted // which a stray ACK is, and no more
	for i, c := range []struct {
		name    string
		proto   uint8  // 0: TCP
		out, in uint16 // flags
		seq     uint32
		mark    uint32
		want    outcome
	}{
		{name: "datagram", proto: pktgen.ProtoUDP, want: late},
		{name: "datagram of a trap socket", proto: pktgen.ProtoUDP, mark: 0x2073, want: banned},
		{name: "connection that ended", out: fin | ack, in: ack, want: late},
		{name: "connection that was to begin", out: syn, in: ack, want: late},
		{name: "connection that was aborted", out: rst | ack, seq: 7, in: ack | fin, want: late},
		{name: "SYN after that", out: rst | ack, seq: 7, in: syn, want: banned},
		{name: "answer to a SYN to nobody", out: rst | ack, in: ack, want: stray},
		{name: "answer to a stray ACK", out: rst, seq: 7, in: ack, want: stray},
		{name: "answer of a service", out: syn | ack, in: ack, want: stray},
		{name: "data", out: ack | psh, in: ack, want: stray},
	} {
		for _, from := range []netip.Addr{source(1000 + i), source6(1000 + i)} {
			p := tcp(from, trap, c.in)
			if c.proto != 0 {
				p = udp(from, trap)
			}
			out := turned(p)
			out.Flags, out.Seq = c.out, c.seq
			r.send(out, c.mark)
			remote, local := netip.AddrPortFrom(from, anyone), netip.AddrPortFrom(p.Dst, trap)
			if known := r.Sent(p.Proto, remote, local); known != (c.want == late || c.in == syn) {
				t.Errorf("%s: user space finds it: %v", c.name, known)
			}
			r.check(c.name, frame(t, p), c.want)
		}
	}
}

// A flow is one address and port with another, and it is forgotten two minutes after
// either side has sent something in it.
func TestWhatWasSentIsForgotten(t *testing.T) {
	r := newRig(t, bpf.SensorOptions{}, bpf.Rules{Sense: true})
	for _, from := range []netip.Addr{from4, from6} {
		in := udp(from, trap)
		r.send(turned(in), 0)
		r.check("answer", frame(t, in), reply)
		r.must(r.AgeSent(100))
		r.check("answer after 107 s", frame(t, in), reply)
		other := in
		other.SrcPort++
		r.check("another port", frame(t, other), sighted)
		other = in
		other.Dst = own6
		if from.Is4() {
			other.Dst = other4
			r.must(r.SetOwn([]netip.Addr{own4, own6, other4}))
		} else {
			other.Dst = other6
			r.must(r.SetOwn([]netip.Addr{own4, own6, other6}))
		}
		r.check("another address of ours", frame(t, other), sighted)
		r.must(r.AgeSent(100))
		r.check("another answer", frame(t, in), reply)
		r.must(r.AgeSent(114))
		r.check("answer 122 s later", frame(t, in), sighted)
		r.send(turned(in), 0)
		r.check("sent again", frame(t, in), reply)
	}
}

// An exchange of datagrams with a service goes on under a soft ban, a new one does
// not begin.
func TestSoftBanSparesExchanges(t *testing.T) {
	r := newRig(t, bpf.SensorOptions{}, bpf.Rules{})
	for _, from := range []netip.Addr{from4, from6} {
		in := udp(from, noTrap)
		r.ban(prefix(from), bpf.Soft, bpf.BanAll)
		r.verdictOf("new", frame(t, in), drop)
		r.send(turned(in), 0)
		r.verdictOf("goes on", frame(t, in), pass)
	}
}

// So does a connection whose segments come in fragments, of which the first has the ports;
// the others are nothing without it.
func TestSoftBanSparesFragments(t *testing.T) {
	r := newRig(t, bpf.SensorOptions{}, bpf.Rules{})
	for _, from := range []netip.Addr{from4, from6} {
		r.ban(prefix(from), bpf.Soft, bpf.BanAll)
		in := tcp(from, noTrap, ack|psh)
		in.Payload, in.FragmentSize = make([]byte, 64), 24
		pieces, err := in.Frames(wire)
		r.must(err)
		r.verdictOf("of no connection", pieces[0], drop)
		out := turned(in)
		out.Flags, out.Payload = fin|ack, nil
		r.send(out, 0)
		for _, piece := range pieces {
			r.verdictOf("of one that ends", piece, pass)
		}
	}
}

// Fragments: what is sent in pieces is known by the first of them.
func TestWhatWasSentInFragments(t *testing.T) {
	r := newRig(t, bpf.SensorOptions{}, bpf.Rules{Sense: true})
	for _, from := range []netip.Addr{from4, from6} {
		in := udp(from, trap)
		out := turned(in)
		out.Payload, out.FragmentSize = make([]byte, 64), 24
		pieces, err := out.Frames(wire)
		r.must(err)
		for i := len(pieces) - 1; i >= 0; i-- {
			if i == 0 {
				r.check("before the first", frame(t, in), sighted)
			}
			_, err := r.egress().Run(&ebpf.RunOptions{Data: pieces[i]})
			r.must(err)
		}
		r.check("after it", frame(t, in), reply)
	}
}

// Whatever leaves is let through.
func TestEgressTruncated(t *testing.T) {
	r := newRig(t, bpf.SensorOptions{}, bpf.Rules{})
	for _, p := range []pktgen.Packet{turned(udp(from4, trap)), turned(udp(from6, trap)), turned(tcp(from4, trap, fin)), turned(tcp(from6, trap, fin))} {
		whole, first := frame(t, p), ethernet+ipv4Fixed // the kernel tries none that ends before
		if p.Src.Is6() {
			first = ethernet + ipv6Fixed
		}
		for n := first; n <= len(whole); n++ {
			verdict, err := r.egress().Run(&ebpf.RunOptions{Data: whole[:n]})
			if err != nil {
				t.Fatalf("%d of %d bytes: %v", n, len(whole), err)
			}
			if int32(verdict) != -1 {
				t.Errorf("%d bytes of %v: verdict %d", n, p.Src, int32(verdict))
			}
		}
	}
}
