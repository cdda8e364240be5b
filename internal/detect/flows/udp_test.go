package flows

import (
	"fmt"
	"strings"
	"testing"

	"portsentry/internal/capture"
	"portsentry/internal/decode"
	"portsentry/internal/detect"
)

func TestDatagrams(t *testing.T) {
	var flood strings.Builder
	for i := range 30 {
		fmt.Fprintf(&flood, "%g udp C:40000 S:6000 len=172\n", float64(i)/50)
	}
	check(t, []script{
		{name: "answered", packets: `
			0   udp C:40000 S:53 len=30
			0.1 udp S:53 C:40000 len=90
			9   udp C:40000 S:53 len=30
			19  udp S:53 C:40000 len=30`,
			want: []string{"C:40000>S:53 udp answered"}},
		{name: "silent", packets: `
			0 udp C:40000 S:53 len=30
			1 udp C:40000 S:53 len=30
			9 udp S:53 C:40000 len=30`,
			want: []string{"C:40000>S:53 udp silent"}},
		{name: "refused", packets: `
			0   udp C:40000 S:53
			0.1 icmp S C type=3 code=3 about=udp,C:40000,S:53
			0.2 udp C:40000 S:54
			0.3 icmp R C type=3 code=13 about=udp,C:40000,S:54`,
			only4: true, want: []string{"C:40000>S:53 udp refused", "C:40000>S:54 udp refused"}},
		{name: "refused in IPv6", packets: `
			0   udp C:40000 S:53
			0.1 icmp S C type=1 code=4 about=udp,C:40000,S:53
			0.2 tcp C:40000 S:80 S
			0.3 icmp R C type=3 about=tcp,C:40000,S:80
			0.4 tcp C:40000 S:81 S
			0.5 icmp R C type=2 about=tcp,C:40000,S:81`,
			only6: true, want: []string{"C:40000>S:53 udp refused", "C:40000>S:80 syn refused", "C:40000>S:81 syn silent"}},
		{name: "from another port", packets: `
			0   udp C:40000 S:69 len=20
			0.1 udp S:52000 C:40000 len=516
			0.2 udp C:40000 S:52000 len=4
			0.3 udp S:52000 C:40000 len=516
			1   udp C:40000 S:70 len=20`,
			want: []string{"C:40000>S:69 udp answered", "C:40000>S:70 udp silent"}},
		{name: "from another address it is none", packets: `
			0   udp C:40000 S:6900 len=20
			0.1 udp T:52000 C:40000 len=516`,
			want: []string{"C:40000>S:6900 udp silent", "T:52000>C:40000 udp silent"}},
		{name: "the question was before the capture", packets: `
			0   udp S:53 C:40000 len=90
			0.1 udp S:51820 C:40000 len=90
			0.2 udp C:40000 S:53 len=30`},
		{name: "between services nobody knows who asked", packets: `
			0   udp C:5060 S:5060 len=90
			0   udp C:53 S:1900 len=90
			0   udp C:123 S:123 len=48
			0.1 udp S:123 C:123 len=48`,
			want: []string{"C:123>S:123 udp answered", "C:5060>S:5060 udp silent", "C:53>S:1900 udp silent"}},
		{name: "answers to a multicast", packets: `
			0   udp C:40000 M:1900 len=90
			0   udp C:40001 M:1900 len=90
			0.1 udp S:50001 C:40000 len=200
			0.2 udp T:50002 C:40000 len=200
			0.3 udp T:50002 C:40002 len=200
			200 udp T:50003 C:40001 len=200`,
			want: []string{"T:50002>C:40002 udp silent", "T:50003>C:40001 udp silent"}},
		{name: "answers to a broadcast", packets: `
			0   udp C:137 192.0.2.255:137 len=50
			0   udp C:40001 255.255.255.255:3702 len=50
			0.1 udp S:137 C:137 len=50
			0.2 udp S:50001 C:40001 len=50`,
			only4: true},
		{name: "DHCP", packets: `
			0   udp 0:68 255.255.255.255:67 len=300
			0.1 udp S:67 C:68 len=300
			0.2 udp 0:68 S:67 len=300`,
			only4: true},
		{name: "a stream is no question", packets: flood.String()},
		{name: "traceroute", packets: `
			0   udp C:40000 S:33434 ttl=1
			0.1 icmp R C type=11 about=udp,C:40000,S:33434
			0.2 udp C:40001 S:33435 ttl=9
			0.3 icmp S C type=3 code=3 about=udp,C:40001,S:33435
			0.4 udp C:40002 S:53 ttl=2
			0.5 icmp R C type=11 about=udp,C:40002,S:53
			0.6 udp C:40003 S:33436 ttl=60`,
			only4: true, want: []string{"C:40003>S:33436 udp silent"}},
		{name: "a loop is no traceroute", packets: `
			0   udp C:40000 S:53 ttl=60
			0.5 icmp R C type=11 about=udp,C:40000,S:53`,
			only4: true, want: []string{"C:40000>S:53 udp refused"}},
		{name: "like an answer, and refused: nobody had asked", packets: `
			10  udp C:53 S:1030 len=4
			10  icmp S C type=3 code=3 about=udp,C:53,S:1030`,
			only4: true, want: []string{"C:53>S:1030 udp refused"}},
		{name: "like an answer, silence", packets: "10 udp C:53 S:1030 len=4"},
		{name: "like an answer, and it goes on", packets: `
			10  udp C:53 S:1030 len=4
			10  udp S:1030 C:53 len=4`},
		{name: "an answer too late, its question before the capture", packets: `
			1   udp C:53 S:1030 len=4
			1   icmp S C type=3 code=3 about=udp,C:53,S:1030`,
			only4: true},
	})
}

