package tools

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"

	"portsentry/internal/decode"
	"portsentry/internal/detect"
)

func TestParseMistakes(t *testing.T) {
	tests := []struct{ name, file, want string }{
		{"empty", "", `no version; the file begins with a line like "version 2026.11"`},
		{"comments only", "# nothing\n\n  # here\n", "no version"},
		{"version misspelt", "verzion 1\n", `line 1: the version stands before the signatures, as in "version 2026.11"; did you mean version?`},
		{"version of two words", "version 1 2\n", "line 1: a version is one word"},
		{"version twice", "version 1\nversion 2\n", "line 2: the version stands once"},
		{"version late", "a tcp flags=syn seq=1\nversion 2\n", "line 1: the version stands before"},
		{"no name", "version 1\ntcp flags=syn seq=1\n", "line 2: tcp: a signature begins with the name of its program"},
		{"number for a name", "version 1\nwindow=1 tcp flags=syn\n", "line 2: window=1: a signature begins with the name"},
		{"unknown word", "version 1\n\na tpc flags=syn seq=1\n", "line 3: tpc: not a word of a signature; did you mean tcp?"},
		{"unknown number", "version 1\na tcp windw=1 mss=1\n", "line 2: windw=1: windw is no number of a header; did you mean window?"},
		{"letters", "version 1\na tcp window=1o24 mss=1\n", `line 2: window=1o24: "1o24" is no number from 0 to 65535 and no range of them`},
		{"sign", "version 1\na tcp window=+1 mss=1\n", `"+1" is no number`},
		{"nothing", "version 1\na tcp window= mss=1\n", `"" is no number`},
		{"end of a list", "version 1\na tcp window=1, mss=1\n", `"" is no number`},
		{"too big", "version 1\na tcp ttl=256 mss=1\n", `"256" is no number from 0 to 255`},
		{"far too big", "version 1\na tcp seq=4294967296 mss=1\n", "from 0 to 4294967295"},
		{"options too long", "version 1\na tcp options=41 mss=1\n", "from 0 to 40"},
		{"upside down", "version 1\na tcp ttl=9-3 mss=1\n", `"9-3" is upside down: 3-9`},
		{"unknown flag", "version 1\na tcp flags=sin mss=1\n", `line 2: flags=sin: "sin" is no TCP flag; did you mean fin?`},
		{"none and some", "version 1\na tcp flags=none+syn mss=1\n", `"none+syn" contradicts itself`},
		{"flag twice", "version 1\na tcp flags=syn+syn mss=1\n", `"syn+syn" contradicts itself`},
		{"relation misspelt", "version 1\na ip4 tcp mss=1 seq=dsts\n", "did you mean seq=dst?"},
		{"step misspelt", "version 1\na tcp mss=1 seq=before+1..4095\n", "did you mean seq=before+1..4096?"},
		{"run misspelt", "version 1\na tcp mss=1 window=2 run=sprt\n", "line 2: run=sprt: no number of a run; did you mean sport?"},
		{"df", "version 1\na tcp mss=1 window=2 df=1\n", "line 2: df=1: df is yes or no"},
		{"twice", "version 1\na tcp mss=1 mss=2\n", "line 2: mss=2: there is a mss already"},
		{"two protocols", "version 1\na tcp udp mss=1\n", "line 2: udp: there is a protocol already"},
		{"two families", "version 1\na ip4 ip6 tcp mss=1\n", "line 2: ip6: there is a family already"},
		{"relation twice", "version 1\na ip4 tcp seq=dst seq=dst\n", "there is a seq=dst already"},
		{"two runs", "version 1\na tcp mss=1 ttl=1 run=seq run=sport\n", "there is a run already"},
		{"no protocol", "version 1\na flags=syn mss=1\n", "line 2: no protocol: tcp, udp or icmp"},
		{"a family has no such thing", "version 1\na tcp flags=syn seq=dst\n", "line 2: seq=dst: in IPv4 only, so ip4 has to stand there"},
		{"nor has this", "version 1\na ip6 udp ipid=1 ttl=3\n", "line 2: ipid=1: in IPv4 only"},
		{"icmp of what", "version 1\na icmp type=8 ttl=3\n", "line 2: icmp: that of IPv4"},
		{"a protocol has no such thing", "version 1\na udp window=1 ttl=3\n", "line 2: window=1: this protocol has no such thing"},
		{"nor this", "version 1\na ip4 icmp type=8 sport=before+1..16\n", "sport=before+1..16: this protocol"},
		{"nor that", "version 1\na udp ttl=1 payload=3 run=seq\n", "run=seq: this protocol"},
		{"nothing to compare", "version 1\na tcp flags=syn same-run\n", "line 2: same-run: needs a run= to compare"},
		{"not kept", "version 1\na tcp flags=syn same-run run=hi16(ack)^lo16(ack)\n", "line 2: same-run: of the packet before"},
		{"too little", "version 1\na tcp flags=syn df=no\n", "line 2: asks for fewer than two things"},
		{"name alone", "version 1\na\n", "line 2: no protocol"},
		{"long line", "version 1\n#" + strings.Repeat("x", 2*maxLine) + "\n", "line 2: longer than 1024 bytes"},
		{"many lines", "version 1\n" + strings.Repeat("a tcp mss=1 ttl=1\n", maxSignatures+1), "line 1026: more than 1024 signatures"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s, err := Parse(strings.NewReader(test.file))
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want %q in it", err, test.want)
			}
			if s != nil {
				t.Error("a set beside the error")
			}
		})
	}
}

