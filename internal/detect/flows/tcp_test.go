package flows

import "testing"

func TestConnections(t *testing.T) {
	check(t, []script{
		{name: "refused", packets: `
			0     tcp C:40000 S:80 S seq=7
			0.001 tcp S:80 C:40000 RA ack=8`,
			want: []string{"C:40000>S:80 syn refused"}},
		{name: "refused again and again is one contact", packets: `
			0     tcp C:40000 S:80 S seq=7
			0.001 tcp S:80 C:40000 RA ack=8
			0.5   tcp C:40000 S:80 S seq=7
			0.501 tcp S:80 C:40000 RA ack=8
			1     tcp C:40000 S:80 S seq=9
			1.001 tcp S:80 C:40000 RA ack=10`,
			want: []string{"C:40000>S:80 syn refused"}},
		{name: "and later it is a new one", packets: `
			0     tcp C:40000 S:80 S seq=7
			0.001 tcp S:80 C:40000 RA ack=8
			90    tcp C:40000 S:80 S seq=9
			90.1  tcp S:80 C:40000 SA seq=100 ack=10
			90.2  tcp C:40000 S:80 A seq=10 ack=101
			90.3  tcp C:40000 S:80 PA seq=10 ack=101 len=9`,
			want: []string{"C:40000>S:80 syn refused", "C:40000>S:80 syn answered verified spoke"}},
		{name: "silent, retransmissions do not make it wait longer", packets: `
			0   tcp C:40000 S:80 S seq=7
			1   tcp C:40000 S:80 S seq=7
			2.9 tcp C:40000 S:80 S seq=7
			3   tcp C:40001 S:81 S seq=7
			3.1 tcp S:80 C:40000 RA ack=8`,
			want: []string{"C:40000>S:80 syn silent", "C:40001>S:81 syn silent"}},
		{name: "an answer too late changes nothing, nor does what follows", packets: `
			0   tcp C:40000 S:80 S seq=7
			4   tcp S:80 C:40000 SA seq=100 ack=8
			4.1 tcp C:40000 S:80 A seq=8 ack=101
			9   tcp C:40000 S:80 FA seq=8 ack=101`,
			want: []string{"C:40000>S:80 syn silent"}},
		{name: "half open", packets: `
			0     tcp C:40000 S:80 S seq=7
			0.001 tcp S:80 C:40000 SA seq=100 ack=8
			0.002 tcp C:40000 S:80 R seq=8`,
			want: []string{"C:40000>S:80 syn answered ended"}},
		{name: "half open, and the RST never came", packets: `
			0     tcp C:40000 S:80 S seq=7
			0.001 tcp S:80 C:40000 SA seq=100 ack=8
			1     tcp S:80 C:40000 SA seq=100 ack=8`,
			want: []string{"C:40000>S:80 syn answered"}},
		{name: "connected and closed", packets: `
			0     tcp C:40000 S:80 S seq=7
			0.001 tcp S:80 C:40000 SA seq=100 ack=8
			0.002 tcp C:40000 S:80 A seq=8 ack=101
			0.003 tcp C:40000 S:80 FA seq=8 ack=101`,
			want: []string{"C:40000>S:80 syn answered verified ended"}},
		{name: "connected and reset, as nmap does", packets: `
			0     tcp C:40000 S:80 S seq=7
			0.001 tcp S:80 C:40000 SA seq=100 ack=8
			0.002 tcp C:40000 S:80 A seq=8 ack=101
			0.003 tcp C:40000 S:80 RA seq=8 ack=101`,
			want: []string{"C:40000>S:80 syn answered verified ended"}},
		{name: "the banner comes before the first ACK", packets: `
			0     tcp C:40000 S:22 S seq=7
			0.001 tcp S:22 C:40000 SA seq=4294967295 ack=8
			0.002 tcp S:22 C:40000 PA seq=0 ack=8 len=20
			0.003 tcp C:40000 S:22 A seq=8 ack=20
			0.004 tcp C:40000 S:22 PA seq=8 ack=20 len=30`,
			want: []string{"C:40000>S:22 syn answered verified spoke"}},
		{name: "a guessed number is no proof", packets: `
			0     tcp C:40000 S:80 S seq=7
			0.001 tcp S:80 C:40000 SA seq=100 ack=8
			0.002 tcp C:40000 S:80 A seq=8 ack=102
			0.003 tcp C:40000 S:80 PA seq=8 ack=90 len=5`,
			want: []string{"C:40000>S:80 syn answered spoke"}},
		{name: "a RST with our number is no proof", packets: `
			0     tcp C:40000 S:80 S seq=7
			0.001 tcp S:80 C:40000 SA seq=100 ack=8
			0.002 tcp C:40000 S:80 RA seq=8 ack=101`,
			want: []string{"C:40000>S:80 syn answered ended"}},
		{name: "the answer to another SYN proves nothing", packets: `
			0     tcp C:40000 S:80 S seq=7
			0.001 tcp S:80 C:40000 SA seq=100 ack=5000
			0.002 tcp C:40000 S:80 A seq=8 ack=101`,
			want: []string{"C:40000>S:80 syn answered"}},
		{name: "data in the SYN", packets: `
			0     tcp C:40000 S:80 S seq=7 len=10
			0.001 tcp S:80 C:40000 SA seq=100 ack=18 len=4
			0.002 tcp C:40000 S:80 A seq=18 ack=105
			0.003 tcp C:40000 S:80 FA seq=18 ack=105`,
			want: []string{"C:40000>S:80 syn answered verified ended"}},
		{name: "a long connection is one contact", packets: `
			0     tcp C:40000 S:80 S seq=7
			0.001 tcp S:80 C:40000 SA seq=100 ack=8
			0.002 tcp C:40000 S:80 A seq=8 ack=101
			4     tcp C:40000 S:80 PA seq=8 ack=101 len=9
			4.1   tcp S:80 C:40000 PA seq=101 ack=17 len=9
			99    tcp C:40000 S:80 A seq=16 ack=110
			99.1  tcp S:80 C:40000 FA seq=110 ack=17
			99.2  tcp C:40000 S:80 R seq=17
			99.3  tcp C:40000 S:80 FA seq=17 ack=111
			99.4  tcp C:40000 S:80 F seq=17`,
			want: []string{"C:40000>S:80 syn answered verified"}},
		{name: "the port is used again", packets: `
			0     tcp C:40000 S:80 S seq=7
			0.001 tcp S:80 C:40000 SA seq=100 ack=8
			0.002 tcp C:40000 S:80 R seq=8
			0.1   tcp C:40000 S:80 S seq=900
			0.101 tcp S:80 C:40000 SA seq=200 ack=901
			0.102 tcp C:40000 S:80 R seq=901`,
			want: []string{"C:40000>S:80 syn answered ended", "C:40000>S:80 syn answered ended"}},
		{name: "probes of an established connection are none", packets: `
			0     tcp C:40000 S:80 S seq=7
			0.001 tcp S:80 C:40000 SA seq=100 ack=8
			0.002 tcp C:40000 S:80 PA seq=8 ack=101 len=3
			0.1   tcp C:40000 S:80 S seq=70
			0.2   tcp C:40000 S:80 F seq=70
			0.3   tcp C:40000 S:80 FPU seq=70
			0.4   tcp C:40000 S:80 SF seq=70
			0.5   tcp C:40000 S:80 A seq=1 ack=1`,
			want: []string{"C:40000>S:80 syn answered verified spoke"}},
		{name: "an ICMP error is a refusal", packets: `
			0   tcp C:40000 S:80 S seq=7
			0.1 icmp R C type=3 code=1 about=tcp,C:40000,S:80
			0.2 tcp C:40000 S:80 S seq=7`,
			only4: true, want: []string{"C:40000>S:80 syn refused"}},
		{name: "one about the answer is none", packets: `
			0   tcp C:40000 S:80 S seq=7
			0.1 icmp R S type=3 code=1 about=tcp,S:80,C:40000`,
			only4: true, want: []string{"C:40000>S:80 syn silent"}},
		{name: "path MTU is no refusal", packets: `
			0   tcp C:40000 S:80 S seq=7 len=9
			0.1 icmp R C type=3 code=4 about=tcp,C:40000,S:80
			0.2 tcp S:80 C:40000 SA seq=100 ack=8`,
			only4: true, want: []string{"C:40000>S:80 syn answered"}},
		{name: "the server closes, or resets", packets: `
			0     tcp C:40000 S:80 S seq=7
			0.001 tcp S:80 C:40000 SA seq=100 ack=8
			0.002 tcp S:80 C:40000 FA seq=101 ack=8
			0.003 tcp C:40000 S:80 A seq=8 ack=102
			0.004 tcp C:40000 S:80 FA seq=8 ack=102
			1     tcp C:40001 S:80 S seq=7
			1.001 tcp S:80 C:40001 SA seq=100 ack=8
			1.002 tcp C:40001 S:80 A seq=8 ack=101
			1.003 tcp S:80 C:40001 RA seq=101 ack=8`,
			want: []string{"C:40000>S:80 syn answered verified ended", "C:40001>S:80 syn answered verified"}},
		{name: "a SYN after the answer, and another probe before it", packets: `
			0     tcp C:40000 S:80 S seq=7
			0.001 tcp C:40000 S:80 F seq=7
			0.002 tcp S:80 C:40000 SA seq=100 ack=8
			0.003 tcp C:40000 S:80 S seq=7
			0.004 tcp C:40000 S:80 R seq=8`,
			want: []string{"C:40000>S:80 syn answered ended"}},
		{name: "ICMP errors about lone ACKs and strays", packets: `
			1   tcp C:40000 S:80 A seq=7
			1.1 icmp R C type=3 code=13 about=tcp,C:40000,S:80
			2   tcp C:40000 S:81 F seq=7
			2.1 icmp R C type=3 code=13 about=tcp,C:40000,S:81
			3   sctp C:40000 S:82 chunk=1
			3.1 icmp R C type=3 code=2 about=sctp,C:40000,S:82
			4   icmp C S type=8
			4.1 icmp R C type=3 about=icmp,C,T`,
			only4: true, want: []string{"C:40000>S:80 ack refused", "C:40000>S:81 fin refused", "C:40000>S:82 sctp-init refused", "C>S icmp-sweep silent"}},
		{name: "both at once", packets: `
			0   tcp C:40000 S:50000 S seq=7
			0.1 tcp S:50000 C:40000 S seq=9
			0.2 tcp S:50000 C:40000 SA seq=9 ack=8
			0.3 tcp C:40000 S:50000 A seq=8 ack=10`,
			want: []string{"C:40000>S:50000 syn answered verified"}},
	})
}