// TestBroadcastFrame: the netmask is not in the packet, but the hardware address
// may be in the frame.
func TestBroadcastFrame(t *testing.T) {
	for name, want := range map[string]int{"\xff\xff\xff\xff\xff\xff": 0, "\x02\x00\x00\x00\x00\x01": 1} {
		n := 0
		tr := New(Options{Flows: 64}, func(*detect.Contact) { n++ })
		p, _ := parse(t, "0 udp C:40000 198.51.100.127:1234 len=4", false)
		tr.Packet(&p, &capture.Frame{Link: capture.LinkEthernet, Data: []byte(name + "xxxxxx\x08\x00")})
		tr.Flush()
		if n != want {
			t.Errorf("to %x: %d contacts, want %d", name, n, want)
		}
	}
}

func TestQueries(t *testing.T) {
	check(t, []script{
		{name: "ping", packets: `
			0   icmp C S type=8
			0.1 icmp S C type=0
			1   icmp C S type=8
			2   icmp S C type=8
			2   icmp C T type=8`,
			only4: true, want: []string{"C>S icmp-sweep answered", "S>C icmp-sweep silent", "C>T icmp-sweep silent"}},
		{name: "ping by IPv6", packets: `
			0   58 C S type=128
			0.1 58 S C type=129
			1   58 C T type=128
			1.1 58 R C type=1 code=3 about=icmp,C,T
			2   58 C M type=128`,
			only6: true, want: []string{"C>S icmp-sweep answered", "C>T icmp-sweep refused"}},
		{name: "timestamp and mask", packets: `
			0   icmp C S type=13
			0   icmp C S type=17
			0.1 icmp S C type=14
			0.2 icmp S C type=18`,
			only4: true, want: []string{"C>S icmp-timestamp answered", "C>S icmp-mask answered"}},
		{name: "unreachable", packets: `
			0   icmp C S type=8
			0.1 icmp R C type=3 code=1 about=icmp,C,S`,
			only4: true, want: []string{"C>S icmp-sweep refused"}},
		{name: "answers to nobody, redirects, broadcasts", packets: `
			0 icmp S C type=0
			0 icmp R C type=5 code=1 about=tcp,C:40000,S:80
			0 icmp R C type=3 code=3 about=tcp,C:40000,S:80
			0 icmp C 192.0.2.255 type=8`,
			only4: true},
		{name: "neighbour discovery and group management", packets: `
			0 58 C S type=135
			0 58 S C type=136
			0 58 C M type=143
			0 58 C S type=133
			0 2 C M`,
			only6: true},
		{name: "group management", packets: "0 2 C M"},
	})
}

