package afpacket

import (
	"fmt"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"portsentry/internal/config"
)

// How many bytes of a packet the filter asks for. 192 holds the largest IPv4
// and TCP headers (120), or IPv6 and TCP (100), and the whole of every bare
// probe, so that its transport checksum can be verified. A packet whose
// transport header the filter did not find itself comes as snapWhole.
const (
	snapHeaders = 192
	snapWhole   = 2048
)

const (
	// maxInstructions is what the kernel takes in one classic program
	// (BPF_MAXINSNS).
	maxInstructions = 4096
	// maxFilterInterfaces bounds the chain of interface tests that every packet
	// walks. Beyond it the filter lets all interfaces through and the worker,
	// which looks again in any case, does the sorting.
	maxFilterInterfaces = 64
)

// Spec says which packets matter.
type Spec struct {
	TCP, UDP  config.PortSet // destination ports
	Scans     bool           // whatever may begin something matters as well; without it and ports no packet does
	IfIndexes []int32        // interfaces; empty: all but loopback
}

// filterWithin gives the socket filter for spec, of at most 4096 instructions. It
// runs in the kernel on what a cooked socket sees: data that begins at the
// network header. It lets through, of what is addressed to this host or sent to
// a link-layer group (our unicast address in a broadcast frame is a scanner's
// trick):
//
//   - TCP and UDP to the listed ports over IPv4, with options or without, and
//     over IPv6 without extension headers. Not TCP with RST or SYN+ACK: those
//     are answers, or backscatter.
//   - first fragments of IPv4 by the same ports, and (if there are TCP ports)
//     later TCP fragments that begin within the first 60 bytes, where the header
//     may go on
//   - IPv6 with extension headers, whole, as nobody has looked behind them; not
//     where ICMPv6 follows the first one, which is a multicast router at work
//   - with Scans also TCP without ACK and RST, and first fragments of TCP, to any
//     port; what SCTP, ICMP and ICMPv6 begin or ask with; and IP protocols in which
//     nobody has anything to say to a host. Datagrams go by the list of ports:
//     nothing here tells the first one of a flow
//   - the same behind one VLAN tag that is still in the data (the kernel takes
//     one off, so this is the inner of two); behind more than one, everything
//
// It may let through more (ports are merged when there are too many ranges for
// one program) but never less.
//
// The limit is maxInstructions or less: the kernel charges programs to the
// socket's option memory, and net.core.optmem_max was 20 KiB before 6.7.
func filterWithin(spec Spec, limit int) ([]bpf.RawInstruction, error) {
	tcp, udp := spec.TCP, spec.UDP
	if len(tcp)+len(udp) == 0 && !spec.Scans {
		return nothing(), nil
	}
	rest := len(instructions(spec.IfIndexes, nil, nil, spec.Scans)) - 2*searchLen(nil)
	for rest+searchLen(tcp)+searchLen(udp) > limit {
		switch {
		case len(tcp) <= 1 && len(udp) <= 1:
			return nil, fmt.Errorf("afpacket: no filter fits in %d instructions", limit)
		case len(tcp) >= len(udp):
			tcp = coarsen(tcp)
		default:
			udp = coarsen(udp)
		}
	}
	raw, err := bpf.Assemble(instructions(spec.IfIndexes, tcp, udp, spec.Scans))
	if err != nil {
		return nil, fmt.Errorf("afpacket: assemble filter: %w", err)
	}
	return raw, nil
}

// nothing is the filter that lets nothing through.
func nothing() []bpf.RawInstruction {
	return []bpf.RawInstruction{{Op: unix.BPF_RET | unix.BPF_K, K: 0}}
}

func instructions(ifIndexes []int32, tcp, udp config.PortSet, scans bool) []bpf.Instruction {
	var p program
	p.prologue(ifIndexes)
	p.core(tcp, udp, scans)
	return p.resolve()
}

// Labels of the program. Those of an IP version come once for packets that
// begin with the IP header and once for those that begin with the four bytes
// of a VLAN tag; see at.
const (
	labelDrop label = iota
	labelWhole
	labelHeaders
	labelTCP       // X: offset of the transport header
	labelTCPPorts  // the same, the flags may be missing
	labelUDP       // X: offset of the transport header
	labelSCTP      // likewise
	labelICMP      // likewise
	labelICMPv6    // likewise
	labelOther     // A: IP protocol, none of those
	labelTagged    // data begins with tag control information
	labelIPv4      // + base
	labelIPv4First = labelIPv4 + 8
	labelIPv4Later = labelIPv4 + 16
	labelIPv6      = labelIPv4 + 24
	labelIPv6Ext   = labelIPv4 + 32
)

// tagLen is the length of a VLAN tag as it stands in front of the IP header:
// tag control information and EtherType.
const tagLen = 4