func TestOneSided(t *testing.T) {
	check(t, []script{
		{name: "the source goes on: it was answered", packets: `
			0   tcp C:40000 S:80 S seq=7
			0.1 tcp C:40000 S:80 A seq=8 ack=101
			0.2 tcp C:40000 S:80 PA seq=8 ack=101 len=9`,
			want: []string{"C:40000>S:80 syn answered spoke"}},
		{name: "its stack resets", packets: `
			0   tcp C:40000 S:80 S seq=7
			0.1 tcp C:40000 S:80 R seq=8`,
			want: []string{"C:40000>S:80 syn answered ended"}},
		{name: "not where the other side would be heard", packets: `
			0   tcp T:40000 S:22 S seq=7
			0.1 tcp S:22 T:40000 RA ack=8
			1   tcp C:40000 S:80 S seq=7
			1.1 tcp C:40000 S:80 R seq=8
			2   tcp C:40000 S:81 S seq=7
			2.1 tcp C:40000 S:81 A seq=8 ack=1`,
			want: []string{"T:40000>S:22 syn refused", "C:40000>S:80 syn silent", "C:40000>S:81 syn silent"}},
		{name: "backscatter", packets: `
			0   tcp S:80 C:1000 SA seq=7 ack=1
			0.1 tcp S:80 C:1001 SA seq=7 ack=1
			0.2 tcp S:80 C:1002 RA ack=1
			0.3 tcp C:1001 S:80 R seq=1
			0.4 tcp S:80 C:1001 A seq=8 ack=1`},
		{name: "the first packet seen is a SYN-ACK", packets: `
			0   tcp S:80 C:40000 SA seq=100 ack=8
			0.1 tcp C:40000 S:80 A seq=8 ack=101
			0.2 tcp C:40000 S:80 PA seq=8 ack=101 len=3
			5   tcp C:40000 S:80 FA seq=11 ack=101`},
	})
}