func TestAssociations(t *testing.T) {
	check(t, []script{
		{name: "refused, answered, silent", packets: `
			0   sctp C:40000 S:80 chunk=1
			0.1 sctp S:80 C:40000 chunk=6
			0.2 sctp C:40000 S:81 chunk=1
			0.3 sctp S:81 C:40000 chunk=2
			0.4 sctp C:40000 S:81 chunk=6
			0.5 sctp C:40000 S:82 chunk=1`,
			want: []string{"C:40000>S:80 sctp-init refused", "C:40000>S:81 sctp-init answered ended", "C:40000>S:82 sctp-init silent"}},
		{name: "set up", packets: `
			0   sctp C:40000 S:80 chunk=1
			0.1 sctp S:80 C:40000 chunk=2
			0.2 sctp C:40000 S:80 chunk=10
			0.3 sctp S:80 C:40000 chunk=11
			0.4 sctp C:40000 S:80 len=40`,
			want: []string{"C:40000>S:80 sctp-init answered verified"}},
		{name: "a cookie of nobody's", packets: `
			0   sctp C:40000 S:80 chunk=10
			0   sctp C:40000 S:81 chunk=10
			0   sctp C:40000 S:82 chunk=10
			0.1 sctp S:80 C:40000 chunk=6
			0.2 sctp S:82 C:40000 chunk=11`,
			want: []string{"C:40000>S:80 sctp-cookie refused", "C:40000>S:82 sctp-cookie answered", "C:40000>S:81 sctp-cookie silent"}},
		{name: "in the middle of one, and answers to nobody", packets: `
			0 sctp C:40000 S:80 len=40
			1 sctp S:80 C:40000 chunk=3
			2 sctp S:81 C:40000 chunk=2
			3 sctp S:82 C:40000 chunk=6`},
	})
}

func TestProtocols(t *testing.T) {
	check(t, []script{
		{name: "refused, answered, silent", packets: `
			0   77 C S
			0.1 icmp S C type=3 code=2 about=77,C:0,S:0
			0.2 78 C S
			0.3 78 S C
			0.4 79 C S`,
			only4: true, want: []string{"C>S ip-protocol refused", "C>S ip-protocol answered", "C>S ip-protocol silent"}},
		{name: "tunnels and routing", packets: `
			0 4 C S
			0 41 C S
			0 47 C S
			0 50 C S
			0 51 C S
			0 89 C M
			0 89 C S
			0 103 C M
			0 112 C M`},
		{name: "headers of IPv6 in IPv4, and its ICMP", packets: `
			0 59 C S
			0.1 58 C S`,
			only4: true, want: []string{"C>S ip-protocol silent", "C>S ip-protocol silent"}},
	})
}

// TestBackscatter: what nobody asked for is counted, once for each 4-tuple.
func TestBackscatter(t *testing.T) {
	got, stats := play(t, `
		0   tcp S:80 C:1000 SA seq=7 ack=1
		0.1 tcp S:80 C:1000 SA seq=7 ack=1
		0.2 tcp S:80 C:1001 RA ack=1
		0.3 icmp S C type=3 code=3 about=udp,C:1002,S:53
		0.4 icmp S C type=0
		0.5 sctp S:80 C:1003 chunk=6`, false)
	if len(got) != 0 || stats.Backscatter != 5 {
		t.Errorf("contacts %v, %d of backscatter, want 5", got, stats.Backscatter)
	}
}

// TestHeader: what the first packet shows is kept, whatever comes after it.
func TestHeader(t *testing.T) {
	var c detect.Contact
	tr := New(Options{}, func(x *detect.Contact) { c = *x })
	p := decode.Probe{
		Time: start, Src: hosts[0]["C"], Dst: hosts[0]["S"], Proto: 6, SrcPort: 5, DstPort: 6, Flags: decode.SYN, Window: 1024,
		Urgent: 3, Seq: 7, Ack: 8, MSS: 1460, TCPOptionsLen: 4, IPID: 9, TTL: 50, DF: true, PayloadLen: 11,
	}
	tr.Packet(&p, nil)
	again := p
	again.Window, again.Seq, again.TTL, again.Time = 1, p.Seq, 2, start+1
	tr.Packet(&again, nil)
	tr.Flush()
	if c.Head != detect.HeaderOf(&p) || c.Time != start {
		t.Errorf("got %+v, want %+v", c.Head, detect.HeaderOf(&p))
	}
}