// EtherTypes of tags, in host byte order.
const (
	typeQinQ    = unix.ETH_P_8021AD
	typeOldQinQ = unix.ETH_P_QINQ1 // 0x9100, which the kernel does not take off
)

// prologue is the part that asks the kernel rather than the data, ending in a
// jump to the IP version.
func (p *program) prologue(ifIndexes []int32) {
	p.emit(bpf.LoadExtension{Num: bpf.ExtType})
	p.when(bpf.JumpGreaterThan, unix.PACKET_MULTICAST, labelDrop) // HOST, BROADCAST, MULTICAST are 0 to 2
	if n := len(ifIndexes); n == 0 || n > maxFilterInterfaces {
		// Nobody named it, or too many are named to be told apart here.
		p.emit(bpf.LoadExtension{Num: bpf.ExtLinkLayerType})
		p.when(bpf.JumpEqual, unix.ARPHRD_LOOPBACK, labelDrop)
	} else {
		p.emit(bpf.LoadExtension{Num: bpf.ExtInterfaceIndex})
		for i, index := range ifIndexes {
			p.emit(bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(index), SkipTrue: uint8(n - i)})
		}
		p.emit(bpf.RetConstant{Val: 0})
	}
	p.emit(bpf.LoadExtension{Num: bpf.ExtProto})
	p.when(bpf.JumpEqual, unix.ETH_P_IP, labelIPv4)
	p.when(bpf.JumpEqual, unix.ETH_P_IPV6, labelIPv6)
	p.whenTag(labelTagged)
	p.jump(labelDrop)
}

// core is the part that looks at the data.
func (p *program) core(tcp, udp config.PortSet, scans bool) {
	p.mark(labelTagged)
	p.emit(bpf.LoadAbsolute{Off: 2, Size: 2})
	p.when(bpf.JumpEqual, unix.ETH_P_IP, labelIPv4+tagLen)
	p.when(bpf.JumpEqual, unix.ETH_P_IPV6, labelIPv6+tagLen)
	p.whenTag(labelWhole)
	p.jump(labelDrop)

	laterTCP := labelWhole
	if len(tcp) == 0 && !scans {
		laterTCP = labelDrop
	}
	for _, base := range []uint32{0, tagLen} {
		p.ipv4(base, laterTCP, scans)
		p.ipv6(base, scans)
	}
	if scans {
		p.others()
	}

	p.mark(labelTCP)
	p.emit(bpf.LoadIndirect{Off: 13, Size: 1})
	p.when(bpf.JumpBitsSet, 0x04, labelDrop) // RST
	if scans {
		p.when(bpf.JumpBitsNotSet, 0x10, labelHeaders) // no ACK
	}
	p.emit(bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0x12})
	p.when(bpf.JumpEqual, 0x12, labelDrop) // SYN and ACK
	p.mark(labelTCPPorts)
	p.emit(bpf.LoadIndirect{Off: 2, Size: 2})
	p.emit(search(tcp)...)

	p.mark(labelUDP)
	p.emit(bpf.LoadIndirect{Off: 2, Size: 2})
	p.emit(search(udp)...)

	p.mark(labelHeaders)
	p.emit(bpf.RetConstant{Val: snapHeaders})
	p.mark(labelWhole)
	p.emit(bpf.RetConstant{Val: snapWhole})
	p.mark(labelDrop)
	p.emit(bpf.RetConstant{Val: 0})
}