func TestMidStream(t *testing.T) {
	check(t, []script{
		{name: "data first", packets: `
			0 tcp C:40000 S:80 PA seq=8 ack=101 len=3
			1 tcp S:80 C:40000 A seq=101 ack=11
			9 tcp C:40000 S:80 FA seq=11 ack=101
			9 tcp S:80 C:40000 FA seq=101 ack=12`},
		{name: "data without PSH", packets: `
			0 tcp S:80 C:40000 A seq=8 ack=101 len=1400
			9 tcp S:80 C:40000 FA seq=1408 ack=101`},
		{name: "the end of one", packets: `
			0 tcp C:40000 S:80 FPA seq=8 ack=101
			1 tcp C:40000 S:80 FA seq=8 ack=101
			2 tcp C:41000 S:80 RA seq=8 ack=101
			3 tcp C:41000 S:80 FA seq=8 ack=101`},
		{name: "a RST or data first does not hide a SYN", packets: `
			0   tcp C:40000 S:80 R seq=1
			0.1 tcp C:40000 S:80 S seq=7
			0.2 tcp S:80 C:40000 RA ack=8
			0.3 tcp C:40000 S:81 PA seq=7 len=3
			0.4 tcp C:40000 S:81 S seq=7
			0.5 tcp S:81 C:40000 RA ack=8
			0.6 tcp C:40000 S:82 PA seq=7 len=3
			0.7 tcp C:40000 S:82 F seq=7
			0.8 tcp S:82 C:40000 RA ack=8`,
			want: []string{"C:40000>S:80 syn refused", "C:40000>S:81 syn refused", "C:40000>S:82 fin refused"}},
	})
}

