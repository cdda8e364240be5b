package nft

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"golang.org/x/sys/unix"
)

// raw sends frames from the scanner's end of the wire, with any source, and
// reads what comes back.
type raw struct {
	t  testing.TB
	l  *lab
	fd int
	to unix.SockaddrLinklayer

	answers, synAcks map[netip.Addr]int // packets to each address, as of the last poll
}

func (l *lab) raw() *raw {
	l.t.Helper()
	r := &raw{t: l.t, l: l, to: unix.SockaddrLinklayer{Ifindex: l.wire.Attrs().Index},
		answers: make(map[netip.Addr]int), synAcks: make(map[netip.Addr]int)}
	l.in(l.scanner, func() (err error) {
		r.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK, int(htons(unix.ETH_P_ALL)))
		if err != nil {
			return err
		}
		const packetIgnoreOutgoing = 23
		if err := unix.SetsockoptInt(r.fd, unix.SOL_PACKET, packetIgnoreOutgoing, 1); err != nil {
			return err
		}
		if err := unix.SetsockoptInt(r.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20); err != nil {
			return err
		}
		return unix.Bind(r.fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL), Ifindex: r.to.Ifindex})
	})
	l.t.Cleanup(func() { unix.Close(r.fd) })
	return r
}

func htons(v uint16) uint16 { return binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, v)) }

func (r *raw) send(frame []byte) {
	r.t.Helper()
	if err := unix.Sendto(r.fd, frame, 0, &r.to); err != nil {
		r.t.Fatal(err)
	}
}

// poll reads what the host has sent so far.
func (r *raw) poll() {
	r.t.Helper()
	buf := make([]byte, 2048)
	for {
		size, _, err := unix.Recvfrom(r.fd, buf, 0)
		if err == unix.EAGAIN {
			return
		}
		if err != nil {
			r.t.Fatal(err)
		}
		p := gopacket.NewPacket(buf[:size], layers.LayerTypeEthernet, gopacket.NoCopy)
		var dst netip.Addr
		switch ip := p.NetworkLayer().(type) {
		case *layers.IPv4:
			dst, _ = netip.AddrFromSlice(ip.DstIP.To4())
		case *layers.IPv6:
			dst, _ = netip.AddrFromSlice(ip.DstIP)
		}
		r.answers[dst]++
		if t, ok := p.TransportLayer().(*layers.TCP); ok && t.SYN && t.ACK {
			r.synAcks[dst]++
		}
	}
}

// tcp is a TCP segment with the low eight flags of the header as given.
func (l *lab) tcp(src netip.Addr, sport, dport uint16, flags byte) []byte {
	t := &layers.TCP{SrcPort: layers.TCPPort(sport), DstPort: layers.TCPPort(dport), Seq: 1000, Window: 1024,
		FIN: flags&1 != 0, SYN: flags&2 != 0, RST: flags&4 != 0, PSH: flags&8 != 0,
		ACK: flags&16 != 0, URG: flags&32 != 0, ECE: flags&64 != 0, CWR: flags&128 != 0}
	return l.frame(src, layers.IPProtocolTCP, t)
}

func (l *lab) udp(src netip.Addr, sport, dport uint16) []byte {
	return l.frame(src, layers.IPProtocolUDP, &layers.UDP{SrcPort: layers.UDPPort(sport), DstPort: layers.UDPPort(dport)})
}

func (l *lab) frame(src netip.Addr, proto layers.IPProtocol, transport gopacket.SerializableLayer) []byte {
	l.t.Helper()
	eth := &layers.Ethernet{SrcMAC: l.wire.Attrs().HardwareAddr, DstMAC: l.hostMAC, EthernetType: layers.EthernetTypeIPv4}
	var ip gopacket.SerializableLayer
	var nl gopacket.NetworkLayer
	if src.Is4() {
		v4 := &layers.IPv4{Version: 4, TTL: 60, Protocol: proto, SrcIP: net.IP(src.AsSlice()), DstIP: net.IP(hostV4.AsSlice())}
		ip, nl = v4, v4
	} else {
		eth.EthernetType = layers.EthernetTypeIPv6
		v6 := &layers.IPv6{Version: 6, HopLimit: 60, NextHeader: proto, SrcIP: net.IP(src.AsSlice()), DstIP: net.IP(hostV6.AsSlice())}
		ip, nl = v6, v6
	}
	switch t := transport.(type) {
	case *layers.TCP:
		_ = t.SetNetworkLayerForChecksum(nl)
	case *layers.UDP:
		_ = t.SetNetworkLayerForChecksum(nl)
	}
	buf := gopacket.NewSerializeBuffer()
	err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, eth, ip, transport)
	if err != nil {
		l.t.Fatal(err)
	}
	return buf.Bytes()
}