// ipv4 finds the transport header of an IPv4 packet (RFC 791) at base. Later
// fragments in which a TCP header may go on are for laterTCP.
func (p *program) ipv4(base uint32, laterTCP label, scans bool) {
	at := label(base)
	p.mark(labelIPv4 + at)
	p.emit(bpf.LoadAbsolute{Off: base, Size: 1})
	p.when(bpf.JumpLessThan, 0x45, labelDrop) // not version 4, or a header of less than 20 bytes
	p.when(bpf.JumpGreaterThan, 0x4f, labelDrop)
	p.emit(
		bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0xf},
		bpf.ALUOpConstant{Op: bpf.ALUOpShiftLeft, Val: 2},
		bpf.ALUOpConstant{Op: bpf.ALUOpAdd, Val: base},
		bpf.TAX{},
		bpf.LoadAbsolute{Off: base + 6, Size: 2},
	)
	p.when(bpf.JumpBitsSet, 0x1fff, labelIPv4Later+at) // fragment offset
	p.when(bpf.JumpBitsSet, 0x2000, labelIPv4First+at) // more fragments
	p.emit(bpf.LoadAbsolute{Off: base + 9, Size: 1})
	p.when(bpf.JumpEqual, unix.IPPROTO_TCP, labelTCP)
	p.when(bpf.JumpEqual, unix.IPPROTO_UDP, labelUDP)
	if scans {
		p.when(bpf.JumpEqual, unix.IPPROTO_SCTP, labelSCTP)
		p.when(bpf.JumpEqual, unix.IPPROTO_ICMP, labelICMP)
		p.jump(labelOther)
	}
	p.jump(labelDrop)

	// Fragments are cut at multiples of 8 bytes, so the first has the ports.
	p.mark(labelIPv4First + at)
	p.emit(bpf.LoadAbsolute{Off: base + 9, Size: 1})
	if scans {
		p.when(bpf.JumpEqual, unix.IPPROTO_TCP, labelHeaders)
	}
	p.when(bpf.JumpEqual, unix.IPPROTO_TCP, labelTCPPorts)
	p.when(bpf.JumpEqual, unix.IPPROTO_UDP, labelUDP)
	p.jump(labelDrop)

	// A TCP header ends at 60 bytes at the latest; offsets count in 8 bytes.
	// The 8 bytes of a UDP header are always in the first fragment.
	p.mark(labelIPv4Later + at)
	p.emit(bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0x1fff})
	p.when(bpf.JumpGreaterThan, 7, labelDrop)
	p.emit(bpf.LoadAbsolute{Off: base + 9, Size: 1})
	p.when(bpf.JumpEqual, unix.IPPROTO_TCP, laterTCP)
	p.jump(labelDrop)
}

// ipv6 finds the transport header of an IPv6 packet (RFC 8200) at base.
func (p *program) ipv6(base uint32, scans bool) {
	at := label(base)
	p.mark(labelIPv6 + at)
	p.emit(bpf.LoadAbsolute{Off: base, Size: 1}, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0xf0})
	p.when(bpf.JumpNotEqual, 0x60, labelDrop)
	p.emit(bpf.LoadConstant{Dst: bpf.RegX, Val: base + 40}, bpf.LoadAbsolute{Off: base + 6, Size: 1})
	p.when(bpf.JumpEqual, unix.IPPROTO_TCP, labelTCP)
	p.when(bpf.JumpEqual, unix.IPPROTO_UDP, labelUDP)
	// The extension headers that can be walked (IANA): hop-by-hop, routing,
	// fragment, authentication, destination, mobility, HIP, Shim6.
	for _, next := range []uint32{0, 43, 44, 51, 60, 135, 139, 140} {
		p.when(bpf.JumpEqual, next, labelIPv6Ext+at)
	}
	if scans {
		p.when(bpf.JumpEqual, unix.IPPROTO_SCTP, labelSCTP)
		p.when(bpf.JumpEqual, unix.IPPROTO_ICMPV6, labelICMPv6)
		p.jump(labelOther)
	}
	p.jump(labelDrop)

	p.mark(labelIPv6Ext + at)
	p.emit(bpf.LoadAbsolute{Off: base + 40, Size: 1})
	p.when(bpf.JumpEqual, unix.IPPROTO_ICMPV6, labelDrop)
	p.jump(labelWhole)
}

// others is about what is neither TCP nor UDP: what asks or begins something, as
// detect.Contact has it. X is the offset of what follows the IP header.
func (p *program) others() {
	p.mark(labelSCTP)
	p.emit(bpf.LoadIndirect{Off: 12, Size: 1}) // type of the first chunk
	p.when(bpf.JumpEqual, 1, labelHeaders)     // INIT
	p.when(bpf.JumpEqual, 10, labelHeaders)    // COOKIE-ECHO
	p.jump(labelDrop)

	p.mark(labelICMP)
	p.emit(bpf.LoadIndirect{Off: 0, Size: 1})
	for _, request := range []uint32{8, 13, 17} { // echo, timestamp, address mask
		p.when(bpf.JumpEqual, request, labelHeaders)
	}
	p.jump(labelDrop)

	p.mark(labelICMPv6)
	p.emit(bpf.LoadIndirect{Off: 0, Size: 1})
	p.when(bpf.JumpEqual, 128, labelHeaders) // echo
	p.jump(labelDrop)

	p.mark(labelOther)
	for _, proto := range []uint32{ // as in detect.spoken
		2, 4, 33, 41, 46, 47, 50, 51, 59, 88, 89, 94, 97, 103, 108, 112, 115, 136, 137, 139, 140,
	} {
		p.when(bpf.JumpEqual, proto, labelDrop)
	}
	p.jump(labelHeaders)
}

// whenTag jumps to l when A is the EtherType of a VLAN tag.
func (p *program) whenTag(l label) {
	for _, t := range []uint32{unix.ETH_P_8021Q, typeQinQ, typeOldQinQ} {
		p.when(bpf.JumpEqual, t, l)
	}
}