func TestLoneACK(t *testing.T) {
	check(t, []script{
		{name: "refused", packets: `
			0     tcp C:40000 S:80 A seq=1 ack=9000
			0.001 tcp S:80 C:40000 R seq=9000
			0.002 tcp C:40000 S:81 FA seq=1 ack=9000
			0.003 tcp S:81 C:40000 RA seq=9000`,
			want: []string{"C:40000>S:80 ack refused", "C:40000>S:81 maimon refused"}},
		{name: "silent", packets: `
			1   tcp C:40000 S:80 A seq=1 ack=9000
			1   tcp C:40000 S:81 FA seq=1 ack=9000
			2   tcp C:40000 S:80 A seq=1 ack=900000
			2   tcp C:40000 S:81 FA seq=1 ack=900000`,
			want: []string{"C:40000>S:80 ack silent", "C:40000>S:81 maimon silent"}},
		{name: "silent, twice in the capture because of a mirror port", packets: `
			1       tcp C:40000 S:80 A seq=1 ack=9000
			1.00001 tcp C:40000 S:80 A seq=1 ack=9000`,
			want: []string{"C:40000>S:80 ack silent"}},
		{name: "right at the beginning it may acknowledge what came before", packets: `
			0   tcp C:40000 S:80 A seq=1 ack=9000
			0.4 tcp C:40001 S:80 FA seq=1 ack=9000
			0.6 tcp C:40002 S:80 A seq=1 ack=9000`,
			want: []string{"C:40002>S:80 ack silent"}},
		{name: "the other side has a connection", packets: `
			1 tcp C:40000 S:80 A seq=1 ack=9000
			1 tcp S:80 C:40000 A seq=9000 ack=2
			2 tcp C:40000 S:81 FA seq=1 ack=9000
			2 tcp S:81 C:40000 FA seq=9000 ack=2
			2 tcp C:40000 S:81 A seq=2 ack=9001
			3 tcp C:40000 S:82 A seq=1 ack=9000
			3 tcp S:82 C:40000 PA seq=9000 ack=1 len=9
			4 tcp S:82 C:40000 R seq=9000`},
		{name: "the source goes on", packets: `
			1   tcp C:40000 S:80 A seq=1 ack=9000
			1   tcp C:40000 S:80 A seq=1 ack=10460
			1   tcp C:40000 S:81 A seq=1 ack=9000
			1.1 tcp C:40000 S:81 A seq=1 ack=9000 win=512
			1   tcp C:40000 S:82 A seq=1 ack=9000
			1.1 tcp C:40000 S:82 PA seq=1 ack=9000 len=4
			1   tcp C:40000 S:83 A seq=1 ack=9000
			1.1 tcp C:40000 S:83 RA seq=1 ack=9000
			1   tcp C:40000 S:84 FA seq=1 ack=9000
			1.3 tcp C:40000 S:84 FA seq=1 ack=9000
			1.9 tcp C:40000 S:84 FA seq=1 ack=9000`},
		{name: "with timestamps a handshake came before, unless a RST says otherwise", packets: `
			1 tcp C:40000 S:80 A seq=1 ack=9000 opts=12
			1 tcp C:40000 S:81 FA seq=1 ack=9000 opts=12
			1 tcp C:40000 S:82 A seq=1 ack=9000 opts=12
			1 tcp S:82 C:40000 R seq=9000
			2 tcp C:40000 S:83 A seq=1 opts=20 mss=265`,
			want: []string{"C:40000>S:82 ack refused", "C:40000>S:83 ack silent"}},
		{name: "from a server to a client that is gone", packets: `
			1 tcp S:443 C:40000 FA seq=1 ack=9000
			1 tcp C:40000 S:443 R seq=9000
			2 tcp S:8443 C:40000 A seq=1 ack=9000
			3 tcp S:3478 C:3675 FA seq=1 ack=9000
			3 tcp C:3675 S:3478 R seq=9000`},
		{name: "to and from a port that takes connections", packets: `
			1   tcp C:40000 S:8080 S seq=7
			1.1 tcp S:8080 C:40000 SA seq=100 ack=8
			1.2 tcp C:40000 S:8080 R seq=8
			2   tcp T:50000 S:8080 FA seq=1 ack=9000
			2.1 tcp S:8080 T:50000 R seq=9000
			3   tcp S:8080 T:2000 A seq=1 ack=9000
			3.1 tcp T:2000 S:8080 R seq=9000
			3.5 tcp T:50001 S:8080 A seq=1 opts=20 mss=265
			3.6 tcp S:8080 T:50001 R
			4   tcp T:50000 S:8081 FA seq=1 ack=9000
			4.1 tcp S:8081 T:50000 R seq=9000`,
			want: []string{"C:40000>S:8080 syn answered ended", "T:50001>S:8080 ack refused", "T:50000>S:8081 maimon refused"}},
		{name: "an answer to nobody makes no server", packets: `
			0   tcp C:40000 T:1 SA
			1   tcp C:40000 S:81 FA seq=1 ack=9000
			1.1 tcp S:81 C:40000 R seq=9000`,
			want: []string{"C:40000>S:81 maimon refused"}},
		{name: "a SYN after it", packets: `
			1   tcp C:40000 S:80 A seq=1 ack=9000
			1.1 tcp C:40000 S:80 S seq=1
			1.2 tcp S:80 C:40000 RA ack=2`,
			want: []string{"C:40000>S:80 syn refused"}},
		{name: "after a refusal, from the same port", packets: `
			1   tcp C:53 S:80 S seq=1
			1.1 tcp S:80 C:53 RA ack=2
			2   tcp C:53 S:80 A seq=1 ack=9000
			2.1 tcp S:80 C:53 R seq=9000`,
			want: []string{"C:53>S:80 syn refused", "C:53>S:80 ack refused"}},
	})
}

