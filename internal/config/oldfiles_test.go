package config

import (
	"strings"
	"testing"
)

func TestParseModes(t *testing.T) {
	for _, tt := range []struct {
		text     string
		want     Modes
		mistakes string
	}{
		{"# modes\n\ntcp\nudp # both\n#stcp\n# atcp\n", Modes{Connect, Connect}, ""},
		{"stcp sudp", Modes{Stealth, Stealth}, ""},
		{"\tatcp#x\r\n", Modes{Advanced, Unwatched}, ""},
		{"", Modes{Connect, Connect}, ""},
		{"# tcp\n#udp\n", Modes{Connect, Connect}, ""},
		{"tcp\nscp # slip\nupd\n", Modes{}, "f:2: \"scp\": must be tcp, udp, stcp, sudp, atcp or audp; did you mean tcp?\n" +
			"f:3: \"upd\": must be tcp, udp, stcp, sudp, atcp or audp; did you mean udp?"},
		{"tcp\nudp\nstcp\n", Modes{}, "f:3: tcp and stcp: one mode for TCP only; keep one"},
		{"tcp\x00", Modes{}, "f:1: a NUL byte; is this a text file, and not saved as UTF-16?"},
		{strings.Repeat("#", maxFile+1), Modes{}, "f: more than 1048576 bytes; this is not the file it should be"},
	} {
		m, err := ParseModes("f", []byte(tt.text))
		if got := strings.Join(mistakes(t, err), "\n"); m != tt.want || got != tt.mistakes {
			t.Errorf("%.40q: %v\n got %s\nwant %s", tt.text, m, got, tt.mistakes)
		}
	}
}

func TestParseDefaults(t *testing.T) {
	const only = " is not read: only NAME=value is, and comments"
	for _, tt := range []struct {
		text     string
		want     Modes
		mistakes string
	}{
		{"# /etc/default/portsentry\n\nTCP_MODE=\"tcp\"\nUDP_MODE=\"udp\"\n", Modes{Connect, Connect}, ""},
		{"TCP_MODE='stcp'\n export  UDP_MODE=sudp # stealth", Modes{Stealth, Stealth}, ""},
		{"TCP_MODE=a\"tc\"'p'; UDP_MODE=\r\n", Modes{Advanced, Unwatched}, ""},
		{"TCP_MODE=tcp UDP_MODE=audp\nexport TCP_MODE UDP_MODE=udp", Modes{Connect, Connect}, ""},
		{"TCP_MODE=tcp;export TCP_MODE\nexport UDP_MODE", Modes{Connect, Unwatched}, ""},
		{"TCP_MODE=tcp\nTCP_MODE=stcp", Modes{Stealth, Unwatched}, ""},
		{"TCP_MODE=\"\"\nUDP_MODE=''\n", Modes{}, ""},
		{"", Modes{}, ""},
		{"OPTIONS=\"-x $HOME \\\" `id`\"\nTCP_MODE=tcp", Modes{Connect, Unwatched}, ""},
		{"PORTSENTRY_TCP=yes\nPORTSENTRY_SUDP=\"On\"\nPORTSENTRY_AUDP=no\nPORTSENTRY_UDP=", Modes{Connect, Stealth}, ""},

		{"TCP_MODE=udp", Modes{}, `f:1: TCP_MODE: "udp": must be tcp, stcp or atcp`},
		{"TCP_MODE=stpc\nUDP_MODE=upd", Modes{}, "f:1: TCP_MODE: \"stpc\": must be tcp, stcp or atcp; did you mean stcp?\nf:2: UDP_MODE: \"upd\": must be udp, sudp or audp; did you mean udp?"},
		{"TCP_MODE=$MODE", Modes{}, "f:1: TCP_MODE is not read: a plain value is needed here, without $, ` and \\"},
		{"TCP_MDOE=tcp", Modes{}, "f:1: TCP_MDOE is not read; did you mean TCP_MODE?"},
		{"tcp_mode=tcp", Modes{}, "f:1: tcp_mode is not read; did you mean TCP_MODE?"},
		{"TCP_MODE = tcp", Modes{}, `f:1: "TCP_MODE = tcp" is no assignment to a shell: no blanks round the =`},
		{"TCP_MODE= tcp", Modes{}, `f:1: "TCP_MODE= tcp"` + only},
		{"TCP_MODE=\"tcp\nUDP_MODE=udp", Modes{}, `f:1: TCP_MODE: the closing quote is missing after "tcp"`},
		{"if true; then TCP_MODE=tcp; fi", Modes{}, `f:1: "if true; then TCP_MODE=tcp; fi"` + only},
		{"TCP_MODE=tcp&", Modes{}, `f:1: "tcp&"` + only},
		{"PORTSENTRY_TCP=maybe\nPORTSENTRY_UDP=$X", Modes{}, "f:1: PORTSENTRY_TCP: \"maybe\": must be yes or no\nf:2: PORTSENTRY_UDP is not read: a plain value is needed here, without $, ` and \\"},
		{"PORTSENTRY_TCP=yes\nPORTSENTRY_STCP=yes", Modes{}, "f:2: PORTSENTRY_STCP: tcp and stcp: one mode for TCP only; keep one"},
	} {
		m, none, err := ParseDefaults("f", []byte(tt.text))
		if got := strings.Join(mistakes(t, err), "\n"); m != tt.want || got != tt.mistakes || none != (err == nil && m == Modes{}) {
			t.Errorf("%q: %v %v\n got %s\nwant %s", tt.text, m, none, got, tt.mistakes)
		}
	}
}

// FuzzParseModes: no text makes ParseModes panic; it gives mistakes, or modes
// whose words it reads as the same.
func FuzzParseModes(f *testing.F) {
	f.Add([]byte("tcp # x\nsudp\n"))
	f.Add([]byte("#"))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := ParseModes("f", data)
		if err != nil {
			checkMistakes(t, data, err)
			return
		}
		words := m.TCP.Word(Dialect1x, false) + "\n" + m.UDP.Word(Dialect1x, true)
		if back, err := ParseModes("f", []byte(strings.ReplaceAll(words, "none", ""))); err != nil || back != m {
			t.Fatalf("%v is read as %v, %v", m, back, err)
		}
	})
}

// FuzzParseDefaults: no text makes ParseDefaults panic; it gives mistakes, or
// modes that it reads as the same from a plain file.
func FuzzParseDefaults(f *testing.F) {
	f.Add([]byte("TCP_MODE=\"tcp\"\nexport UDP_MODE='sudp' # x\nA=$B"))
	f.Add([]byte("PORTSENTRY_ATCP=yes;PORTSENTRY_UDP=\"on"))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, none, err := ParseDefaults("f", data)
		if err != nil {
			checkMistakes(t, data, err)
			return
		}
		text := "TCP_MODE=" + strings.ReplaceAll(m.TCP.Word(Dialect1x, false), "none", "") +
			"\nUDP_MODE=" + strings.ReplaceAll(m.UDP.Word(Dialect1x, true), "none", "")
		if back, again, err := ParseDefaults("f", []byte(text)); err != nil || back != m || again != none {
			t.Fatalf("%v is read as %v, %v", m, back, err)
		}
	})
}