// Who writes a file is told of all mistakes at once.
func TestParseAllMistakes(t *testing.T) {
	_, err := Parse(strings.NewReader("version 1\na tpc\n\nb tcp ttl=300 mss=1\n"))
	if err == nil || !strings.Contains(err.Error(), "line 2:") || !strings.Contains(err.Error(), "line 4:") {
		t.Errorf("error %v, want both lines in it", err)
	}
}

func TestParseTooManyTools(t *testing.T) {
	var file strings.Builder
	file.WriteString("version 1\n")
	for i := range maxTools + 1 {
		file.WriteString("tool" + string(rune('a'+i/26)) + string(rune('a'+i%26)) + " tcp mss=1 ttl=1\n")
	}
	if _, err := Parse(strings.NewReader(file.String())); err == nil || !strings.Contains(err.Error(), "line 257: tooljv: more than 255 programs") {
		t.Errorf("error %v", err)
	}
}

func TestParse(t *testing.T) {
	s, err := Parse(strings.NewReader("# head\n version\t7b # the\r\none ip4 tcp flags=syn window=0-2,65535 # why\ntwo tcp window!=5 ttl=1-3\none tcp window=5 mss=9\n"))
	if err != nil {
		t.Fatal(err)
	}
	if s.Version() != "7b" || s.Name(1) != "one" || s.Name(2) != "two" || s.Name(0) != "" || s.Name(3) != "" || s.Name(255) != "" {
		t.Errorf("version %q, names %q", s.Version(), s.names)
	}
	four := netip.MustParseAddr("192.0.2.1")
	for _, test := range []struct {
		window, mss uint16
		ttl         uint8
		flags       uint16
		want        string
	}{
		{0, 0, 9, decode.SYN, "one"},
		{2, 0, 9, decode.SYN, "one"},
		{3, 0, 9, decode.SYN, ""},
		{65535, 0, 9, decode.SYN, "one"},
		{65534, 0, 9, decode.SYN, ""},
		{2, 0, 2, decode.SYN, "one"}, // the first that fits
		{2, 0, 2, decode.SYN | decode.ECE, "two"},
		{5, 0, 2, decode.SYN, ""},
		{5, 9, 2, decode.SYN, "one"},
		{6, 0, 0, decode.SYN, ""},
		{6, 0, 1, decode.SYN, "two"},
	} {
		h := detect.Header{Dst: four, Proto: decode.ProtoTCP, Flags: test.flags, Window: test.window, MSS: test.mss, TTL: test.ttl}
		if tool, run := s.Label(nil, &h); s.Name(tool) != test.want || run != 0 {
			t.Errorf("window %d mss %d ttl %d flags %d: %q %x, want %q", test.window, test.mss, test.ttl, test.flags, s.Name(tool), run, test.want)
		}
	}
}

// Every word that the head of the file explains is one, and the other way round.
func TestHeadExplainsEveryWord(t *testing.T) {
	v := vocabulary()
	head, _, _ := strings.Cut(embedded, "# ---")
	known := v.all()
	for name := range v.runs {
		known = append(known, "run="+name)
	}
	for _, word := range known {
		if !strings.Contains(head, word) {
			t.Errorf("the head does not tell of %s", word)
		}
	}
}

// FuzzParse: no input makes Parse panic; it gives a set or an error, never both; and
// a set names packets by names of its own.
func FuzzParse(f *testing.F) {
	f.Add([]byte(embedded), uint16(1024), uint32(7))
	f.Add([]byte("version 1\na ip4 tcp flags=syn,none window=0-65535 seq=dst run=sport\n"), uint16(0), uint32(0))
	f.Add([]byte("version 1\na tcp ttl!=3 sport=before+1..16 same-run run=seq\n"), uint16(65535), uint32(1<<31))
	f.Fuzz(func(t *testing.T, file []byte, window uint16, seq uint32) {
		s, err := Parse(bytes.NewReader(file))
		if (s == nil) == (err == nil) {
			t.Fatalf("set %v and error %v", s, err)
		}
		if err != nil {
			if !strings.HasPrefix(err.Error(), "signatures: ") {
				t.Fatalf("error %q", err)
			}
			return
		}
		if s.Version() == "" {
			t.Fatal("no version")
		}
		now := detect.Header{Dst: netip.AddrFrom4([4]byte{192, 0, 2, 1}), Proto: decode.ProtoTCP, Flags: decode.SYN, Window: window, Seq: seq}
		before := now
		before.SrcPort--
		before.Seq--
		for _, b := range []*detect.Header{nil, &before} {
			tool, run := s.Label(b, &now)
			if (tool != 0) != (s.Name(tool) != "") || run != 0 && run>>32 != uint64(tool) {
				t.Fatalf("tool %d %q run %x", tool, s.Name(tool), run)
			}
		}
	})
}

func BenchmarkLoad(b *testing.B) {
	for b.Loop() {
		if _, err := Load(); err != nil {
			b.Fatal(err)
		}
	}
}