func TestStray(t *testing.T) {
	check(t, []script{
		{name: "refused and silent", packets: `
			0   tcp C:40000 S:1 F
			0   tcp C:40000 S:2
			0   tcp C:40000 S:3 FPU
			0   tcp C:40000 S:4 PU
			0.1 tcp S:1 C:40000 RA
			0.1 tcp S:2 C:40000 RA
			0.1 tcp S:3 C:40000 RA
			0.1 tcp S:4 C:40000 RA
			5   tcp C:40000 S:11 F
			5   tcp C:40000 S:12
			6   tcp C:40000 S:11 F`,
			want: []string{"C:40000>S:1 fin refused", "C:40000>S:2 null refused", "C:40000>S:3 xmas refused", "C:40000>S:4 odd refused",
				"C:40000>S:11 fin silent", "C:40000>S:12 null silent"}},
		{name: "SYN with others is answered like one", packets: `
			0   tcp C:40000 S:80 SPU seq=7
			0.1 tcp S:80 C:40000 SA seq=100 ack=8
			0.2 tcp C:40000 S:80 R seq=8
			0.3 tcp C:40000 S:81 SFPU seq=7
			0.4 tcp S:81 C:40000 RA ack=8`,
			want: []string{"C:40000>S:80 odd answered ended", "C:40000>S:81 xmas refused"}},
		{name: "there is a connection after all", packets: `
			0   tcp C:40000 S:80 F seq=7
			0.1 tcp S:80 C:40000 A seq=100 ack=8`},
		{name: "one kind after the other from the same port", packets: `
			0   tcp C:40000 S:80 F
			0.1 tcp C:40000 S:80 FPU
			0.2 tcp C:40000 S:80 S seq=7
			0.3 tcp S:80 C:40000 RA ack=8
			0.4 tcp C:40000 S:80
			0.5 tcp S:80 C:40000 RA`,
			want: []string{"C:40000>S:80 fin silent", "C:40000>S:80 xmas silent", "C:40000>S:80 syn refused", "C:40000>S:80 null refused"}},
	})
}
